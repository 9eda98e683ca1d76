"""What events change in the wanted state."""

from ipaddress import ip_network

import pytest
from msgspec.structs import replace
from services.court import HOST, KEY, Court, policy, rule

from consumers.policy.model import Action, Match
from consumers.mitigator.turn import Terms
from fnm_bus.event import FlowSpecRule, HostEvent, TextMode


def test_a_ban_is_wanted_and_its_unban_ends_it() -> None:
    court = Court()
    court.tell("ban")
    assert court.wanted() == [KEY]
    court.tell("unban")
    assert court.wanted() == []
    assert court.of().state == "ended"
    assert court.of().cause == "unban by fnm1"


def test_a_decision_carries_the_rules_name_and_every_check() -> None:
    never = rule("never", Match(protocols=frozenset({"udp"})))
    court = Court(policy(never, rule("rest")))
    court.tell("ban", attack_protocol="tcp")
    [audit] = court.audits
    assert audit.rule == "rest"
    found = {it.name: it.verdict for it in audit.checks}
    assert found["never"] in {"no-match", "pass"}
    assert found["rest"] == "match"
    assert {"fresh", "own", "width", "total", "share"} <= found.keys()
    assert court.of().reasons[0].rule == "rest"


def test_an_unban_that_overtakes_its_ban_keeps_it_from_starting() -> None:
    court = Court()
    ban = court.event("ban", sequence=10)
    court.tell("unban", sequence=20)
    court.judge(ban)
    assert court.wanted() == []


def test_an_unban_that_overtook_is_remembered_by_the_next_mitigator() -> None:
    court = Court()
    ban = court.event("ban", sequence=10)
    court.tell("unban", sequence=20)
    court.restart()
    court.judge(ban)
    assert court.wanted() == []


def test_a_ban_right_after_an_unban_stands_whichever_comes_first() -> None:
    court = Court()
    court.tell("ban", sequence=1)
    unban = court.event("unban", sequence=2)
    court.tell("ban", sequence=3, attack_uuid="a2")
    court.judge(unban)
    assert court.wanted() == [KEY]
    assert [it.attack_uuid for it in court.of().reasons] == ["a2"]


SECOND = 100 << 14
"""Of sequences."""


@pytest.mark.parametrize("unban_first", [True, False])
def test_an_unban_that_forked_after_the_next_ban_does_not_end_it(
    *, unban_first: bool
) -> None:
    """As FastNetMon's threads do it under load, whichever is first on the topic."""
    court = Court()
    court.tell("ban", sequence=SECOND)
    ban = court.event("ban", sequence=90 * SECOND, attack_uuid="a2")
    unban = court.event("unban", sequence=91 * SECOND)
    for event in (unban, ban) if unban_first else (ban, unban):
        court.judge(event)
    assert court.wanted() == [KEY]
    court.tell("unban", sequence=99 * SECOND, attack_uuid="a2")
    assert court.wanted() == []
    court.judge(ban)  # a duplicate
    assert court.wanted() == []


@pytest.mark.parametrize("unban_first", [True, False])
@pytest.mark.parametrize(
    ("attack", "apart"), [("a1", 1), ("a2", 6), (None, 1)], ids=str
)
def test_sequences_are_believed_unless_both_name_their_attacks_and_are_close(
    attack: str | None, apart: int, *, unban_first: bool
) -> None:
    court = Court()
    ban = court.event("ban", sequence=90 * SECOND)
    unban = court.event("unban", sequence=(90 + apart) * SECOND, attack_uuid=attack)
    for event in (unban, ban) if unban_first else (ban, unban):
        court.judge(event)
    assert court.wanted() == []


def test_an_unban_of_another_attack_ends_what_no_later_ban_has_renewed() -> None:
    """The later ban is too old to count, so it is not why anything stands."""
    court = Court()
    court.tell("ban", sequence=SECOND)
    court.judge(court.event("ban", sequence=90 * SECOND, attack_uuid="a2", age=86_400))
    court.tell("unban", sequence=91 * SECOND)
    assert court.wanted() == []


def test_in_text_mode_direction_and_power_name_the_attack() -> None:
    court = Court()

    def event(action: str, second: int, power: int | None) -> HostEvent:
        plain = court.event(action, sequence=second * SECOND, attack_uuid=None)
        mode = TextMode(direction="incoming", power_pps=power)
        return replace(plain, text_mode=mode)

    court.judge(event("ban", 1, 3934))
    court.judge(event("unban", 20, 3934))
    court.judge(event("ban", 19, 181))
    assert court.wanted() == [KEY]
    court.judge(event("unban", 30, 181))
    assert court.wanted() == []
    court.judge(event("ban", 29, None))
    assert court.wanted() == []


