"""The offset that may be committed."""

from fnm_bus.consume.partition import OffsetTracker


def test_an_offset_waits_for_all_before_it() -> None:
    tracker = OffsetTracker()
    for offset in (5, 6, 8):
        tracker.start(offset)
    tracker.finish(6)
    assert tracker.committable is None
    tracker.finish(5)
    assert tracker.committable == 7
    assert tracker.pending == 1
    tracker.finish(8)
    assert tracker.committable == 9


def test_an_offset_is_committed_until_kafka_has_it() -> None:
    tracker = OffsetTracker()
    tracker.start(5)
    tracker.finish(5)
    tracker.mark_committed(4)
    assert tracker.committable == 6
    tracker.mark_committed(6)
    assert tracker.committable is None


def test_a_second_finish_has_no_effect() -> None:
    tracker = OffsetTracker()
    tracker.start(5)
    tracker.finish(5)
    tracker.finish(5)
    tracker.start(6)
    assert (tracker.committable, tracker.pending) == (6, 1)
