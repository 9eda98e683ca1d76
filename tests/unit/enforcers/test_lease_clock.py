"""Leases on clocks that differ: no wall clock of this machine moves an end."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.enforcer_harness import DAY, ONE, TWO, EnforcerHarness

from consumers.enforcers import snapshot
from consumers.mitigation import clock


@pytest.mark.parametrize("ahead", [3 * DAY, -3 * DAY])
def test_wall_clock_days_apart_moves_no_end(
    tmp_path: Path, advance: Callable[[float], None], ahead: float
) -> None:
    harness = EnforcerHarness(tmp_path / "snapshot.json", clock_ahead=ahead)
    harness.put(ONE, lease=60, age=50)
    harness.put(TWO, lease=60, age=70)
    harness.end_topic()
    assert harness.run() == [ONE]
    advance(9)
    assert harness.run() == [ONE]
    advance(2)
    assert harness.run() == []


@pytest.mark.parametrize("ahead", [3 * DAY, -3 * DAY])
def test_old_records_have_no_effect_while_broker_time_is_unknown(
    tmp_path: Path, advance: Callable[[float], None], ahead: float
) -> None:
    before = EnforcerHarness(tmp_path / "snapshot.json", clock_ahead=ahead)
    before.start(ONE, lease=60)
    advance(50)
    harness = EnforcerHarness(
        before.path, before.backend, clock_ahead=ahead, clock_known=False
    )
    harness.put(ONE, lease=60, age=5)  # renewed meanwhile
    harness.put(TWO, lease=60, age=58)
    harness.end_topic()
    assert harness.run() == [ONE]  # by the snapshot
    harness.learn_time()
    assert harness.run() == [ONE, TWO]
    advance(3)
    assert harness.run() == [ONE]
    advance(50)
    assert harness.run() == [ONE]
    advance(3)
    assert harness.run() == []


def test_old_record_never_gets_whole_lease(
    tmp_path: Path, advance: Callable[[float], None]
) -> None:
    harness = EnforcerHarness(tmp_path / "snapshot.json", clock_known=False)
    harness.put(ONE, lease=60, age=3600)
    harness.end_topic()
    assert harness.run(2) == []
    harness.put(TWO, lease=60)  # a live record: the broker's time is known now
    assert harness.run() == [TWO]
    advance(61)
    assert harness.run() == []


def test_future_stamp_does_not_extend_lease(
    harness: EnforcerHarness, advance: Callable[[float], None]
) -> None:
    harness.start(ONE, lease=60, age=-3 * DAY)
    advance(61)
    assert harness.run() == []


def test_corrected_clock_restores_measure(harness: EnforcerHarness) -> None:
    harness.start(ONE, lease=60)
    now = clock.now()
    wrong = harness.broker_time() + 3 * DAY  # another broker, with a wrong clock
    harness.clock.learn(now, now, wrong)
    assert harness.run() == []
    harness.learn_time()
    assert harness.run() == [ONE]


def test_snapshot_is_not_written_for_each_acknowledgement(
    harness: EnforcerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.start(ONE)
    monkeypatch.setattr(snapshot, "save", lambda *_: pytest.fail("written again"))
    for _ in range(3):
        harness.learn_time()
        harness.run()
