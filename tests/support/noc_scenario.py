"""Records whose answers to the questions of examples/sql are known."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import NAMESPACE_URL, uuid5

from fnm_bus.event import (
    AnyRecord,
    AttackDetails,
    Audit,
    HostEvent,
    HostgroupEvent,
    Mitigation,
    PacketSample,
    Receipt,
)
from fnm_bus.kafka.addressing import Topics

START = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
CARPET = "customers"
KEY = "blackhole|203.0.113.1/32|exabgp"
OTHER_KEY = "blackhole|203.0.113.2/32|exabgp"

ANSWERS: dict[str, list[tuple[str, ...]]] = {
    "attacks_per_hostgroup_and_minute": [
        ("03:14:00", "customers", "15", "120000"),
        ("03:14:00", "servers", "3", "15000"),
        ("03:15:00", "customers", "10", "205000"),
        ("03:30:00", "customers", "1", "1000"),
        ("03:40:00", "customers", "1", "2000"),
        ("04:59:00", "servers", "1", "5000"),
    ],
    "top_targets": [
        ("203.0.113.2", "2", "2000"),
        ("203.0.113.1", "2", "1000"),
        *((f"203.0.113.{number}", "1", f"{number}000") for number in range(25, 17, -1)),
    ],
    "top_ports": [("udp", "443", "50000"), ("udp", "53", "3000")],
    "ban_durations": [
        ("203.0.113.1", "fra1", "03:14:45", "315"),
        ("203.0.113.1", "fra1", "03:30:00", "45"),
        ("203.0.113.2", "fra1", "03:40:00", "60"),
    ],
    "events_once": [("ban", "31"), ("unban", "3")],
    "in_force": [(KEY, "exabgp", "03:14:46", "acme", "customers")],
    "seconds_to_in_force": [
        ("203.0.113.1", KEY, "03:14:46", "1250"),
        ("203.0.113.2", OTHER_KEY, "03:14:48", "2000"),
    ],
    "carpet_bombing": [
        ("hostgroup customers", "25"),
        ("network 203.0.113.0/24", "25"),
    ],
}


def records(topics: Topics) -> Iterator[tuple[str, bytes, AnyRecord]]:
    """Yield topic, key and record in the order of their times.

    25 hosts of a hostgroup are banned within 25 seconds, on both sides of a full
    minute; one of these events is delivered twice. Two hosts are banned again: the
    first after its unban, which is delivered twice; the unban of the second was lost.
    """
    bans = [
        _ban(f"203.0.113.{number}", 14 * 60 + 44 + number, number * 1000)
        for number in range(1, 26)
    ]
    servers = [
        _ban(f"198.51.100.{number}", 14 * 60 + number, 5000, "servers")
        for number in range(1, 4)
    ]
    later = [
        _host("unban", "203.0.113.1", 20 * 60, 1000),
        _ban("203.0.113.1", 30 * 60, 1000),
        _host("unban", "203.0.113.1", 30 * 60 + 45, 1000),
        _ban("203.0.113.2", 40 * 60, 2000),
        _host("unban", "203.0.113.2", 41 * 60, 2000),
        # It moves Flink's watermark past every window before it.
        _ban("198.51.100.9", 119 * 60, 5000, "servers"),
    ]
    for event in (*servers, bans[0], *bans, later[0], *later):
        yield topics.host, event.ip.encode(), event
    group = HostgroupEvent(
        receipt=_receipt("group", 14 * 60 + 50), action="ban", hostgroup_name=CARPET
    )
    yield topics.hostgroup, CARPET.encode(), group
    yield from _decisions(topics, bans[0], bans[1])


def _decisions(
    topics: Topics, first: HostEvent, second: HostEvent
) -> Iterator[tuple[str, bytes, AnyRecord]]:
    begun = 14 * 60 + 45.0
    for event, key, wanted, in_force in (
        (first, KEY, begun + 0.05, begun + 1.25),
        (second, OTHER_KEY, begun + 1.05, begun + 3.0),
    ):
        yield (
            topics.audit,
            key.encode(),
            Audit(
                at=_at(wanted),
                by="mitigator",
                action="wanted",
                key=key,
                event_id=event.receipt.event_id,
            ),
        )
        yield (
            topics.audit,
            key.encode(),
            Audit(at=_at(in_force), by="exabgp", action="in-force", key=key),
        )
        for state in ("proposed", "wanted"):
            yield (
                topics.mitigation,
                key.encode(),
                Mitigation(
                    key=key,
                    kind="blackhole",
                    state=state,
                    hostgroup=CARPET,
                    customer="acme" if state == "wanted" else None,
                    changed_at=_at(wanted),
                ),
            )
    yield (
        topics.audit,
        OTHER_KEY.encode(),
        Audit(at=_at(41 * 60), by="exabgp", action="withdrawn", key=OTHER_KEY),
    )
    yield (
        topics.mitigation,
        OTHER_KEY.encode(),
        Mitigation(
            key=OTHER_KEY, kind="blackhole", state="ended", changed_at=_at(41 * 60)
        ),
    )


def _ban(ip: str, second: float, pps: int, hostgroup: str = CARPET) -> HostEvent:
    return _host("ban", ip, second, pps, hostgroup)


def _host(
    action: str, ip: str, second: float, pps: int, hostgroup: str = CARPET
) -> HostEvent:
    samples = {"203.0.113.1": (443, 50), "203.0.113.3": (53, 3)}
    port, packets = samples.get(ip, (None, 0))
    has_samples = action == "ban" and port is not None and second < 20 * 60
    return HostEvent(
        receipt=_receipt(f"{action} {ip} {second}", second),
        action=action,
        ip=ip,
        attack_details=AttackDetails(host_group=hostgroup, total_incoming_pps=pps),
        packet_dump_detailed=tuple(
            PacketSample(
                ip_version="ipv4",
                source_ip="192.0.2.1",
                destination_ip=ip,
                destination_port=port,
                protocol="udp",
                packets=packets,
                sample_ratio=500,
            )
            for _ in range(2)
            if has_samples
        ),
    )


def _receipt(name: str, second: float) -> Receipt:
    return Receipt(
        event_id=str(uuid5(NAMESPACE_URL, name)),
        received_at=_at(second),
        sequence=int(second * 100),
        sensor="fra1",
    )


def _at(second: float) -> datetime:
    return START + timedelta(seconds=second)
