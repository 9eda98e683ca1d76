"""The measures of a ban, and the limits of their start."""

from ipaddress import ip_network

import msgspec
import pytest
from support.mitigator_harness import HOST, KEY, MitigatorHarness, banned, policy, rule

from consumers.policy.model import Action, Customer, Match
from fnm_bus.event import FlowSpecRule, HostgroupNetwork

RULE = FlowSpecRule(uuid="r1", destination_prefix=f"{HOST}/32", protocols=("udp",))
GROUP = Action(action="firewall", prefixes=(ip_network("203.0.113.0/24"),))
FALLBACK = "firewall|203.0.113.0/24"


def key(number: int, kind: str = "blackhole") -> str:
    return f"{kind}|203.0.113.{number}/32"


def ban(harness: MitigatorHarness, number: int, **fields: object) -> None:
    harness.send("ban", f"203.0.113.{number}", **fields)


# -- the reason ------------------------------------------------------------------------


def test_reason_keeps_the_bans_measures() -> None:
    harness = MitigatorHarness(policy(rule(action="flowspec", lease=60)))
    harness.send("ban", rules=(RULE,), host_group="web", total_incoming_pps=7)
    reason = harness.reason()
    assert [want.flow.protocols for want in reason.wants if want.flow] == [("udp",)]
    assert (reason.rule, reason.policy_digest) == ("any", "p1")
    assert (reason.hostgroup, reason.direction, reason.pps) == ("web", "incoming", 7)
    assert reason.lease_ms == 1_900_000


def test_places_are_mitigations_of_their_own() -> None:
    harness = banned(policy(rule(enforcers=("exabgp", "nftables"))))
    assert harness.wanted() == [f"{KEY}|exabgp", f"{KEY}|nftables"]


def test_measures_of_two_places_do_not_strengthen_each_other() -> None:
    first = rule("one", Match(sensors=frozenset({"fnm1"})), enforcers=("exabgp",))
    other = rule("other", enforcers=("nftables",), dry_run=True)
    harness = banned(policy(first, other), sensor="fnm1")
    harness.send("ban", sensor="fnm2")
    assert harness.wanted() == [f"{KEY}|exabgp"]


def test_second_ban_under_another_rule_changes_the_measure() -> None:
    small = rule("small", Match(max_pps=100), action="notify")
    harness = banned(policy(small, rule("large")), total_incoming_pps=10)
    assert harness.wanted() == [f"notify|{HOST}/32"]
    harness.send("ban", total_incoming_pps=1000)
    assert harness.wanted() == [KEY]
    assert harness.mitigation(f"notify|{HOST}/32").ended_because == "superseded"


def test_ban_that_the_policy_ignores_now_ends_the_measure() -> None:
    small = rule("small", Match(max_pps=100), action="ignore")
    harness = banned(policy(small, rule("large")), total_incoming_pps=1000)
    harness.send("ban", total_incoming_pps=10)
    assert harness.wanted() == []
    assert harness.mitigation().ended_because == "policy"
    harness.send("attack_status", total_incoming_pps=1000)
    assert harness.wanted() == [KEY]


def test_refused_ban_keeps_the_hostgroup_of_its_measures() -> None:
    web = ip_network("203.0.113.64/26")
    used_policy = policy(
        rule("group", Match(severities=frozenset({"g"})), action="hostgroup"),
        rule(),
        hostgroups={"web": Action(action="blackhole", prefixes=(web,))},
    )
    harness = MitigatorHarness(used_policy)
    foreign = "198.51.100.1"
    harness.send("ban", foreign, attack_severity="g", host_group="web")
    harness.send("ban", foreign, host_group=None)
    harness.restart()
    assert harness.wanted() == [f"blackhole|{web}"]


def test_refused_second_ban_keeps_the_first_bans_measures() -> None:
    harness = banned(policy(rule(action="flowspec")), rules=(RULE,))
    [before] = harness.wanted()
    harness.send("ban", rules=(RULE,), extra={"/flow_spec_rules/0/dscp": "46"})
    assert harness.wanted() == [before]
    assert harness.audit_codes("refused") == ["rule_not_understood"]


@pytest.mark.parametrize("restart", [False, True])
def test_status_does_not_widen_a_refused_ban(*, restart: bool) -> None:
    """The status update has no rules: it would block the host's whole protocol."""
    harness = MitigatorHarness(policy(rule(action="flowspec")))
    harness.send("ban", rules=(RULE,), extra={"/flow_spec_rules/0/dscp": "46"})
    if restart:
        harness.restart()
    for _ in range(200):
        harness.wait(20)
        harness.send("attack_status")
    assert harness.mitigations == {}


def test_hostgroup_without_usable_networks_is_refused() -> None:
    harness = MitigatorHarness()
    event = harness.event("ban", "web", networks=("203.0.113.0/24",))
    bad = HostgroupNetwork(sent="somewhere", network=None)
    harness.apply(msgspec.structs.replace(event, hostgroup_networks=(bad,)))
    assert harness.audit_codes("refused") == ["no_network"]


