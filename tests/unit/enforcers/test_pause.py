"""The pause: an operator withdraws everything, and only the mitigator resumes."""

from collections.abc import Callable, Sequence

import pytest
from support.enforcer_harness import ONE, TWO, UNWANTED, EnforcerHarness

from consumers.enforcers import reconciler
from consumers.enforcers.backend import DesiredMeasure, MemoryBackend
from fnm_bus.event import Mitigation


def test_pause_command_withdraws_everything_without_mitigator(
    harness: EnforcerHarness,
) -> None:
    harness.start(ONE)
    harness.backend.measures[UNWANTED.key] = UNWANTED  # the mitigator does not want it
    harness.put_command("pause", 5)
    assert harness.run() == []
    assert harness.audit.codes.count("pause") == 1
    harness.put(ONE)  # a renewal by a mitigator that has not read the command
    harness.put(TWO)
    assert harness.run(3) == []
    assert harness.count("paused") == 1


def test_pause_command_counts_before_topic_end(harness: EnforcerHarness) -> None:
    harness.start(ONE)
    again = harness.restart()
    again.backend.measures[UNWANTED.key] = UNWANTED
    again.put_command("pause", 5)
    assert again.run() == []


def test_only_answer_to_later_command_resumes(harness: EnforcerHarness) -> None:
    harness.end_topic()
    harness.put(ONE)
    harness.put_command("pause", 5)
    harness.run()
    harness.put_command("resume", 6)  # only the mitigator answers a resume
    assert harness.run() == []
    harness.put_resume(4)  # answers a resume from before the pause
    assert harness.run() == []
    harness.put_pause(5)
    harness.run()
    harness.put_resume(6)
    assert harness.run() == [ONE]


def test_leases_expire_during_pause(
    harness: EnforcerHarness, advance: Callable[[float], None]
) -> None:
    harness.end_topic()
    harness.put(ONE, lease=60)
    harness.put(TWO, lease=600)
    harness.run()
    harness.put_pause(5)
    assert harness.run() == []
    advance(61)
    harness.put_resume(6)
    assert harness.run() == [TWO]


def test_answered_command_has_no_effect(harness: EnforcerHarness) -> None:
    harness.end_topic()
    harness.put(ONE)
    harness.put_resume(6)
    harness.run()
    harness.put_command("pause", 5, age=1.0)  # its thread was slower
    assert harness.run() == [ONE]


def test_pause_counts_in_recreated_command_topic(harness: EnforcerHarness) -> None:
    harness.end_topic()
    harness.put(ONE)
    harness.put_resume(600)
    harness.run()
    harness.put_command("pause", 0)
    assert harness.run() == []
    harness.put_resume(1)
    assert harness.run() == [ONE]


def test_restart_does_not_resume(harness: EnforcerHarness) -> None:
    harness.end_topic()
    harness.put(ONE)
    harness.put_command("pause", 5)
    harness.run()
    again = harness.restart()
    again.put(ONE)
    again.end_topic()
    assert again.run(2) == []
    again.put_resume(6)
    assert again.run() == [ONE]


def test_old_pause_record_has_no_effect_before_topic_end(
    harness: EnforcerHarness,
) -> None:
    harness.start(ONE)
    again = harness.restart()
    again.put_pause(5)
    assert again.run() == [ONE]
    again.put_resume(6)
    again.put(ONE)
    again.end_topic()
    assert again.run() == [ONE]


def test_undecodable_command_is_counted_and_ignored(harness: EnforcerHarness) -> None:
    harness.end_topic()
    harness.put(ONE)
    harness.put_command(None, 5)
    assert harness.run() == [ONE]
    assert harness.count("unreadable_commands") == 1


@pytest.mark.parametrize("event", [None, Mitigation(key="pause", kind="blackhole")])
def test_undecodable_pause_record_pauses(
    harness: EnforcerHarness, event: Mitigation | None
) -> None:
    harness.start(ONE)
    harness.put_record("pause", b"x", event)
    assert harness.run() == []
    assert harness.count("unreadable_records") == 1
    harness.put_resume(6)
    assert harness.run() == [ONE]


@pytest.mark.parametrize("later", ["wanted", "ended"])
def test_later_pause_record_of_two_partitions_counts(
    harness: EnforcerHarness, later: str
) -> None:
    earlier = "ended" if later == "wanted" else "wanted"
    harness.put(ONE)
    harness.put("pause", later, lease=0, age=5, prefix=None)
    harness.partition = 1
    harness.put("pause", earlier, lease=0, age=50, prefix=None)
    harness.end_topic()
    assert harness.run() == ([] if later == "wanted" else [ONE])


def test_pause_lasts_until_grown_topic_is_read(harness: EnforcerHarness) -> None:
    harness.put(ONE)
    harness.put_pause(3)
    harness.end_topic()
    harness.run()
    harness.add_partitions()
    harness.put_record("pause", None, None)
    assert harness.run() == []
    harness.partition = 7
    harness.put_pause(3)
    harness.end_topic()
    assert harness.run() == []
    harness.put_resume(4)
    assert harness.run() == [ONE]


def test_pause_ends_in_recreated_command_topic(harness: EnforcerHarness) -> None:
    harness.end_topic()
    harness.put(ONE)
    harness.put_command("pause", 600, age=30)
    harness.run()
    again = harness.restart()
    again.put(ONE)
    again.end_topic()
    assert again.run() == []
    again.put_command("resume", 1)
    assert again.run() == []  # the mitigator has not answered
    again.put_resume(1)
    assert again.run() == [ONE]


def test_answer_read_before_its_command_ends_pause(harness: EnforcerHarness) -> None:
    harness.end_topic()
    harness.put(ONE)
    harness.put_command("pause", 600, age=30)
    harness.run()
    harness.put_resume(1)
    assert harness.run() == []
    harness.put_command("resume", 1, age=1)
    assert harness.run(2) == [ONE]


def test_pause_stops_long_announcement(
    harness: EnforcerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "_BATCH", 1)

    class Slow(MemoryBackend):
        def announce(self, wanted: Sequence[DesiredMeasure]) -> None:
            super().announce(wanted)
            if len(self.measures) == 2:
                harness.put_command("pause", 5)

    backend = Slow()
    harness.replace_backend(backend)
    harness.end_topic()
    for number in range(10):
        harness.put(f"blackhole|203.0.113.{number}/32")
    harness.run()
    assert sum(what == "announce" for what, _ in backend.calls) == 2
    assert harness.run() == []
