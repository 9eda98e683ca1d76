"""The next mitigator's state, with other clocks and other policies."""

from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network

import pytest
from support.mitigator_harness import HOST, KEY, MitigatorHarness, banned, policy, rule

from consumers.mitigator.state.restore import StoredRecord
from consumers.policy.model import Action, Customer, Match, Policy
from fnm_bus.event import FlowSpecRule

UDP = FlowSpecRule(destination_prefix=f"{HOST}/32", protocols=("udp",))
GROUP = Action(action="firewall", prefixes=(ip_network("203.0.113.0/24"),))


def key(number: int) -> str:
    return f"blackhole|203.0.113.{number}/32"


def busy() -> MitigatorHarness:
    """Return a mitigator with one of everything."""
    used_policy = policy(
        rule("ask", Match(sensors=frozenset({"ask"})), approval=True),
        rule("trial", Match(sensors=frozenset({"trial"})), dry_run=True),
        rule("any", when_limited="hostgroup"),
        hostgroups={"web": GROUP},
        max_active=2,
    )
    harness = MitigatorHarness(used_policy)
    harness.send("ban", "203.0.113.1", host_group="web")
    harness.wait(40)
    harness.send("attack_status", "203.0.113.1", host_group="web")
    harness.send("ban", "203.0.113.2", sensor="ask")
    harness.send("ban", "203.0.113.3", sensor="ask")
    harness.command("approve", key(3))
    harness.send("ban", "203.0.113.4", sensor="trial")
    harness.send("ban", "203.0.113.5", host_group="web")
    harness.send("ban", "203.0.113.6", host_group="web")
    harness.command("withdraw", key(5))
    harness.send("ban", "203.0.113.7", host_group="web")
    harness.send("unban", "203.0.113.7", host_group="web")
    harness.command("add", kind="firewall", prefix="203.0.113.9/32", lease_ms=600_000)
    return harness


# -- clocks ----------------------------------------------------------------------------


@pytest.mark.parametrize("clock", [3.0, 1000.0, 1000.0 + 3 * 86_400, 1e9])
def test_takeover_leaves_leases_unchanged(clock: float) -> None:
    """The uptime of the next machine, and its clock, decide nothing."""
    harness = busy()
    harness.wait(100)
    before = {name: harness.lease_left(name) for name in harness.mitigations}
    wanted = harness.wanted()
    harness.restart(clock=clock)
    assert harness.wanted() == wanted
    for name, left in before.items():
        if harness.mitigation(name).state in {"wanted", "proposed", "suppressed"}:
            assert harness.lease_left(name) == pytest.approx(left, abs=0.01)


@pytest.mark.parametrize("clock", [3.0, 1e9])
def test_leases_end_on_time_after_a_takeover(clock: float) -> None:
    harness = MitigatorHarness(policy(rule(lease=600)), fastnetmon_ban_time=600)
    harness.send("ban")
    harness.wait(200)
    harness.restart(clock=clock)
    harness.wait(399)
    assert harness.wanted() == [KEY]
    harness.wait(2)
    assert harness.wanted() == []


def test_takeover_writes_changes_only() -> None:
    harness = busy()
    before = harness.written
    reports = len(harness.audits)
    for clock in (5.0, 1e6, 70.0):
        harness.restart(clock=clock)
        harness.wait(1)
    assert harness.written == before
    assert len(harness.audits) == reports


@pytest.mark.parametrize("days", [-3, 3])
def test_record_of_another_time_never_lengthens_a_lease(days: int) -> None:
    """Brokers' clocks may differ; a record from the future has its whole lease."""
    harness = banned()
    for records in (harness.reasons, harness.mitigations):
        for name, stored in records.items():
            at = stored.at + timedelta(days=days)
            records[name] = StoredRecord(stored.record, at)  # type: ignore[index]
    harness.restart()
    entry = next(iter(harness.state.reasons.values()))
    assert entry.ends <= harness.clock + 1_900
    harness.wait(1_901)
    assert harness.state.demands == {}


def test_fifty_mitigations_outlive_ten_takeovers() -> None:
    harness = MitigatorHarness(policy(max_new_per_minute=1_000))
    for number in range(50):
        harness.send("ban", f"203.0.113.{number}")
    for number in range(10):
        harness.wait(100)
        for host in range(50):
            harness.send("attack_status", f"203.0.113.{host}")
        harness.restart(clock=10.0 ** (number % 7))
        assert len(harness.wanted()) == 50
    assert harness.audit_texts("ended") == []


# -- records that were lost ------------------------------------------------------------


