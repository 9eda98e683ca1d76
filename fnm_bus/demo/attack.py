"""A simulated attack: the calls that FastNetMon Advanced would make.

The same plan always yields the same calls. All addresses are from the ranges for
documentation (RFC 5737, RFC 3849), and no traffic is sent. The hostgroups are named as
simulated, so that no rule of a real policy matches them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from random import Random
from typing import Any, Final, NamedTuple
from uuid import UUID

GROUP: Final = "simulated-hostgroup"
PARENT: Final = "simulated-parent-hostgroup"
_NETWORKS: Final = ("192.0.2.0/24", "198.51.100.0/24", "2001:db8::/32")
_SOURCE_NETWORK: Final = int(IPv4Address("203.0.113.0"))
_IPV6_NETWORK: Final = int(IPv6Address("2001:db8::"))
_IPV6_EVERY: Final = 6
"""Every Nth host has an IPv6 address."""
_RULE_EVERY: Final = 4
"""Every Nth host, if it has an IPv4 address, gets a Flow Spec rule."""
_SAMPLES: Final = 20
_PROTOCOLS: Final = ("ip_fragmented", "tcp", "syn_tcp", "udp", "icmp")
_KINDS: Final = (
    # protocol, highest counter, bytes of a packet, source port, threshold
    ("udp", "udp", 1400, 123, "udp bytes per second"),
    ("udp", "udp", 512, 53, "bytes per second"),
    ("tcp", "syn_tcp", 60, 0, "tcp syn packets per second"),
    ("icmp", "icmp", 84, 0, "packets per second"),
    ("udp", "ip_fragmented", 1480, 389, "bytes per second"),
)
_IPV4_HOSTS: Final = 508


class NotifyCall(NamedTuple):
    """One call by FastNetMon: the arguments, and the document on stdin."""

    arguments: tuple[str, ...]
    document: bytes


@dataclass(frozen=True, slots=True)
class AttackPlan:
    """The size of a simulated attack.

    Attributes:
        hosts: number of attacked hosts; at least 1.
        updates: rounds of status updates during the attack.
        seed: seed of all random values.
    """

    hosts: int = 10
    updates: int = 2
    seed: int = 1


class _Victim(NamedTuple):
    ip: str
    details: dict[str, Any]
    kind: tuple[str, str, int, int, str]
    rule: dict[str, Any] | None


def attack_calls(plan: AttackPlan) -> Iterator[NotifyCall]:
    """Yield the calls of one attack in their order.

    The order: bans of all hosts, some with a Flow Spec rule, and of the hostgroup
    halfway; the rounds of status updates; unbans of everything.
    """
    random = Random(plan.seed)  # noqa: S311 - simulated numbers, no secrets
    victims = [_make_victim(random, number) for number in range(plan.hosts)]
    group = _group_document(random, victims)
    for number, victim in enumerate(victims):
        yield _make_call("ban", _ban_document(random, victim), victim.ip)
        if victim.rule is not None:
            yield _make_call("partial_block", _partial_document(victim))
        if number == (plan.hosts - 1) // 2:
            yield _make_call("ban", group)
    for _ in range(plan.updates):
        for victim in victims:
            yield _make_call("attack_status", _host_document(victim))
    for victim in victims:
        if victim.rule is not None:
            yield _make_call("partial_unblock", _partial_document(victim))
        yield _make_call("unban", _host_document(victim), victim.ip)
    yield _make_call("unban", group)


def _make_call(action: str, document: dict[str, Any], ip: str = "") -> NotifyCall:
    # FastNetMon's form since 2024: compact, sorted keys, a line feed at the end.
    text = json.dumps(
        {**document, "action": action}, sort_keys=True, separators=(",", ":")
    )
    return NotifyCall((action, ip) if ip else (), f"{text}\n".encode())


def _make_victim(random: Random, number: int) -> _Victim:
    kind = random.choice(_KINDS)
    is_ipv6 = number % _IPV6_EVERY == _IPV6_EVERY - 1 or number >= _IPV4_HOSTS
    ip = _host_address(number, is_ipv6=is_ipv6)
    details = {
        **_details(random, kind),
        "host_group": GROUP,
        "parent_host_group": PARENT,
        "host_network": _NETWORKS[2] if is_ipv6 else f"{ip.rpartition('.')[0]}.0/24",
        "protocol_version": "IPv6" if is_ipv6 else "IPv4",
    }
    has_rule = not is_ipv6 and number % _RULE_EVERY == _RULE_EVERY - 1
    return _Victim(
        ip, details, kind, _make_rule(random, ip, kind) if has_rule else None
    )


def _host_address(number: int, *, is_ipv6: bool) -> str:
    if is_ipv6:
        return str(IPv6Address(_IPV6_NETWORK + (number << 64) + 1))
    net, host = divmod(number, 254)
    return f"{('192.0.2', '198.51.100')[net]}.{host + 1}"


def _details(random: Random, kind: tuple[str, str, int, int, str]) -> dict[str, Any]:
    protocol, counter, size, _port, threshold = kind
    rate = random.randint(200_000, 4_000_000)
    outgoing_rate = random.randint(100, 3_000)
    details: dict[str, Any] = {
        "attack_uuid": _make_uuid(random),
        "attack_severity": "middle",
        "attack_detection_source": "automatic",
        "attack_detection_threshold": threshold,
        "attack_detection_threshold_direction": "incoming",
        **_rates("total_{}", rate, size, outgoing_rate),
        "total_incoming_flows": 0,
        "total_outgoing_flows": 0,
    }
    for name in _PROTOCOLS:
        share = rate if name in {protocol, counter} else random.randint(0, 50)
        details |= _rates(f"{{}}_{name}", share, size, share // 1000)
    return details | _rates("{}_dropped", 0, size, 0)


def _rates(name: str, incoming: int, size: int, outgoing: int) -> dict[str, int]:
    rates = {}
    for direction, rate in (("incoming", incoming), ("outgoing", outgoing)):
        base = name.format(direction)
        rates[f"{base}_pps"] = rate
        rates[f"{base}_traffic"] = rate * size
        rates[f"{base}_traffic_bits"] = rate * size * 8
    return rates


def _host_document(victim: _Victim) -> dict[str, Any]:
    return {
        "alert_scope": "host",
        "ip": victim.ip,
        "attack_details": victim.details,
    }


def _ban_document(random: Random, victim: _Victim) -> dict[str, Any]:
    samples = [_make_sample(random, victim) for _ in range(_SAMPLES)]
    return {
        **_host_document(victim),
        "packet_dump": [_sample_line(sample) for sample in samples],
        "packet_dump_detailed": samples,
    }


def _partial_document(victim: _Victim) -> dict[str, Any]:
    return {**_host_document(victim), "flow_spec_rules": [victim.rule]}


def _make_sample(random: Random, victim: _Victim) -> dict[str, Any]:
    protocol, counter, size, port, _threshold = victim.kind
    is_ipv6 = ":" in victim.ip
    source = (
        str(IPv6Address(_IPV6_NETWORK + (0xFFFF << 80) + random.getrandbits(32)))
        if is_ipv6
        else str(IPv4Address(_SOURCE_NETWORK + random.randint(1, 254)))
    )
    sample = {
        "agent_address": "192.0.2.254",
        "destination_ip": victim.ip,
        "fragmentation": counter == "ip_fragmented",
        "ip_length": size,
        "ip_version": "ipv6" if is_ipv6 else "ipv4",
        "length": size + 14,
        "packets": 1,
        "protocol": protocol,
        "sample_ratio": 1024,
        "source_ip": source,
        "ttl": random.randint(40, 250),
    }
    if protocol != "icmp":
        sample["source_port"] = port or random.randint(1024, 65_535)
        sample["destination_port"] = random.choice((80, 443, 25565))
    if protocol == "tcp":
        sample["tcp_flags"] = "syn"
    return sample


def _sample_line(sample: dict[str, Any]) -> str:
    flags = "flags: syn " if sample["protocol"] == "tcp" else ""
    return (
        f"2026-01-01 00:00:00.000000 {sample['source_ip']}:"
        f"{sample.get('source_port', 0)} > {sample['destination_ip']}:"
        f"{sample.get('destination_port', 0)} protocol: {sample['protocol']} {flags}"
        f"frag: {int(sample['fragmentation'])}  packets: 1 size: {sample['length']}"
        f" bytes ip size: {sample['ip_length']} bytes ttl: {sample['ttl']}"
        f" sample ratio: {sample['sample_ratio']} "
    )


def _make_rule(
    random: Random, ip: str, kind: tuple[str, str, int, int, str]
) -> dict[str, Any]:
    protocol, counter, _size, port, _threshold = kind
    rule: dict[str, Any] = {
        "uuid": _make_uuid(random),
        "destination_prefix": f"{ip}/32",
        "protocols": [protocol],
        "action_type": "discard",
        "action": {},
    }
    if port:
        rule["source_ports"] = [port]
    if counter == "ip_fragmented":
        rule["fragmentation_flags"] = ["is-fragment"]
    if counter == "syn_tcp":
        rule["tcp_flags"] = ["syn"]
    if random.random() < 1 / 3:
        rule |= {"action_type": "rate-limit", "action": {"rate": 1024}}
    return rule


def _group_document(random: Random, victims: list[_Victim]) -> dict[str, Any]:
    details = _details(random, _KINDS[0])
    for key in details:
        if key.startswith(("incoming_", "outgoing_", "total_")):
            details[key] = sum(victim.details[key] for victim in victims)
    return {
        "alert_scope": "hostgroup",
        "hostgroup_name": GROUP,
        "parent_hostgroup_name": PARENT,
        "hostgroup_networks": list(_NETWORKS),
        "attack_details": {**details, "protocol_version": "IPv4"},
    }


def _make_uuid(random: Random) -> str:
    return str(UUID(int=random.getrandbits(128), version=4))