# -- refusals --------------------------------------------------------------------------


def test_refusal_is_reported_once_and_not_with_every_status() -> None:
    harness = banned(policy(protected_prefixes=(ip_network(f"{HOST}/32"),)))
    for _ in range(10):
        harness.send("attack_status")
    assert harness.audit_codes("refused") == ["protected_prefixes"]
    assert harness.written == 0


def test_many_refusals_of_one_event_are_one_report() -> None:
    harness = MitigatorHarness()
    networks = tuple(f"198.51.100.{number}/32" for number in range(200))
    for _ in range(5):
        harness.send("ban", "web", networks=networks)
    [audit] = harness.audits
    assert audit.code == "own_networks"
    assert "199 more were refused" in audit.text
    assert len(audit.checks) <= 100
    assert audit.checks_omitted > 0


def test_refused_measures_do_not_keep_the_others_from_starting() -> None:
    harness = MitigatorHarness()
    harness.send("ban", "web", networks=("198.51.100.1/32", f"{HOST}/32"))
    assert harness.wanted() == [KEY]
    assert harness.audit_codes("refused") == ["own_networks"]


def test_more_measures_than_a_reason_takes_are_refused() -> None:
    places = tuple(f"place{number}" for number in range(300))
    harness = banned(policy(rule(enforcers=places)))
    assert harness.wanted() == []
    assert harness.audit_codes("refused") == ["too_many_measures"]


def test_attack_is_refused_where_all_reasons_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("consumers.mitigator.decisions.start.MAX_REASONS", 2)
    harness = MitigatorHarness()
    for number in range(3):
        ban(harness, number)
    assert harness.audit_codes("refused") == ["too_many_reasons"]
    assert len(harness.wanted()) == 2
    harness.send("unban", "203.0.113.0")
    ban(harness, 3)
    assert harness.wanted() == [key(1), key(3)]
    assert len(harness.reasons) == 2


# -- limits ----------------------------------------------------------------------------


def test_limit_of_a_customer_holds_that_customer_only() -> None:
    acme = Customer(name="acme", networks=(ip_network("203.0.113.0/28"),), max_active=1)
    harness = MitigatorHarness(policy(customers=(acme,)))
    for number in (1, 2, 99):
        ban(harness, number)
    assert harness.mitigation(key(1)).customer == "acme"
    assert harness.mitigation(key(2)).held_by == ("max_per_customer",)
    assert harness.mitigation(key(99)).state == "wanted"


def test_share_of_own_addresses_holds_a_larger_prefix() -> None:
    harness = MitigatorHarness(policy(max_affected_share=0.01))
    for number in range(4):
        ban(harness, number)
    assert len(harness.wanted()) == 2
    assert harness.mitigation(key(3)).held_by == ("max_affected_share",)


def test_ended_mitigations_do_not_count() -> None:
    harness = MitigatorHarness(policy(max_active=1))
    for number in range(5):
        ban(harness, number)
        assert harness.wanted() == [key(number)]
        harness.send("unban", f"203.0.113.{number}")


def test_notices_neither_count_nor_wait() -> None:
    harness = MitigatorHarness(
        policy(rule(action="notify"), max_active=1, max_new_per_minute=1)
    )
    for number in range(5):
        ban(harness, number)
    assert len(harness.wanted()) == 5
    assert harness.state.active_counts(harness.now, dry_run=False).active == 0


def test_hostgroup_measure_counts_in_every_limit() -> None:
    harness = MitigatorHarness(policy(max_active=1, min_prefix_length_ipv4=24))
    harness.send("ban", "web", networks=("203.0.113.64/26",))
    ban(harness, 1)
    assert harness.mitigation(key(1)).held_by == ("max_active",)
    counts = harness.state.active_counts(harness.now, dry_run=False)
    assert (counts.active, counts.new_last_minute) == (1, 1)


def test_share_counts_each_address_once() -> None:
    harness = MitigatorHarness(policy(min_prefix_length_ipv4=24))
    harness.send("ban", "web", networks=("203.0.113.64/26",))
    ban(harness, 65)
    counts = harness.state.active_counts(harness.now, dry_run=False)
    assert counts.active == 2
    assert counts.affected.count(4) == 64


def test_dry_runs_do_not_use_up_live_limits() -> None:
    trial = rule("trial", Match(sensors=frozenset({"fnm1"})), dry_run=True)
    harness = MitigatorHarness(
        policy(trial, rule("live"), max_active=1, max_new_per_minute=1)
    )
    ban(harness, 1, sensor="fnm1")
    ban(harness, 2, sensor="fnm1")
    ban(harness, 3, sensor="fnm2")
    assert harness.wanted() == [key(3)]
    assert harness.mitigation(key(1)).state == "wanted"
    assert harness.mitigation(key(2)).state == "proposed"
    assert harness.mitigation(key(2)).dry_run