def test_a_late_status_does_not_bring_an_ended_mitigation_back() -> None:
    court = Court()
    court.tell("ban", sequence=1)
    status = court.event("attack_status", sequence=2)
    court.tell("unban", sequence=3)
    court.judge(status)
    assert court.wanted() == []
    court.restart()
    court.judge(status)
    assert court.wanted() == []


def test_a_document_released_a_day_later_starts_nothing() -> None:
    court = Court()
    ban = court.event("ban", sequence=1)
    court.wait(86_400)
    court.judge(ban)
    assert court.wanted() == []
    assert "86400 s old" in court.told("ignored")[0]


def test_duplicates_change_nothing() -> None:
    court = Court()
    ban = court.event("ban")
    court.judge(ban)
    before = list(court.records)
    court.judge(ban)
    assert court.records == before


def test_a_target_stays_blocked_while_one_of_two_sensors_says_so() -> None:
    court = Court()
    court.tell("ban", sensor="fnm1")
    court.tell("ban", sensor="fnm2")
    court.tell("unban", sensor="fnm1")
    assert court.wanted() == [KEY]
    court.tell("unban", sensor="fnm2")
    assert court.wanted() == []


def test_sequences_of_two_sensors_do_not_compare() -> None:
    court = Court()
    court.tell("ban", sensor="fnm1", sequence=1000)
    court.tell("ban", sensor="fnm2", sequence=5, target="203.0.113.8")
    assert len(court.wanted()) == 2


def test_status_updates_renew_and_without_them_the_lease_runs_out() -> None:
    court = Court(policy(rule(lease=900)))
    court.tell("ban")
    court.tell("attack_status")
    for _ in range(200):
        court.wait(20)
        court.tell("attack_status")
    assert court.wanted() == [KEY]
    court.wait(901)
    assert court.wanted() == []
    assert court.of().state == "ended"
    assert "lease ran out" in court.told("ended")[0]


def test_renewals_are_written_at_a_third_of_the_lease() -> None:
    court = Court(policy(rule(lease=900)))
    court.tell("ban")
    court.tell("attack_status")
    before = len(court.records)
    for _ in range(45):  # 900 s
        court.wait(20)
        court.tell("attack_status")
    assert len(court.records) - before == 3


def test_without_any_status_a_lease_is_at_least_the_ban_time() -> None:
    court = Court(policy(rule(lease=60)), ban_time=1900)
    court.tell("ban")
    assert court.of().lease_ms == 1_900_000
    court.tell("attack_status")
    assert court.of().lease_ms == 60_000


def test_a_sensor_that_sends_status_updates_is_known_after_a_restart() -> None:
    court = Court(policy(rule(lease=60)), ban_time=1900)
    court.tell("ban")
    court.tell("attack_status")
    court.restart()
    court.tell("ban", "203.0.113.8")
    assert court.of("blackhole|203.0.113.8/32").lease_ms == 60_000


def test_a_fresh_status_counts_like_its_ban() -> None:
    court = Court()
    court.tell("attack_status", age=10)
    assert court.wanted() == [KEY]


def test_a_stale_status_starts_nothing() -> None:
    court = Court()
    court.tell("attack_status", age=301)
    assert court.wanted() == []


def test_an_unban_however_old_is_never_refused() -> None:
    court = Court()
    court.tell("ban")
    court.tell("unban", age=100_000)
    assert court.wanted() == []


def test_an_event_from_the_future_starts_nothing() -> None:
    court = Court()
    court.tell("ban", age=-61)
    assert court.wanted() == []
    assert "set the clock" in court.told("ignored")[0]


def test_a_status_whose_lease_ran_out_starts_it_again() -> None:
    court = Court(policy(rule(lease=60)))
    court.tell("attack_status")
    court.wait(61)
    assert court.wanted() == []
    court.tell("attack_status")
    assert court.wanted() == [KEY]


def test_rules_of_a_partial_block_live_and_end_on_their_own() -> None:
    one = FlowSpecRule(uuid="r1", destination_prefix=f"{HOST}/32", protocols=("udp",))
    two = FlowSpecRule(uuid="r2", destination_prefix=f"{HOST}/32", protocols=("tcp",))
    court = Court(policy(rule(outcome="flowspec")))
    court.tell("partial_block", rules=(one, two))
    assert len(court.wanted()) == 2
    court.tell("partial_unblock", rules=(one,))
    assert len(court.wanted()) == 1
    assert "tcp" in court.wanted()[0]


def test_a_rule_that_is_not_wholly_understood_is_not_acted_on() -> None:
    odd = FlowSpecRule(destination_prefix=f"{HOST}/32")
    court = Court(policy(rule(outcome="flowspec")))
    court.tell("partial_block", rules=(odd,), extra={"/flow_spec_rules/0/dscp": "46"})
    assert court.wanted() == [] or all("dscp" not in it for it in court.wanted())


