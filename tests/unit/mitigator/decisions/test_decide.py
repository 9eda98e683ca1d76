"""Ignored events, and the changes by a ban, an unban and a status update."""

from datetime import timedelta

import pytest
from msgspec.structs import replace
from support.mitigator_harness import HOST, KEY, MitigatorHarness, banned, policy, rule

from consumers.policy.model import Action, Match
from fnm_bus.errors import InvalidRecord
from fnm_bus.event import FlowSpecRule, HostEvent, TextMode
from fnm_bus.spool.sequence import PID_BITS, sequence_at

SECOND = 100 << PID_BITS
"""Of sequences."""

UDP = FlowSpecRule(uuid="r1", destination_prefix=f"{HOST}/32", protocols=("udp",))
TCP = FlowSpecRule(uuid="r2", destination_prefix=f"{HOST}/32", protocols=("tcp",))


# -- ban and unban -----------------------------------------------------------------


def test_ban_starts_and_unban_ends() -> None:
    harness = banned()
    assert harness.wanted() == [KEY]
    harness.send("unban")
    assert harness.wanted() == []
    record = harness.mitigation()
    assert (record.state, record.ended_because) == ("ended", "unban")
    assert record.cause == "unban by fnm1"
    assert harness.reason().closed


def test_decision_reports_the_rule_and_every_check() -> None:
    never = rule("never", Match(protocols=frozenset({"udp"})))
    harness = banned(policy(never, rule("rest")), attack_protocol="tcp")
    [audit] = harness.audits
    assert (audit.action, audit.rule, audit.key) == ("wanted", "rest", KEY)
    verdicts = {check.name: check.verdict for check in audit.checks}
    assert verdicts["never"] == "no-match"
    assert verdicts["rest"] == "match"
    names = {"max_event_age", "own_networks", "min_prefix_length_ipv4"}
    assert names | {"max_active", "max_affected_share"} <= verdicts.keys()
    assert harness.mitigation().reasons[0].rule == "rest"


def test_duplicate_ban_writes_nothing() -> None:
    harness = MitigatorHarness()
    ban = harness.send("ban")
    before = harness.written
    harness.apply(ban)
    assert harness.written == before


def test_two_sensors_hold_until_both_unban() -> None:
    harness = banned(sensor="fnm1")
    harness.send("ban", sensor="fnm2")
    harness.send("unban", sensor="fnm1")
    assert harness.wanted() == [KEY]
    harness.send("unban", sensor="fnm2")
    assert harness.wanted() == []


def test_sequences_of_two_sensors_do_not_compare() -> None:
    harness = banned(sensor="fnm1", sequence=1000)
    harness.send("ban", sensor="fnm2", sequence=5)
    assert harness.mitigation().live_reasons == 2


def test_unknown_actions_are_reported_and_change_nothing() -> None:
    harness = MitigatorHarness()
    harness.send("attack_details")
    assert harness.audits == []
    harness.send("somersault")
    assert harness.audit_codes("ignored") == ["unknown_action"]
    assert harness.written == 0


def test_old_unban_is_never_refused() -> None:
    harness = banned()
    harness.send("unban", age=100_000)
    assert harness.wanted() == []


@pytest.mark.parametrize(
    ("age", "code"), [(301, "event_too_old"), (-61, "clock_ahead")]
)
@pytest.mark.parametrize("action", ["ban", "attack_status"])
def test_event_of_a_wrong_age_starts_nothing(action: str, age: int, code: str) -> None:
    harness = MitigatorHarness()
    harness.send(action, age=age)
    assert harness.wanted() == []
    assert harness.audit_codes("ignored") == [code]


def test_ban_released_a_day_later_starts_nothing() -> None:
    harness = MitigatorHarness()
    ban = harness.event("ban")
    harness.wait(86_400)
    harness.apply(ban)
    assert harness.wanted() == []
    assert "86400 s old" in harness.audit_texts("ignored")[0]


def test_event_with_host_bits_or_words_for_numbers_raises() -> None:
    harness = MitigatorHarness()
    event = harness.event("ban", "web", networks=("203.0.113.0/24",))
    network = replace(event.hostgroup_networks[0], network="203.0.113.7/24")
    with pytest.raises(InvalidRecord):
        harness.apply(replace(event, hostgroup_networks=(network,)))
    assert not harness.state.reasons


# -- order -------------------------------------------------------------------------


