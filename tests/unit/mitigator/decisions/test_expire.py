"""With time leases end, proposals start, and ended records are forgotten."""

import logging
from datetime import timedelta
from ipaddress import ip_network
from itertools import pairwise

import pytest
from support.mitigator_harness import KEY, MitigatorHarness, banned, policy, rule

from consumers.mitigator.decisions import expire
from consumers.mitigator.state.transition import Transition
from consumers.policy.model import Action, Customer, Match


def key(number: int) -> str:
    return f"blackhole|203.0.113.{number}/32"


def ban(harness: MitigatorHarness, numbers: range, **fields: object) -> None:
    for number in numbers:
        harness.send("ban", f"203.0.113.{number}", **fields)


# -- leases ----------------------------------------------------------------------------


def test_expired_reason_ends_its_mitigation() -> None:
    harness = MitigatorHarness(policy(rule(lease=60)), fastnetmon_ban_time=60)
    harness.send("ban")
    harness.wait(59)
    assert harness.wanted() == [KEY]
    harness.wait(2)
    assert harness.mitigation().state == "ended"
    assert harness.mitigation().ended_because == "lease"
    assert harness.audit_codes("ended") == ["lease"]


def test_expiry_writes_no_reason_record() -> None:
    harness = MitigatorHarness(policy(rule(lease=60)), fastnetmon_ban_time=60)
    harness.send("ban")
    before = harness.reason()
    harness.wait(61)
    assert harness.reason() is before


def test_two_leases_end_with_the_longer() -> None:
    harness = MitigatorHarness(policy(rule(lease=60)), fastnetmon_ban_time=60)
    harness.send("ban", sensor="a")
    harness.wait(30)
    harness.send("ban", sensor="b")
    harness.wait(31)
    assert harness.wanted() == [KEY]
    assert harness.mitigation().live_reasons == 1
    harness.wait(30)
    assert harness.wanted() == []


def test_thousands_of_leases_end_at_once() -> None:
    networks = (ip_network("10.0.0.0/16"),)
    used_policy = policy(
        own_networks=networks, max_active=10_000, max_new_per_minute=100_000
    )
    harness = MitigatorHarness(used_policy)
    for number in range(1_000):
        harness.send("ban", f"10.0.{number // 250}.{number % 250}")
    assert len(harness.wanted()) == 1_000
    harness.wait(1_901)
    assert harness.wanted() == []
    counts = harness.state.active_counts(harness.now, dry_run=False)
    assert counts.active == 0


def test_failing_expiry_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "consumers.mitigator.decisions.expire")
    harness = MitigatorHarness(policy(rule(lease=60)), fastnetmon_ban_time=60)
    ban(harness, range(3))
    original = expire.recompute

    def fail(transition: Transition, name: str, *args: object, **fields: object) -> str:
        if name == key(1):
            raise ZeroDivisionError
        return original(transition, name, *args, **fields)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(expire, "recompute", fail)
        harness.wait(61)
        assert harness.mitigation(key(0)).state == "ended"
        assert harness.mitigation(key(1)).state == "wanted"
        assert harness.mitigation(key(2)).state == "ended"
    harness.wait(1)
    assert harness.mitigation(key(1)).state == "ended"


def test_mitigation_without_reasons_ends_with_its_lease() -> None:
    harness = banned()
    harness.reasons.clear()  # Kafka lost it
    harness.now += timedelta(seconds=1_000)
    harness.restart()
    harness.wait(899)
    assert harness.mitigation().state == "wanted"
    harness.wait(2)
    assert harness.mitigation().state == "ended"


def test_pause_does_not_end_by_itself() -> None:
    harness = MitigatorHarness()
    harness.command("pause")
    harness.wait(10 * 86_400)
    harness.send("ban")
    assert harness.mitigation("pause").state == "wanted"
    assert harness.wanted() == []


# -- proposals -------------------------------------------------------------------------


def test_proposals_start_by_themselves_without_status_updates() -> None:
    harness = MitigatorHarness(policy(max_new_per_minute=20))
    ban(harness, range(60))
    assert len(harness.wanted()) == 20
    harness.run(150)
    assert len(harness.wanted()) == 60


def test_many_proposals_never_start_at_once() -> None:
    networks = (ip_network("10.0.0.0/16"),)
    used_policy = policy(own_networks=networks, max_active=1_000, max_new_per_minute=20)
    harness = MitigatorHarness(used_policy, fastnetmon_ban_time=86_400)
    for number in range(400):
        harness.send("ban", f"10.0.{number // 250}.{number % 250}")
    assert len(harness.wanted()) == 20
    assert harness.state.proposals == 380
    started = []
    for second in range(300):
        if second == 90:
            harness.restart()
        harness.run(1)
        started.append(len(harness.wanted()))
        before = started[-61] if len(started) > 60 else 20 if second < 59 else 0
        if len(started) > 60:
            assert started[-1] - before <= 20
    assert started[-1] >= 80
    assert max(b - a for a, b in pairwise(started)) <= 1


def test_takeover_keeps_the_count_of_the_last_minute() -> None:
    harness = MitigatorHarness(policy(max_new_per_minute=2))
    ban(harness, range(1))
    harness.send("unban", "203.0.113.0")
    ban(harness, range(1, 3))
    harness.restart(clock=5.0)
    ban(harness, range(3, 5))
    harness.tick()
    assert harness.wanted() == [key(1)]
    harness.run(62)
    assert len(harness.wanted()) > 1