def test_a_hostgroup_acts_on_its_networks() -> None:
    court = Court(policy(rule(), widest4=24))
    court.tell("ban", "customers", networks=("203.0.113.0/26",))
    assert court.wanted() == ["blackhole|203.0.113.0/26"]
    court.tell("unban", "customers", networks=("203.0.113.0/26",))
    assert court.wanted() == []


def test_at_a_cap_the_hostgroups_action_takes_over() -> None:
    group = Action(outcome="firewall", prefixes=(ip_network("203.0.113.0/24"),))
    court = Court(
        policy(rule(at_cap="group"), groups={"web": group}, total=2, widest4=24)
    )
    for number in range(4):
        court.tell("ban", f"203.0.113.{number}", host_group="web")
    assert court.wanted() == [
        "blackhole|203.0.113.0/32",
        "blackhole|203.0.113.1/32",
        "firewall|203.0.113.0/24",
    ]
    court.tell("unban", "203.0.113.2", host_group="web")
    assert "firewall|203.0.113.0/24" in court.wanted()
    court.tell("unban", "203.0.113.3", host_group="web")
    assert "firewall|203.0.113.0/24" not in court.wanted()


def test_at_a_cap_without_a_group_it_is_held_for_approval() -> None:
    court = Court(policy(rule(), total=1))
    court.tell("ban", "203.0.113.1")
    court.tell("ban", "203.0.113.2")
    assert court.of("blackhole|203.0.113.2/32").state == "proposed"
    assert "total: 1 of 1 in use" in court.of("blackhole|203.0.113.2/32").cause
    court.order("approve", "blackhole|203.0.113.2/32")
    assert len(court.wanted()) == 2


def test_a_new_policy_ends_what_its_guardrails_refuse() -> None:
    court = Court()
    court.tell("ban")
    court.restart(policy(rule(), never=(ip_network(f"{HOST}/32"),)))
    assert court.wanted() == []


def test_a_ban_that_is_decided_anew_moves_to_the_new_measure() -> None:
    small = rule("small", Match(max_pps=100), outcome="notify")
    court = Court(policy(small, rule("large")))
    court.tell("ban", total_incoming_pps=10)
    assert court.wanted() == [f"notify|{HOST}/32"]
    court.tell("ban", total_incoming_pps=1000)
    assert court.wanted() == [KEY]


def test_the_end_is_forgotten_when_nothing_older_can_arrive() -> None:
    court = Court()
    court.tell("ban")
    court.tell("unban")
    court.wait(86_401)
    assert dict(court.records)[KEY] is None
    assert court.state.mitigations == {}


def test_words_that_fastnetmon_may_add_change_nothing() -> None:
    court = Court()
    court.tell("attack_details")
    court.tell("somersault")
    assert court.records == []


def test_a_status_of_another_attack_counts_like_its_ban() -> None:
    court = Court()
    court.tell("ban")
    court.order("end", KEY)
    court.tell("attack_status", attack_uuid="a2")
    assert court.wanted() == [KEY]


def test_a_rule_about_bans_decides_about_a_status_whose_ban_was_missed() -> None:
    court = Court(policy(rule(match=Match(actions=frozenset({"ban"})))))
    court.tell("attack_status")
    assert court.wanted() == [KEY]


def test_the_direction_that_replaced_attack_direction_counts_first() -> None:
    court = Court(policy(rule(outcome="flowspec")))
    court.tell("ban", attack_detection_threshold_direction="outgoing")
    assert court.wanted() == ['flowspec|{"source_prefix":"203.0.113.7/32"}']


def test_the_protocol_is_taken_from_the_threshold_when_nothing_else_says_it() -> None:
    court = Court(policy(rule(outcome="flowspec")))
    court.tell("ban", attack_detection_threshold="udp bytes per second")
    assert '"protocols":["udp"]' in court.wanted()[0]


def test_a_hostgroup_of_which_no_status_comes_holds_for_the_ban_time() -> None:
    court = Court(policy(rule(lease=60), widest4=24), ban_time=1900)
    court.tell("attack_status")
    court.tell("ban", "web", networks=("203.0.113.0/26",))
    assert court.of("blackhole|203.0.113.0/26").lease_ms == 1_900_000


def test_a_mitigator_that_starts_in_dry_run_ends_what_was_live() -> None:
    court = Court()
    court.tell("ban")
    court.terms = Terms(court.terms.policy, dry_run=True)
    court.restart()
    assert court.wanted() == []
    assert "dry run" in court.of().cause
