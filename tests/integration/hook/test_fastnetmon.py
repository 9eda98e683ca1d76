"""The topics have the calls of a real FastNetMon's log, call by call."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from support.detector import Called, Detector
from support.fetch import Unavailable
from support.process import wait_until
from support.relay_processes import RelayProcesses

from fnm_bus.event import HostEvent

HOSTS = 10
"""Of each family."""


@pytest.fixture
def hook(kafka_relays: RelayProcesses) -> Path:
    path = kafka_relays.root / "hook"
    kafka_relays.succeed("hook", "install", str(path), "--native")
    return path


@pytest.fixture
def detector(kafka_relays: RelayProcesses, hook: Path) -> Iterator[Detector]:
    detector = Detector(kafka_relays.root, hook)
    try:
        detector.start()
    except Unavailable as exc:
        pytest.skip(str(exc))  # which fails a run with CI=true
    yield detector
    detector.stop()


def test_calls_of_a_real_fastnetmon_become_events_in_order(
    kafka_relays: RelayProcesses, detector: Detector
) -> None:
    kafka_relays.start()
    detector.flood(["203.0.113.10", "2001:db8::10"], HOSTS, seconds=6)

    def unbanned() -> bool:
        actions = Counter(call.action for call in detector.calls())
        return actions["ban"] == actions["unban"] == 2 * HOSTS

    wait_until(unbanned, 60, "FastNetMon unbans all that it banned")
    called = [
        Called(action, str(ip_address(address))) for action, address in detector.calls()
    ]
    events = kafka_relays.events("host", len(called))
    assert all(isinstance(event, HostEvent) for event in events)
    assert Counter(Called(event.action, event.ip) for event in events) == Counter(
        called
    )
    assert len({event.receipt.event_id for event in events}) == len(called)
    assert (
        Counter(event.action for event in events)["attack_details"] == HOSTS
    )  # IPv4 only
    orders = defaultdict(list)
    for event in sorted(events, key=lambda event: event.receipt.sequence):
        orders[event.ip].append(event.action)
    for address, actions in orders.items():
        assert actions == [call.action for call in called if call.address == address]
    assert kafka_relays.events("deadletter", 0, within=5) == []
