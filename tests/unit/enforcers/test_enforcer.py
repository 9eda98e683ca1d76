"""The enforcer's loop: leases, health, metrics, and bounded memory."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.enforcer_harness import ONE, TWO, EnforcerHarness

from consumers.enforcers import enforcer as enforcer_module
from consumers.enforcers import wanted_state
from consumers.enforcers.backend import ActiveMeasure
from consumers.mitigation.measure import Measure


def test_wanted_measure_is_announced_once_topic_is_read(
    harness: EnforcerHarness,
) -> None:
    harness.put(ONE)
    assert harness.run() == []
    harness.end_topic()
    assert harness.run() == [ONE]
    assert ("in-force", ONE) in harness.audit.published


def test_record_ended_by_later_record_is_never_announced(
    harness: EnforcerHarness,
) -> None:
    harness.put(ONE)
    harness.run()
    harness.put(ONE, "ended")
    harness.end_topic()
    harness.run()
    assert harness.backend.calls == []


@pytest.mark.parametrize("state", ["ended", "suppressed", "proposed"])
def test_measure_no_longer_wanted_is_withdrawn(
    harness: EnforcerHarness, state: str
) -> None:
    harness.start(ONE)
    harness.put(ONE, state)
    assert harness.run() == []
    assert ("withdrawn", ONE) in harness.audit.published


def test_tombstone_withdraws(harness: EnforcerHarness) -> None:
    harness.start(ONE)
    harness.put_record(ONE, None, None)
    assert harness.run() == []


def test_lease_ends_without_records_from_kafka(
    harness: EnforcerHarness, advance: Callable[[float], None]
) -> None:
    harness.end_topic()
    harness.put(ONE, lease=60)
    harness.put(TWO, lease=600)
    harness.run()
    advance(61)
    assert harness.run() == [TWO]


def test_renewal_extends_lease(
    harness: EnforcerHarness, advance: Callable[[float], None]
) -> None:
    harness.start(ONE, lease=60)
    advance(50)
    harness.put(ONE, lease=60)
    harness.run()
    advance(50)
    assert harness.run() == [ONE]


def test_large_clock_skew_is_reported_once(tmp_path: Path) -> None:
    harness = EnforcerHarness(tmp_path / "snapshot.json", clock_ahead=-45.0)
    harness.run(3)
    assert harness.results().count("failed") == 1


def test_unexpected_error_makes_enforcer_unhealthy_until_next_success(
    harness: EnforcerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enforcer_module, "_RETRY", 0.0)
    good = harness.backend.active

    def broken() -> Mapping[Measure, ActiveMeasure]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(harness.backend, "active", broken)
    harness.end_topic()
    harness.put(ONE)
    harness.enforcer._run_once_safely()
    assert not harness.enforcer.health()[0]
    monkeypatch.setattr(harness.backend, "active", good)
    harness.enforcer._run_once_safely()
    assert harness.enforcer.health()[0]
    assert harness.in_force() == [ONE]


def test_unhealthy_reader_makes_enforcer_unhealthy(harness: EnforcerHarness) -> None:
    assert harness.enforcer.health()[0]
    harness.commands.is_healthy = False
    assert not harness.enforcer.health()[0]
    assert harness.enforcer.health()[1]["command_reader"] is False


def test_lost_audit_records_are_counted(harness: EnforcerHarness) -> None:
    harness.audit.lost = 3
    harness.run()
    harness.audit.lost = 5
    harness.run(2)
    assert harness.count("lost_audit_records") == 5


def test_restarts_of_both_readers_are_counted(harness: EnforcerHarness) -> None:
    harness.topic.restarts = 1
    harness.run()
    harness.commands.restarts = 2
    harness.run(2)
    assert harness.count("reader_restarts") == 3


def test_memory_is_bounded(
    harness: EnforcerHarness,
    advance: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wanted_state, "_MAX_REFUSED", 500)
    monkeypatch.setattr("consumers.enforcers.lease_table.MAX_RECORDS", 1500)
    sizes = []
    harness.end_topic()
    for wave in range(20):  # the bounds are reached within 8
        for number in range(1000):
            host = f"2001:db8:1::{wave:x}:{number:x}/128"
            harness.put(f"blackhole|{host}", lease=10)
            if number < 200:
                harness.put(f"blackhole|2001:db8:2::{wave:x}:{number:x}/128")
        harness.run()
        state, reconciler_ = harness.enforcer.state, harness.enforcer._reconciler
        held: list[Any] = [
            *(reconciler_.in_force, reconciler_._owned, reconciler_._unsupported),
            *(reconciler_.saved.leases, state._refused, state._leases._records),
            *(state._leases._restored, state._leases._restored_ended),
        ]
        sizes.append([len(collection) for collection in held])
        harness.audit.published.clear()
        harness.audit.codes.clear()
        harness.backend.calls.clear()
        advance(11)
    assert max(map(max, sizes)) <= 1500
    assert sizes[-1] == sizes[2]