def test_one_event_starts_a_quarter_of_a_minutes_starts() -> None:
    harness = MitigatorHarness(policy(max_new_per_minute=120))
    networks = tuple(f"203.0.113.{number}/32" for number in range(100))
    harness.send("ban", "web", networks=networks)
    assert len(harness.wanted()) == 30
    ban(harness, 200)
    assert key(200) in harness.wanted()
    held = {record.held_by for record in harness.state.active() if record.held_by}
    assert held == {("max_new_per_event",)}


def test_starts_of_ended_mitigations_count_for_a_minute() -> None:
    harness = MitigatorHarness(policy(max_new_per_minute=2))
    for number in range(3):
        ban(harness, number)
        harness.send("unban", f"203.0.113.{number}")
    assert harness.mitigation(key(1)).state == "ended"
    assert key(2) not in [a.key for a in harness.audits if a.action == "wanted"]


def test_proposals_beyond_their_number_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("consumers.mitigator.state.recompute.MAX_PROPOSALS", 2)
    harness = MitigatorHarness(policy(rule(approval=True)))
    for number in range(4):
        ban(harness, number)
    assert harness.state.proposals == 2
    assert len(harness.mitigations) == 2
    assert harness.audit_codes("refused") == ["too_many_proposals"] * 2


# -- the hostgroup's measure where a limit holds the host's own ------------------------


def limited(**fields: int) -> MitigatorHarness:
    used_policy = policy(
        rule(when_limited="hostgroup"), hostgroups={"web": GROUP}, **fields
    )
    return MitigatorHarness(used_policy)


def test_hostgroup_takes_over_at_a_limit() -> None:
    harness = limited(max_active=2)
    for number in range(4):
        ban(harness, number, host_group="web")
    assert harness.wanted() == [key(0), key(1), FALLBACK]
    assert harness.mitigation(FALLBACK).live_reasons == 2


def test_hostgroup_ends_with_the_last_host_that_needs_it() -> None:
    harness = limited(max_active=2)
    for number in range(4):
        ban(harness, number, host_group="web")
    harness.send("unban", "203.0.113.2")
    assert FALLBACK in harness.wanted()
    harness.send("unban", "203.0.113.3")
    assert harness.wanted() == [key(0), key(1)]


def test_hosts_go_back_to_their_own_measures() -> None:
    harness = limited(max_active=2)
    for number in range(3):
        ban(harness, number, host_group="web")
    assert FALLBACK in harness.wanted()
    harness.send("unban", "203.0.113.0")
    harness.send("unban", "203.0.113.1")
    harness.run(3)
    assert harness.wanted() == [key(2)]


def test_second_ban_goes_back_to_its_own_measure() -> None:
    harness = limited(max_active=2)
    for number in range(3):
        ban(harness, number, host_group="web")
    harness.send("unban", "203.0.113.0")
    harness.send("unban", "203.0.113.1")
    ban(harness, 2, host_group="web")
    assert harness.wanted() == [key(2)]


def test_renewals_do_not_restart_the_hostgroups_measure() -> None:
    harness = limited(max_active=1)
    ban(harness, 0, host_group="web")
    ban(harness, 1, host_group="web")
    started = harness.mitigation(FALLBACK).started_at
    for _ in range(100):
        harness.wait(20)
        for number in range(2):
            harness.send("attack_status", f"203.0.113.{number}", host_group="web")
    ban(harness, 1, host_group="web")
    assert harness.wanted() == [key(0), FALLBACK]
    assert harness.mitigation(FALLBACK).started_at == started
    assert harness.audit_texts("ended") == []


def test_rejected_host_measure_ends_its_fallback() -> None:
    harness = limited(max_active=1)
    ban(harness, 0, host_group="web")
    ban(harness, 1, host_group="web")
    harness.command("reject", key(1))
    assert harness.wanted() == [key(0)]


def test_approved_host_measure_ends_its_fallback() -> None:
    harness = limited(max_active=1)
    ban(harness, 0, host_group="web")
    ban(harness, 1, host_group="web")
    harness.command("approve", key(1))
    assert harness.wanted() == [key(0), key(1)]


def test_fallback_is_not_held_by_the_limit_that_it_relieves() -> None:
    harness = limited(max_active=1, max_new_per_minute=1)
    ban(harness, 0, host_group="web")
    ban(harness, 1, host_group="web")
    assert FALLBACK in harness.wanted()


def test_fallback_equal_to_the_own_measure_is_limited_too() -> None:
    same = Action(action="blackhole")
    used_policy = policy(
        rule(when_limited="hostgroup"), hostgroups={"web": same}, max_active=1
    )
    harness = MitigatorHarness(used_policy)
    for number in range(3):
        ban(harness, number, host_group="web")
    assert harness.wanted() == [key(0)]
