"""Report carpet bombing: bans of many hosts of one hostgroup or network in a minute.

    python carpet_bombing.py HOOK [OPTIONS]

The program reads bans from the host topic. It reports each hit to HOOK in the form of
FastNetMon: a hostgroup's ban, an attack_status each minute while the hit lasts, and an
unban. Install HOOK with a configuration whose `sensor` and `[spool]` are its own, and
start a relay with that configuration. The policy and the guardrails then decide about a
hit as about any hostgroup's attack. examples/sql asks the same question in SQL.

The program keeps a minute of bans in memory. It leaves out a ban that arrives more than
a minute after a newer one of the same place. After a restart it may report a hit again.
If no ban arrives for a long time, the unban is late, and the lease ends the mitigation.
"""

import argparse
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any, Final
from uuid import uuid4

from consumers.mitigation.attack_size import bits_of, pps_of
from consumers.simple import consume
from fnm_bus.consume.handler import RetryLater
from fnm_bus.event import AnyRecord, HostEvent

WINDOW: Final = timedelta(minutes=1)
QUIET: Final = timedelta(minutes=5)
"""Time without a hit after which the attack has ended."""
MAX_AGE: Final = timedelta(minutes=5)
"""Age from which a ban is history: a new consumer group reads old bans first."""
PREFIX_LENGTHS: Final = {4: 24, 6: 48}
ALL_HOSTS: Final = "global"
"""FastNetMon's hostgroup of every host without another one."""

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ban:
    """A host's latest ban: time, and incoming traffic per second."""

    received_at: datetime
    packets: int
    bits: int


@dataclass(frozen=True, slots=True)
class Attack:
    """A reported attack: its identifier, its latest hit and its latest report."""

    uuid: str
    hit_at: datetime
    reported_at: datetime


class CarpetDetector:
    """Finds places where many hosts are banned within WINDOW.

    Args:
        threshold: number of hosts that makes a hit.
    """

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
        self._bans: dict[str, dict[str, Ban]] = {}
        self._attacks: dict[str, Attack] = {}

    def observe(self, event: AnyRecord, now: datetime) -> Iterator[Document]:
        """Yield the documents to report after an event.

        A document counts as reported when the caller asks for the next one. If the
        delivery raises, the same event yields the document again.
        """
        if (
            isinstance(event, HostEvent)
            and event.action == "ban"
            and now - event.receipt.received_at < MAX_AGE
        ):
            # A sensor's clock that is ahead must not make a ban that never expires.
            received_at = min(event.receipt.received_at, now)
            for place in places_of(event):
                yield from self._add(place, event, received_at)
        yield from self._end_quiet_attacks(now)

    def _add(
        self, place: str, event: HostEvent, received_at: datetime
    ) -> Iterator[Document]:
        bans = self._bans.setdefault(place, {})
        ban = Ban(
            received_at, pps_of(event, "incoming") or 0, bits_of(event, "incoming") or 0
        )
        bans[event.ip] = max(ban, bans.get(event.ip, ban), key=_time)
        newest = max(map(_time, bans.values()))
        for ip, ban in list(bans.items()):
            if newest - ban.received_at >= WINDOW:
                del bans[ip]
        if len(bans) < self._threshold:
            return
        attack = self._attacks.get(place)
        if attack is None:
            attack = Attack(str(uuid4()), newest, newest)
            yield _document("ban", place, attack.uuid, bans)
        elif newest - attack.reported_at >= WINDOW:
            attack = Attack(attack.uuid, newest, newest)
            yield _document("attack_status", place, attack.uuid, bans)
        self._attacks[place] = Attack(attack.uuid, newest, attack.reported_at)

    def _end_quiet_attacks(self, now: datetime) -> Iterator[Document]:
        for place, attack in list(self._attacks.items()):
            if now - attack.hit_at >= QUIET:
                yield _document("unban", place, attack.uuid, self._bans[place])
                del self._attacks[place]
        for place, bans in list(self._bans.items()):
            is_old = all(now - ban.received_at >= MAX_AGE for ban in bans.values())
            if is_old and place not in self._attacks:
                del self._bans[place]


def _time(ban: Ban) -> datetime:
    return ban.received_at


def places_of(event: HostEvent) -> Iterator[str]:
    """Yield the hostgroup of a banned host, and its network."""
    details = event.attack_details
    if details is not None and details.host_group not in (None, "", ALL_HOSTS):
        yield str(details.host_group)
    yield _network(event.ip)


def _network(ip: str) -> str:
    address = ip_address(ip)  # `consume` checks that an event has canonical text
    length = PREFIX_LENGTHS[address.version]
    return str(ip_network(f"{address}/{length}", strict=False))


def _document(action: str, place: str, uuid: str, bans: dict[str, Ban]) -> Document:
    """Return a hit as FastNetMon reports the attack on a hostgroup."""
    return {
        "action": action,
        "alert_scope": "hostgroup",
        "hostgroup_name": place,
        "hostgroup_networks": sorted({_network(ip) for ip in bans}),
        "attack_details": {
            "attack_uuid": uuid,
            "attack_severity": "high",
            "attack_detection_source": "automatic",
            "attack_detection_threshold": "banned hosts per minute",
            "attack_detection_threshold_direction": "incoming",
            "total_incoming_pps": sum(ban.packets for ban in bans.values()),
            "total_incoming_traffic_bits": sum(ban.bits for ban in bans.values()),
        },
    }


def report(hook: str, document: Document) -> None:
    """Store a document in the hook's spool.

    Raises:
        RetryLater: the hook did not store it.
    """
    try:
        done = subprocess.run(
            [hook],
            input=json.dumps(document).encode(),
            capture_output=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise RetryLater(f"{hook}: {exc}") from exc
    if done.returncode != 0:
        raise RetryLater(f"{hook}: exit status {done.returncode}: {done.stderr!r:.200}")


def main() -> None:
    """Read bans, and report hits until SIGTERM."""
    options = argparse.ArgumentParser(description="Report carpet bombing to a hook.")
    options.add_argument("hook", help="hook with a sensor and a spool of its own")
    options.add_argument("--threshold", type=int, default=20, help="hosts in a minute")
    options.add_argument("--group", default="carpet-bombing", help="consumer group")
    chosen = options.parse_args()
    detector = CarpetDetector(chosen.threshold)

    def handle(event: AnyRecord) -> None:
        for document in detector.observe(event, datetime.now(UTC)):
            report(chosen.hook, document)

    consume(chosen.group, handle, topics=["host"])


if __name__ == "__main__":
    main()