def test_lost_mitigation_record_is_written_again() -> None:
    harness = banned()
    harness.mitigations.clear()
    harness.restart()
    assert harness.wanted() == [KEY]
    assert harness.lease_left(KEY) <= 1_900


def test_lost_mitigation_records_start_as_limits_allow() -> None:
    harness = MitigatorHarness(policy(max_new_per_minute=20))
    for number in range(40):
        harness.send("ban", f"203.0.113.{number}")
        harness.wait(4)
    harness.wait(61)
    assert len(harness.wanted()) == 40
    harness.mitigations.clear()
    harness.restart()
    assert len(harness.wanted()) == 20
    harness.run(90)
    assert len(harness.wanted()) == 40


def test_lost_suppression_mitigates_again() -> None:
    harness = banned()
    harness.command("withdraw", KEY)
    harness.mitigations.clear()
    harness.restart()
    assert harness.wanted() == [KEY]


def test_lost_reason_does_not_end_the_others() -> None:
    harness = banned(sensor="a")
    harness.send("ban", sensor="b")
    del harness.reasons[next(iter(harness.reasons))]
    harness.restart()
    assert harness.wanted() == [KEY]


# -- a policy that became narrower -----------------------------------------------------


def test_removed_rule_ends_its_measures() -> None:
    harness = banned(policy(rule("a")))
    harness.restart(policy(rule("b"), digest="p2"))
    assert harness.wanted() == []
    assert harness.mitigation().ended_because == "policy"


@pytest.mark.parametrize("action", ["notify", "ignore"])
def test_rule_that_only_informs_now_ends_its_measures(action: str) -> None:
    harness = banned()
    harness.restart(policy(rule(action=action), digest="p2"))
    assert harness.wanted() == []
    assert harness.mitigation().ended_because == "policy"


def test_dry_run_applies_at_once() -> None:
    harness = banned()
    harness.restart(policy(rule(dry_run=True), digest="p2"))
    assert harness.wanted() == []
    assert harness.mitigation().dry_run


def test_mitigator_in_dry_run_takes_everything_out_of_force() -> None:
    harness = banned()
    harness.restart(dry_run=True)
    assert harness.wanted() == []
    harness.restart(dry_run=False)
    assert harness.wanted() == [KEY]


def test_approval_applies_at_once() -> None:
    harness = banned()
    harness.restart(policy(rule(approval=True), digest="p2"))
    assert harness.wanted() == []
    assert harness.mitigation().held_by == ("approval",)
    harness.command("approve", KEY)
    assert harness.wanted() == [KEY]


def test_shorter_lease_applies_at_once() -> None:
    harness = banned(policy(rule(lease=900)))
    harness.send("attack_status")
    harness.restart(policy(rule(lease=60), digest="p2"))
    assert harness.lease_left(KEY) == 60
    harness.wait(61)
    assert harness.wanted() == []


def test_shorter_lease_is_the_ban_time_before_a_status() -> None:
    harness = MitigatorHarness(policy(rule(lease=3_600)), fastnetmon_ban_time=1_900)
    harness.send("ban")
    used_policy = policy(rule(lease=60), digest="p2")
    harness.restart(used_policy, fastnetmon_ban_time=1_900)
    assert harness.lease_left(KEY) == 1_900


def test_longer_lease_waits_for_the_next_event() -> None:
    harness = banned(policy(rule(lease=900)))
    harness.send("attack_status")
    harness.wait(301)
    harness.restart(policy(rule(lease=3_600), digest="p2"))
    assert harness.lease_left(KEY) == 599
    harness.send("attack_status")
    assert harness.lease_left(KEY) == 3_600


def test_measure_that_a_guardrail_refuses_now_ends() -> None:
    harness = banned()
    forbidden = policy(protected_prefixes=(ip_network(f"{HOST}/32"),), digest="p2")
    harness.restart(forbidden)
    assert harness.wanted() == []
    assert harness.mitigation().ended_because == "guardrail"


def test_guardrail_ends_a_persons_measure_too() -> None:
    harness = MitigatorHarness()
    harness.command("add", kind="blackhole", prefix=f"{HOST}/32")
    harness.restart(policy(protected_prefixes=(ip_network(f"{HOST}/32"),), digest="p2"))
    assert harness.wanted() == []


def test_other_kind_of_measure_waits_for_the_next_event() -> None:
    harness = banned()
    harness.restart(policy(rule(action="flowspec"), digest="p2"))
    assert harness.wanted() == [KEY]
    harness.send("ban")
    assert KEY not in harness.wanted()
    assert len(harness.wanted()) == 1


def test_policy_that_became_wider_starts_nothing() -> None:
    harness = banned(policy(rule(dry_run=True)))
    harness.restart(policy(rule(), digest="p2"))
    assert harness.wanted() == []
    harness.send("attack_status")
    assert harness.wanted() == []