@pytest.mark.parametrize("restart", [False, True])
def test_ban_older_than_its_unban_starts_nothing(*, restart: bool) -> None:
    harness = MitigatorHarness()
    ban = harness.event("ban", sequence=10)
    harness.send("unban", sequence=20)
    if restart:
        harness.restart()
    harness.apply(ban)
    assert harness.wanted() == []
    assert harness.audit_codes("ignored") == ["late"]


def test_unban_older_than_the_next_ban_ends_nothing() -> None:
    harness = banned(sequence=1)
    unban = harness.event("unban", sequence=2)
    harness.send("ban", sequence=3, attack_uuid="a2")
    harness.apply(unban)
    assert harness.wanted() == [KEY]
    assert harness.reason().attack == "a2"


@pytest.mark.parametrize("unban_first", [True, False])
def test_unban_forked_after_the_next_ban_ends_nothing(*, unban_first: bool) -> None:
    """FastNetMon's threads do that under load, whichever is first on the topic."""
    harness = banned(sequence=SECOND)
    ban = harness.event("ban", sequence=90 * SECOND, attack_uuid="a2")
    unban = harness.event("unban", sequence=91 * SECOND)
    for event in (unban, ban) if unban_first else (ban, unban):
        harness.apply(event)
    assert harness.wanted() == [KEY]
    harness.send("unban", sequence=99 * SECOND, attack_uuid="a2")
    assert harness.wanted() == []
    harness.apply(ban)  # a duplicate
    assert harness.wanted() == []


def test_unban_of_another_attack_ends_an_unrenewed_reason() -> None:
    """The later ban is too old to count, so it does not hold the mitigation."""
    harness = banned(sequence=SECOND)
    harness.apply(
        harness.event("ban", sequence=90 * SECOND, attack_uuid="a2", age=86_400)
    )
    harness.send("unban", sequence=91 * SECOND)
    assert harness.wanted() == []


def test_text_mode_names_attacks_by_direction_and_power() -> None:
    harness = MitigatorHarness()

    def event(action: str, second: int, power: int | None) -> HostEvent:
        plain = harness.event(action, sequence=second * SECOND, attack_uuid=None)
        mode = TextMode(direction="incoming", power_pps=power)
        return replace(plain, text_mode=mode)

    harness.apply(event("ban", 1, 3934))
    harness.apply(event("unban", 20, 3934))
    harness.apply(event("ban", 19, 181))
    assert harness.wanted() == [KEY]
    harness.apply(event("unban", 30, 181))
    assert harness.wanted() == []
    harness.apply(event("ban", 29, None))
    assert harness.wanted() == []


def test_unban_read_after_a_later_status_ends_the_attack() -> None:
    """They are on two topics, and a thread with a status update may fork later."""
    harness = banned(sequence=SECOND)
    unban = harness.event("unban", sequence=80 * SECOND)
    harness.send("attack_status", sequence=81 * SECOND)
    harness.apply(unban)
    assert harness.wanted() == []
    harness.send("attack_status", sequence=82 * SECOND)
    assert harness.wanted() == []
    assert harness.reason().sequence == 81 * SECOND


def test_old_unban_of_an_updated_attack_stays_late() -> None:
    harness = banned(sequence=60 * SECOND)
    harness.send("attack_status", sequence=90 * SECOND)
    harness.apply(harness.event("unban", sequence=80 * SECOND))
    assert harness.wanted() == [KEY]


# -- sequences that cannot be true ---------------------------------------------------


@pytest.mark.parametrize("action", ["ban", "attack_status", "unban"])
def test_sequence_ahead_is_refused_and_blocks_nothing(action: str) -> None:
    harness = MitigatorHarness()
    for sequence in (2**53 - 1, sequence_at(harness.now + timedelta(hours=30))):
        forged = replace(
            harness.event(action).receipt, sequence=sequence, received_at=harness.now
        )
        harness.apply(replace(harness.event(action), receipt=forged))
    assert harness.audit_codes("ignored") == ["sequence_ahead"] * 2
    assert harness.state.reasons == {}
    harness.send("ban", sequence=sequence_at(harness.now))
    assert harness.wanted() == [KEY]
    harness.send("unban", sequence=sequence_at(harness.now) + 1)
    assert harness.wanted() == []


def test_sequence_of_a_local_time_clock_counts() -> None:
    """A machine whose clock held local time at the boot is up to 14 hours ahead."""
    harness = MitigatorHarness()
    ahead = harness.now + timedelta(hours=14)
    harness.send("ban", sequence=sequence_at(ahead))
    assert harness.wanted() == [KEY]


