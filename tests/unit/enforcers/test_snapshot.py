"""The snapshot: damaged files, other boots, and restarts without Kafka."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.enforcer_harness import DAY, ONE, TWO, EnforcerHarness

from consumers.enforcers import snapshot
from consumers.enforcers.backend import MemoryBackend
from consumers.enforcers.snapshot import Lease, Snapshot
from consumers.mitigation import clock
from consumers.mitigation.measure import Measure


def test_restart_without_kafka_continues_from_snapshot(
    harness: EnforcerHarness, advance: Callable[[float], None]
) -> None:
    harness.start(ONE, lease=60)
    again = EnforcerHarness(harness.path)  # the system has lost everything
    assert again.run() == [ONE]
    advance(61)
    assert again.run() == []


def test_topic_created_again_withdraws_nothing(
    harness: EnforcerHarness, advance: Callable[[float], None]
) -> None:
    harness.start(ONE, lease=60)
    again = harness.restart()
    again.end_topic()  # the topic is empty
    assert again.run(3) == [ONE]
    assert ("held", None) in again.audit.published
    advance(61)
    assert again.run() == []


def test_record_ends_lease_of_snapshot(harness: EnforcerHarness) -> None:
    harness.start(ONE)
    again = harness.restart()
    again.end_topic()
    again.run()
    again.put(ONE, "ended")
    assert again.run() == []


def test_lease_ended_and_wanted_again_is_kept(harness: EnforcerHarness) -> None:
    harness.start(ONE)
    again = harness.restart(clock_known=False)
    again.put(ONE, "ended", age=2)
    again.put(ONE, age=1)
    again.end_topic()
    assert again.run() == [ONE]


@pytest.mark.parametrize("own_first", [True, False])
def test_end_for_all_enforcers_keeps_measure_wanted_here(
    harness: EnforcerHarness,
    own_first: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    harness.start(ONE)
    again = harness.restart(clock_known=False)
    records: list[dict[str, Any]] = [
        {"key": f"{ONE}|memory", "place": "memory", "prefix": "203.0.113.1/32"},
        {"key": ONE, "state": "ended"},
    ]
    for record in records if own_first else reversed(records):
        again.put(**record)
    again.end_topic()
    assert again.run(2) == [ONE]


def test_end_read_late_loses_no_record(
    harness: EnforcerHarness, advance: Callable[[float], None]
) -> None:
    """A record for all enforcers expired before the end of the topic was read."""
    harness.start(ONE, lease=600)
    again = harness.restart()
    again.put(ONE, lease=5)
    again.put(f"{ONE}|memory", "ended", prefix="203.0.113.1/32", place="memory")
    again.run()
    advance(10)
    again.run()
    assert again.start(TWO) == [TWO]


def test_mitigation_ended_during_downtime_is_withdrawn(
    harness: EnforcerHarness,
) -> None:
    harness.start(ONE)
    again = harness.restart()
    again.put(ONE, "ended")
    again.end_topic()
    assert again.run() == []


def test_snapshot_of_another_boot_keeps_pause_without_leases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, measure = tmp_path / "file.json", Measure(kind="blackhole", prefix="::1/128")
    snapshot.save(path, Snapshot({"key": Lease(measure, clock.now() + 60)}, 7))
    monkeypatch.setattr(snapshot.python_hook, "boot_id", lambda: "another")
    assert snapshot.load(path) == Snapshot({}, 7)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"version": 1}', "no json", '{"version": 2}']
)
def test_file_that_is_not_a_snapshot_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(snapshot.SnapshotError, match=r"file\.json"):
        snapshot.load(path)


def test_pipe_large_file_and_deep_json_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, large, deep = (tmp_path / name for name in ("pipe", "large", "deep"))
    os.mkfifo(pipe)  # without a writer, opening it blocks forever
    large.write_bytes(b" " * 101)
    monkeypatch.setattr(snapshot, "_MAX_BYTES", 100)
    for path in (pipe, large, tmp_path):
        with pytest.raises(snapshot.SnapshotError, match=path.name):
            snapshot.load(path)
    monkeypatch.setattr(snapshot, "_MAX_BYTES", 1_000_000)
    deep.write_bytes(b"[" * 200_000)
    with pytest.raises(snapshot.SnapshotError, match="deep"):
        snapshot.load(deep)


def test_lease_with_another_key_is_refused(tmp_path: Path) -> None:
    path, measure = tmp_path / "file.json", Measure(kind="blackhole", prefix="::1/128")
    snapshot.save(path, Snapshot({"another": Lease(measure, clock.now() + 60)}))
    with pytest.raises(snapshot.SnapshotError, match="another"):
        snapshot.load(path)


def test_lease_of_snapshot_is_limited_to_a_day(tmp_path: Path) -> None:
    path, measure = tmp_path / "file.json", Measure(kind="blackhole", prefix="::1/128")
    snapshot.save(path, Snapshot({measure.key: Lease(measure, 1e300)}))
    read = snapshot.load(path)
    assert read is not None
    assert read.leases[measure.key].ends <= clock.now() + DAY


def test_enforcer_starts_with_unreadable_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"version": 99}))
    harness = EnforcerHarness(path)
    assert harness.start(ONE) == [ONE]


def test_snapshot_is_checked_against_current_own_networks(
    harness: EnforcerHarness,
) -> None:
    other = Measure(kind="blackhole", prefix="198.51.100.1/32")
    kept = Measure(kind="blackhole", prefix="203.0.113.1/32")
    leases = {
        measure.key: Lease(measure, clock.now() + 60) for measure in (other, kept)
    }
    snapshot.save(harness.path, Snapshot(leases))
    backend = MemoryBackend()
    backend.measures = {other.key: other}
    again = EnforcerHarness(harness.path, backend)
    assert again.run() == [kept.key]