@pytest.mark.parametrize("narrower", [False, True])
def test_lower_limit_holds_the_latest_starts(*, narrower: bool) -> None:
    harness = MitigatorHarness()
    for number in range(5):
        harness.send("ban", f"203.0.113.{number}")
        harness.wait(1)
    lease = {"lease": 60.0} if narrower else {}
    for number in range(5):
        harness.send("attack_status", f"203.0.113.{number}")
    harness.restart(policy(rule(**lease), max_active=2, digest="p2"))
    assert harness.wanted() == [key(0), key(1)]
    assert harness.mitigation(key(4)).held_by == ("max_active",)
    harness.send("unban", "203.0.113.0")
    harness.run(2)
    assert harness.wanted() == [key(1), key(2)]


def test_lower_limit_holds_starts_of_a_wider_policy() -> None:
    narrow = policy(max_active=1)
    harness = MitigatorHarness(narrow)
    for number in (1, 2):
        harness.send("ban", f"203.0.113.{number}")
        harness.wait(1)
    harness.restart(policy(digest="p2"))
    assert harness.wanted() == [key(1), key(2)]
    harness.restart(narrow)
    assert harness.wanted() == [key(1)]


def test_dry_runs_start_counts_as_dry_after_a_takeover() -> None:
    trial = rule("trial", Match(severities=frozenset({"t"})), dry_run=True)
    asks = rule("ask", Match(severities=frozenset({"a"})), approval=True)
    harness = MitigatorHarness(policy(trial, asks, rule(), max_new_per_minute=4))
    harness.send("ban", "203.0.113.1", attack_severity="t")
    harness.send("ban", "203.0.113.1", attack_severity="a", attack_uuid="a2")
    assert harness.mitigation(key(1)).state == "proposed"
    assert not harness.mitigation(key(1)).dry_run
    harness.restart()
    for number in range(2, 6):
        harness.send("ban", f"203.0.113.{number}")
    assert harness.wanted() == [key(number) for number in range(2, 6)]


def test_lower_limit_keeps_approved_mitigations() -> None:
    harness = MitigatorHarness(policy(max_active=1))
    harness.send("ban", "203.0.113.1")
    harness.wait(1)
    harness.send("ban", "203.0.113.2")
    harness.command("approve", key(2))
    harness.restart(policy(max_active=1, digest="p2"))
    assert harness.wanted() == [key(1), key(2)]
    assert harness.audit_codes("proposed") == ["max_active"]  # of the ban


def test_lower_limit_of_a_customer_applies() -> None:
    acme = Customer(name="acme", networks=(ip_network("203.0.113.0/28"),), max_active=2)
    harness = MitigatorHarness(policy(customers=(acme,)))
    for number in (1, 2, 99):
        harness.send("ban", f"203.0.113.{number}")
        harness.wait(1)
    fewer = replace(acme, max_active=1)
    harness.restart(policy(customers=(fewer,), digest="p2"))
    assert harness.wanted() == [key(1), key(99)]


def test_fallback_ends_when_its_rule_drops_it() -> None:
    used_policy = policy(
        rule(when_limited="hostgroup"), hostgroups={"web": GROUP}, max_active=1
    )
    harness = MitigatorHarness(used_policy)
    for number in range(2):
        harness.send("ban", f"203.0.113.{number}", host_group="web")
    assert "firewall|203.0.113.0/24" in harness.wanted()
    harness.restart(
        policy(rule(), hostgroups={"web": GROUP}, max_active=1, digest="p2")
    )
    assert harness.wanted() == [key(0)]


def test_fallback_does_not_flap_over_a_takeover() -> None:
    def used_policy(lease: float, digest: str) -> Policy:
        return policy(
            rule(when_limited="hostgroup", lease=lease),
            hostgroups={"web": replace(GROUP, lease=lease)},
            max_active=1,
            digest=digest,
        )

    harness = MitigatorHarness(used_policy(900, "p1"))
    for number in range(2):
        harness.send("ban", f"203.0.113.{number}", host_group="web")
        harness.send("attack_status", f"203.0.113.{number}", host_group="web")
    started = harness.mitigation("firewall|203.0.113.0/24").started_at
    harness.wait(5)
    harness.restart()
    harness.restart(used_policy(60, "p2"))
    assert harness.mitigation("firewall|203.0.113.0/24").started_at == started
    assert harness.audit_texts("ended") == []


def test_same_policy_narrows_nothing() -> None:
    harness = banned(policy(rule(action="flowspec")), rules=(UDP,))
    before = harness.written
    harness.restart()
    assert harness.written == before