def test_sequence_beyond_2_to_53_raises() -> None:
    harness = MitigatorHarness()
    with pytest.raises(InvalidRecord, match=r"receipt\.sequence"):
        harness.send("ban", sequence=2**63 - 1)
    assert harness.state.reasons == {}


# -- status updates ------------------------------------------------------------------


def test_status_of_an_unknown_attack_counts_like_its_ban() -> None:
    harness = MitigatorHarness(policy(rule(match=Match(actions=frozenset({"ban"})))))
    harness.send("attack_status", age=10)
    assert harness.wanted() == [KEY]


def test_status_while_bans_are_unread_opens_nothing() -> None:
    harness = MitigatorHarness()
    harness.apply(harness.event("attack_status"), behind=True)
    assert harness.wanted() == []
    assert harness.audit_codes("ignored") == ["ban_unread"]
    harness.send("attack_status")
    assert harness.wanted() == [KEY]


def test_status_while_bans_are_unread_renews_its_ban() -> None:
    harness = MitigatorHarness(policy(rule(lease=60)), fastnetmon_ban_time=60)
    harness.send("ban")
    harness.wait(50)
    harness.apply(harness.event("attack_status"), behind=True)
    harness.wait(50)
    assert harness.wanted() == [KEY]


@pytest.mark.parametrize("restart", [False, True])
def test_status_after_its_unban_opens_nothing(*, restart: bool) -> None:
    harness = banned()
    harness.send("unban")
    if restart:
        harness.restart()
    harness.send("attack_status")
    assert harness.wanted() == []
    assert harness.audit_codes("ignored") == ["attack_closed"]


def test_status_of_the_attack_before_opens_nothing() -> None:
    harness = banned()
    harness.send("unban")
    harness.send("ban", attack_uuid="a2")
    harness.send("unban", attack_uuid="a2")
    harness.send("attack_status")
    assert harness.wanted() == []
    assert harness.audit_codes("ignored") == ["attack_closed"]


def test_status_of_the_attack_before_an_ignored_ban_opens_nothing() -> None:
    small = rule("small", Match(max_pps=100), action="ignore")
    harness = banned(policy(small, rule("large")), total_incoming_pps=1000)
    harness.send("unban")
    harness.send("ban", attack_uuid="a2", total_incoming_pps=10)
    harness.send("attack_status", total_incoming_pps=1000)
    assert harness.wanted() == []


def test_status_of_another_attack_does_not_replace_an_open_one() -> None:
    harness = banned()
    harness.send("attack_status", attack_uuid="a2")
    assert harness.reason().attack == "a1"
    assert harness.audit_codes("ignored") == ["other_attack"]


def test_status_of_another_attack_starts_once_the_first_expired() -> None:
    harness = MitigatorHarness(policy(rule(lease=60)), fastnetmon_ban_time=60)
    harness.send("ban")
    harness.wait(61)
    harness.send("attack_status", attack_uuid="a2")
    assert harness.wanted() == [KEY]


# -- Flow Spec rules of partial blocks -------------------------------------------------


def test_each_rule_of_a_partial_block_ends_separately() -> None:
    harness = MitigatorHarness(policy(rule(action="flowspec")))
    harness.send("partial_block", rules=(UDP, TCP))
    assert len(harness.wanted()) == 2
    harness.send("partial_unblock", rules=(UDP,))
    [left] = harness.wanted()
    assert "tcp" in left


def test_partly_understood_rule_starts_nothing() -> None:
    harness = MitigatorHarness(policy(rule(action="flowspec")))
    extra = {"/flow_spec_rules/0/dscp": "46"}
    harness.send("partial_block", rules=(UDP,), extra=extra)
    assert harness.wanted() == []
    assert harness.mitigations == {}
    assert harness.audit_codes("refused") == ["rule_not_understood"]


def test_unblock_not_understood_does_not_end_the_ban() -> None:
    harness = banned()
    extra = {"/flow_spec_rules/0/dscp": "46"}
    harness.send("partial_unblock", rules=(FlowSpecRule(),), extra=extra)
    harness.send("partial_unblock")
    assert harness.wanted() == [KEY]


def test_status_renews_rules_of_its_attack_only() -> None:
    harness = MitigatorHarness(
        policy(rule(action="flowspec", lease=60)), fastnetmon_ban_time=60
    )
    harness.send("ban", attack_uuid="a2")
    harness.send("partial_block", rules=(UDP,), attack_uuid="a1")
    harness.wait(40)
    harness.send("attack_status", attack_uuid="a2")
    assert harness.reason(part="r1").renewals == 0
    harness.send("partial_block", rules=(TCP,), attack_uuid="a2")
    harness.wait(10)
    harness.send("attack_status", attack_uuid="a2")
    assert harness.reason(part="r2").renewals == 1


