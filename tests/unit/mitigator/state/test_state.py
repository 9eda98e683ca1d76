"""The state's quick answers agree with its entries."""

from datetime import timedelta
from ipaddress import ip_network

import pytest
from support.mitigator_harness import KEY, OWN, START, MitigatorHarness, policy, rule

from consumers.mitigation.reason_key import ReasonKey
from consumers.mitigator.state.call_order import NEVER, LastEvent
from consumers.mitigator.state.counts import Counts
from consumers.mitigator.state.state import State
from fnm_bus.event import FlowSpecRule

NAME = ReasonKey("fnm1", "host", "203.0.113.7", "attack")


def test_new_state_is_empty() -> None:
    state = State(OWN, dry_run=False)
    assert state.last_event(NAME) == NEVER
    assert not state.paused
    assert state.active() == []
    assert state.proposals == 0


def test_last_event_is_of_a_reason_or_ignored() -> None:
    harness = MitigatorHarness()
    harness.state.ignore(NAME, LastEvent(5, "a0", closes=True))
    assert harness.state.last_event(NAME).sequence == 5
    harness.send("ban", sequence=9)
    assert harness.state.last_event(NAME) == LastEvent(9, "a1")
    harness.send("attack_status", sequence=10)
    assert harness.state.last_event(NAME) == LastEvent(10, "a1", is_status=True)
    harness.send("unban", sequence=11)
    assert harness.state.last_event(NAME) == LastEvent(11, "a1", closes=True)


def test_counts_follow_mitigations_in_force() -> None:
    harness = MitigatorHarness(policy(max_active=2))
    for number in range(4):
        harness.send("ban", f"203.0.113.{number}")
    state = harness.state
    assert state.proposals == 2
    assert state.active_counts(harness.now, dry_run=False).active == 2
    assert list(state.waiting) == [f"blackhole|203.0.113.{n}/32" for n in (2, 3)]
    for number in range(4):
        harness.send("unban", f"203.0.113.{number}")
    assert state.proposals == 0
    assert state.active_counts(harness.now, dry_run=False).active == 0
    assert not state.waiting
    assert not state.demands
    assert len(state.ended) == 4
    assert len(state.inactive) == 4


def test_active_mitigations_are_in_order_without_the_pause() -> None:
    harness = MitigatorHarness()
    harness.send("ban", "203.0.113.9")
    harness.wait(1)
    harness.send("ban", "203.0.113.1")
    harness.command("pause")
    keys = [record.key for record in harness.state.active()]
    assert keys == ["blackhole|203.0.113.9/32", "blackhole|203.0.113.1/32"]


def test_text_is_reported_once_in_a_row() -> None:
    state = State(OWN, dry_run=False)
    assert state.remember_audit_text(NAME, "one") is not None
    assert state.remember_audit_text(NAME, "one") is None
    undo = state.remember_audit_text(NAME, "two")
    assert undo is not None
    undo()
    assert state.remember_audit_text(NAME, "one") is None
    assert state.remember_audit_text(NAME, "two") is not None


def test_due_keys_are_taken_once_and_in_portions() -> None:
    harness = MitigatorHarness(policy(rule(lease=60)), fastnetmon_ban_time=60)
    for number in range(5):
        harness.send("ban", f"203.0.113.{number}")
    state = harness.state
    assert state.due_reasons(harness.clock + 59, 10) == []
    first = state.due_reasons(harness.clock + 60, 3)
    rest = state.due_reasons(harness.clock + 60, 10)
    assert len(first) == 3
    assert len({*first, *rest}) == len(first) + len(rest) == 5


def test_moved_timer_is_not_due_at_its_first_moment() -> None:
    harness = MitigatorHarness(policy(rule(lease=60)), fastnetmon_ban_time=60)
    harness.send("ban")
    harness.wait(40)
    harness.send("ban")
    assert harness.state.due_reasons(harness.clock + 59, 10) == []


def test_starts_count_for_a_minute() -> None:
    counts = Counts()
    counts.start(START)
    counts.start(START + timedelta(seconds=30))
    assert counts.at(START + timedelta(seconds=59)).new_last_minute == 2
    assert counts.at(START + timedelta(seconds=60)).new_last_minute == 1
    assert counts.at(START + timedelta(seconds=90)).new_last_minute == 0


def test_start_that_is_undone_does_not_count() -> None:
    counts = Counts()
    counts.start(START)
    counts.start(START)
    counts.undo_start(START)
    assert counts.at(START).new_last_minute == 1


def test_undoing_a_start_of_long_ago_changes_nothing() -> None:
    counts = Counts()
    counts.start(START)
    later = START + timedelta(seconds=90)
    counts.at(later)
    counts.start(later)
    counts.undo_start(START)
    assert counts.at(later).new_last_minute == 1


def test_starts_before_a_clock_was_set_back_expire() -> None:
    counts = Counts()
    counts.start(START + timedelta(hours=1))
    for _ in range(5):
        counts.start(START)
    assert counts.at(START + timedelta(seconds=61)).new_last_minute == 1


@pytest.mark.parametrize("customer", [None, "acme"])
def test_counts_are_empty_after_every_removal(customer: str | None) -> None:
    counts = Counts()
    network = ip_network("203.0.113.0/28")
    counts.add(network, customer)
    view = counts.at(START)
    assert (view.active, view.affected.count(4)) == (1, 16)
    counts.remove(network, customer)
    view = counts.at(START)
    assert (view.active, dict(view.by_customer)) == (0, {})
    assert view.affected.count(4) == 0


def test_parts_of_a_target_are_active_reasons() -> None:

    udp = FlowSpecRule(uuid="r1", destination_prefix="203.0.113.7/32")
    harness = MitigatorHarness(policy(rule(action="flowspec")))
    harness.send("partial_block", rules=(udp,))
    assert harness.state.parts(NAME) == [NAME._replace(part="r1")]
    harness.send("partial_unblock", rules=(udp,))
    assert harness.state.parts(NAME) == []
    assert KEY not in harness.state.demands