def test_oldest_proposal_starts_first() -> None:
    networks = (ip_network("10.0.0.0/16"),)
    used_policy = policy(own_networks=networks, max_active=1)
    harness = MitigatorHarness(used_policy, fastnetmon_ban_time=86_400)
    hosts = [f"10.0.{number // 250}.{number % 250}" for number in range(500)]
    for host in hosts:
        harness.send("ban", host)
    harness.run(7)
    for index in range(3):
        harness.send("unban", hosts[index])
        harness.run(3)
        assert harness.wanted() == [f"blackhole|{hosts[index + 1]}/32"]


def test_customer_at_its_limit_does_not_hold_others() -> None:
    acme = Customer(name="acme", networks=(ip_network("10.0.0.0/17"),), max_active=1)
    used_policy = policy(
        own_networks=(ip_network("10.0.0.0/16"),),
        customers=(acme,),
        max_active=2,
        max_new_per_minute=10_000,
    )
    harness = MitigatorHarness(used_policy, fastnetmon_ban_time=86_400)
    harness.send("ban", "10.0.0.1")
    harness.send("ban", "10.0.200.1")
    for number in range(300):
        harness.send("ban", f"10.0.{number // 250}.{number % 250}")
    harness.send("ban", "10.0.200.2")
    harness.send("unban", "10.0.200.1")
    harness.run(5)
    assert "blackhole|10.0.200.2/32" in harness.wanted()


def test_full_live_limit_does_not_hold_dry_runs() -> None:
    trial = rule("trial", Match(sensors=frozenset({"t"})), dry_run=True)
    harness = MitigatorHarness(policy(trial, rule("live"), max_active=1))
    ban(harness, range(5), sensor="live")
    ban(harness, range(10, 12), sensor="t")
    harness.send("unban", "203.0.113.10", sensor="t")
    harness.run(3)
    assert harness.mitigation(key(11)).state == "wanted"


def test_proposal_that_needs_approval_never_starts_by_itself() -> None:
    harness = banned(policy(rule(approval=True)))
    harness.run(100)
    assert harness.mitigation().state == "proposed"


def test_failing_proposal_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "consumers.mitigator.decisions.expire")
    harness = MitigatorHarness(policy(max_active=1))
    ban(harness, range(3))
    original = expire.recompute

    def fail(transition: Transition, name: str, *args: object, **fields: object) -> str:
        if name == key(1):
            raise ZeroDivisionError
        return original(transition, name, *args, **fields)  # type: ignore[arg-type]

    monkeypatch.setattr(expire, "recompute", fail)
    harness.send("unban", "203.0.113.0")
    harness.run(2)
    assert harness.wanted() == [key(2)]


# -- forgetting ------------------------------------------------------------------------


def test_closed_reason_is_forgotten_after_the_oldest_possible_event() -> None:
    harness = banned(policy(max_event_age=300, max_clock_skew=60))
    harness.send("unban")
    harness.wait(419)
    assert len(harness.reasons) == 1
    harness.wait(2)
    assert harness.reasons == {}
    assert harness.state.reasons == {}


def test_ended_mitigation_is_forgotten_after_a_day() -> None:
    harness = banned()
    harness.send("unban")
    harness.wait(86_399)
    assert harness.mitigation().state == "ended"
    harness.wait(2)
    assert harness.mitigations == {}
    assert harness.state.mitigations == {}


@pytest.mark.parametrize("seconds", [300, 86_390])
def test_takeover_does_not_extend_retention(seconds: int) -> None:
    harness = banned()
    harness.send("unban")
    harness.wait(seconds)
    harness.restart(clock=7.0)
    harness.wait(421 - seconds if seconds < 421 else 11)
    assert harness.reasons == {}
    if seconds > 421:
        assert harness.mitigations == {}


def test_ended_mitigations_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.mitigator.decisions.expire.MAX_ENDED", 5)
    harness = MitigatorHarness()
    for number in range(20):
        ban(harness, range(number, number + 1))
        harness.send("unban", f"203.0.113.{number}")
    harness.tick()
    assert sorted(harness.mitigations) == sorted(key(n) for n in range(15, 20))


def test_timers_have_a_bound() -> None:
    harness = MitigatorHarness(policy(rule(prefixes=(ip_network("203.0.113.0/24"),))))
    for number in range(3_000):
        harness.clock += 0.001
        harness.send("ban", f"203.0.113.{number % 50}")
    assert len(harness.state._reasons_due._heap) < 300
    assert len(harness.state._mitigations_due._heap) < 300


def test_memory_only_entries_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.mitigator.state.memory._MAX_REMEMBERED", 10)
    harness = MitigatorHarness(policy(rule(action="ignore")))
    for number in range(50):
        harness.send("ban", f"203.0.113.{number}")
    assert len(harness.state.ignored) == 10
    assert len(harness.state._audit_texts) == 10


def test_start_replaces_a_waiting_fallback() -> None:
    """Both wait; the start of the host's own measure ends the hostgroup's."""
    group = Action(action="blackhole", prefixes=(ip_network("203.0.113.0/28"),))
    used_policy = policy(
        rule(when_limited="hostgroup"),
        hostgroups={"web": group},
        max_active=1,
        max_affected_share=0.02,
    )
    harness = MitigatorHarness(used_policy)
    ban(harness, range(1, 3), host_group="web")
    assert list(harness.state.waiting) == [key(2), "blackhole|203.0.113.0/28"]
    harness.send("unban", "203.0.113.1")
    harness.wait(1)
    assert harness.wanted() == [key(2)]
    assert not harness.state.waiting