def test_status_after_the_unban_renews_no_rules() -> None:
    harness = banned(policy(rule(action="flowspec")))
    harness.send("partial_block", rules=(UDP,))
    harness.send("unban")
    harness.send("attack_status")
    assert harness.reason(part="r1").renewals == 0


def test_document_with_too_many_rules_is_refused_whole() -> None:
    many = tuple(replace(UDP, uuid=f"r{number}") for number in range(7_000))
    harness = MitigatorHarness(policy(rule(action="flowspec")))
    harness.send("partial_block", rules=many)
    assert harness.wanted() == []
    assert "too_many_measures" in harness.audit_codes("refused")
    assert len(harness.audits) == 1


def test_unblock_with_too_many_rules_ends_the_active_ones() -> None:
    many = tuple(replace(UDP, uuid=f"r{number}") for number in range(7_000))
    harness = MitigatorHarness(policy(rule(action="flowspec")))
    harness.send("partial_block", rules=(many[6_999],))
    assert len(harness.wanted()) == 1
    before = harness.written
    harness.send("partial_unblock", rules=many)
    assert harness.wanted() == []
    assert harness.written - before == 2


# -- targets ---------------------------------------------------------------------------


def test_hostgroup_named_like_an_address_shares_nothing() -> None:
    harness = banned(policy(min_prefix_length_ipv4=24), sequence=5)
    harness.send("ban", HOST, networks=("203.0.113.64/26",), sequence=4)
    assert harness.wanted() == ["blackhole|203.0.113.64/26", KEY]
    harness.send("attack_status", HOST, networks=("203.0.113.64/26",), sequence=6)
    harness.send("unban", HOST, networks=("203.0.113.64/26",), sequence=7)
    assert harness.wanted() == [KEY]


def test_hostgroup_acts_on_its_networks() -> None:
    harness = MitigatorHarness(policy(min_prefix_length_ipv4=24))
    harness.send("ban", "web", networks=("203.0.113.0/26",))
    assert harness.wanted() == ["blackhole|203.0.113.0/26"]
    harness.send("unban", "web", networks=("203.0.113.0/26",))
    assert harness.wanted() == []


def test_unbans_of_unknown_targets_have_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("consumers.mitigator.decisions.start.MAX_REASONS", 3)
    harness = MitigatorHarness()
    for number in range(10):
        harness.send("unban", f"203.0.113.{number}")
    assert len(harness.state.reasons) == 3
    assert len(harness.reasons) == 3


def test_unban_has_no_room_beside_active_reasons(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("consumers.mitigator.decisions.start.MAX_REASONS", 2)
    harness = MitigatorHarness()
    harness.send("ban", "203.0.113.1")
    harness.send("ban", "203.0.113.2")
    ban = harness.event("ban", "203.0.113.3")
    harness.send("unban", "203.0.113.3")
    harness.send("unban", "203.0.113.1")
    harness.apply(ban)
    assert harness.wanted() == ["blackhole|203.0.113.2/32"]


def test_ignored_attack_is_remembered_in_memory_only() -> None:
    harness = MitigatorHarness(policy(rule(action="ignore")))
    ban = harness.send("ban")
    harness.send("unban")
    harness.apply(ban)
    assert harness.written == 0
    assert harness.audit_codes("ignored") == ["rule_ignores", "late"]


def test_attack_that_no_rule_matches_is_reported() -> None:
    harness = banned(policy(rule(match=Match(protocols=frozenset({"tcp"})))))
    assert harness.audit_codes("ignored") == ["no_rule"]


def test_outgoing_attack_needs_a_rule_that_names_it() -> None:
    harness = banned(attack_direction="outgoing")
    assert harness.wanted() == []


def test_hostgroup_without_an_action_in_the_policy_is_refused() -> None:
    harness = banned(policy(rule(action="hostgroup")), host_group="web")
    assert harness.audit_codes("refused") == ["unknown_hostgroup"]


def test_rule_that_leads_to_the_hostgroup_takes_its_action() -> None:
    web = Action(action="firewall")
    harness = MitigatorHarness(
        policy(rule(action="hostgroup"), hostgroups={"web": web})
    )
    harness.send("ban", host_group="web")
    assert harness.wanted() == [f"firewall|{HOST}/32"]
