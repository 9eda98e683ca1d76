"""Reconciliation: failures of the system, dry runs, and foreign measures."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support.enforcer_harness import ONE, TWO, UNWANTED, EnforcerHarness

from consumers.enforcers.backend import BackendError, DesiredMeasure, MemoryBackend
from consumers.mitigation.measure import Measure


def test_unwanted_measure_is_withdrawn_after_topic_end_only(tmp_path: Path) -> None:
    backend = MemoryBackend()
    backend.measures[UNWANTED.key] = UNWANTED
    harness = EnforcerHarness(tmp_path / "snapshot.json", backend)
    assert harness.run(3) == [UNWANTED.key]
    harness.end_topic()
    assert harness.run() == []


def test_measure_missing_in_system_is_announced_again(harness: EnforcerHarness) -> None:
    harness.start(ONE)
    harness.backend.measures.clear()
    assert harness.run(2) == [ONE]


def test_failing_system_is_reported_once_and_retried(harness: EnforcerHarness) -> None:
    harness.end_topic()
    harness.put(ONE)
    harness.backend.error = BackendError("no answer")
    harness.run(5)
    assert harness.results() == ["failed"]
    harness.backend.error = None
    harness.enforcer._due = 0.0
    assert harness.run() == [ONE]


def test_unwritable_snapshot_prevents_announcements_and_no_withdrawal(
    harness: EnforcerHarness, advance: Callable[[float], None]
) -> None:
    harness.start(ONE, lease=60)
    harness.enforcer._reconciler._path = Path("/proc/nowhere/snapshot.json")
    harness.put(TWO, lease=600)
    assert harness.run() == [ONE]
    assert ("failed", None) in harness.audit.published
    advance(61)
    assert harness.run() == []


def test_dry_run_reports_changes_and_makes_none(tmp_path: Path) -> None:
    harness = EnforcerHarness(tmp_path / "snapshot.json", dry_run=True)
    harness.start(ONE)
    harness.put(ONE, "ended")
    harness.run()
    assert harness.backend.calls == []
    assert harness.results() == ["in-force", "withdrawn"]
    assert not harness.path.exists()


@pytest.mark.parametrize(
    "error", [ValueError("x"), RecursionError(), BackendError("x")]
)
def test_unsupported_measure_stops_no_other(
    harness: EnforcerHarness, error: Exception
) -> None:
    class Picky(MemoryBackend):
        def form(self, measure: Measure) -> str:
            if measure.key == TWO:
                raise error
            return super().form(measure)

    harness.replace_backend(Picky())
    harness.end_topic()
    harness.put(TWO)
    harness.put(ONE)
    assert harness.run(3) == [ONE]
    assert [entry for entry in harness.audit.published if entry[1] == TWO] == [
        ("failed", TWO)
    ]


def test_refused_measure_prevents_no_report_of_others(harness: EnforcerHarness) -> None:
    class Refusing(MemoryBackend):
        def announce(self, wanted: Sequence[DesiredMeasure]) -> None:
            super().announce([item for item in wanted if item.measure.key != TWO])
            if len(wanted) > len(self.calls[-1][1]):
                raise BackendError("refused 1")

    harness.replace_backend(Refusing())
    harness.end_topic()
    harness.put(TWO)
    harness.put(ONE)
    harness.run(3)
    assert ("in-force", ONE) in harness.audit.published
    harness.put(ONE, "ended")
    assert harness.run() == []
    assert ("withdrawn", ONE) in harness.audit.published
    assert harness.audit.published.count(("failed", None)) == 1


def test_failed_withdrawal_prevents_no_announcement(harness: EnforcerHarness) -> None:
    class Stuck(MemoryBackend):
        def withdraw(self, measures: Sequence[Measure]) -> None:
            raise BackendError(f"{len(measures)} stay")

    harness.replace_backend(Stuck())
    harness.backend.measures[UNWANTED.key] = UNWANTED
    harness.start(ONE)
    assert ONE in harness.in_force()
