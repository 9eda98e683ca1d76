"""Which mitigation follows from reasons of several kinds and people's decisions."""

from ipaddress import ip_network

import pytest
from support.mitigator_harness import HOST, KEY, MitigatorHarness, banned, policy, rule

from consumers.policy.model import Match, Rule
from fnm_bus.event import FlowThen

FLOW = f'flowspec|{{"destination_prefix":"{HOST}/32","protocols":["udp"]}}'
DISCARD = FlowThen(action="discard")
SLOW = FlowThen(action="rate-limit", rate=1_000)
FAST = FlowThen(action="rate-limit", rate=9_000)


def rule_for(sensor: str, **action: object) -> Rule:
    return rule(f"rule {sensor}", Match(sensors=frozenset({sensor})), **action)


def flow_rule_for(sensor: str, then: FlowThen, **fields: object) -> Rule:
    return rule_for(sensor, action="flowspec", flowspec_action=then, **fields)


def mitigator(*rules: Rule, **fields: float) -> MitigatorHarness:
    return MitigatorHarness(policy(*rules), **fields)


# -- live and dry run ------------------------------------------------------------------


@pytest.mark.parametrize("trial_first", [True, False])
def test_trial_rule_does_not_touch_a_live_measure(*, trial_first: bool) -> None:
    harness = mitigator(rule_for("trial", dry_run=True), rule_for("live"))
    sensors = ["trial", "live"] if trial_first else ["live", "trial"]
    for sensor in sensors:
        harness.send("ban", sensor=sensor)
    record = harness.mitigation()
    assert harness.wanted() == [KEY]
    assert (record.live_reasons, record.dry_reasons) == (1, 1)
    harness.send("unban", sensor="trial")
    assert harness.wanted() == [KEY]


def test_dry_run_alone_is_not_in_force() -> None:
    harness = mitigator(rule_for("trial", dry_run=True), rule_for("live"))
    harness.send("ban", sensor="trial")
    assert harness.wanted() == []
    assert harness.mitigation().state == "wanted"
    harness.send("ban", sensor="live")
    assert harness.wanted() == [KEY]
    harness.send("unban", sensor="live")
    assert harness.wanted() == []
    assert harness.mitigation().dry_run
    harness.send("unban", sensor="trial")
    assert harness.mitigation().state == "ended"


def test_dry_run_that_becomes_live_is_a_start() -> None:
    harness = MitigatorHarness(
        policy(rule_for("trial", dry_run=True), rule_for("live"), max_active=1)
    )
    harness.send("ban", "203.0.113.9", sensor="live")
    harness.send("ban", sensor="trial")
    harness.send("ban", sensor="live")
    assert harness.mitigation().state == "proposed"
    assert harness.mitigation().held_by == ("max_active",)


def test_whole_mitigator_in_dry_run_wants_nothing_in_force() -> None:
    harness = MitigatorHarness(dry_run=True)
    harness.send("ban")
    assert harness.mitigation().dry_run
    assert harness.wanted() == []


# -- actions and communities -----------------------------------------------------------


def test_rate_limit_never_becomes_discard_unasked() -> None:
    harness = mitigator(
        flow_rule_for("a", SLOW), flow_rule_for("b", DISCARD, approval=True)
    )
    harness.send("ban", sensor="a")
    harness.send("ban", sensor="b")
    record = harness.mitigation(FLOW)
    assert (record.state, record.then) == ("wanted", SLOW)
    assert record.pending is not None
    assert record.pending.then == DISCARD
    harness.restart()
    harness.send("attack_status", sensor="b")
    assert harness.mitigation(FLOW).then == SLOW
    harness.command("approve", FLOW)
    assert harness.mitigation(FLOW).then == DISCARD


def test_dry_discard_does_not_strengthen_a_live_rate_limit() -> None:
    harness = mitigator(
        flow_rule_for("a", SLOW), flow_rule_for("b", DISCARD, dry_run=True)
    )
    harness.send("ban", sensor="a")
    harness.send("ban", sensor="b")
    assert harness.mitigation(FLOW).then == SLOW


@pytest.mark.parametrize("weak_first", [True, False])
def test_strongest_live_action_wins_and_the_weaker_shows(*, weak_first: bool) -> None:
    harness = mitigator(flow_rule_for("a", FAST), flow_rule_for("b", SLOW))
    for sensor in "ab" if weak_first else "ba":
        harness.send("ban", sensor=sensor)
    record = harness.mitigation(FLOW)
    assert record.then == SLOW
    assert record.conflicts == ("rate-limit 9000 bytes/s (1)",)
    harness.send("unban", sensor="b")
    assert harness.mitigation(FLOW).then == FAST
    assert harness.mitigation(FLOW).conflicts == ()


def test_communities_are_of_the_active_reasons_alone() -> None:
    harness = mitigator(
        rule_for("a", communities=("1:1",)), rule_for("b", communities=("1:2",))
    )
    harness.send("ban", sensor="a")
    harness.send("ban", sensor="b")
    assert harness.mitigation().communities == ("1:1", "1:2")
    harness.send("unban", sensor="a")
    assert harness.mitigation().communities == ("1:2",)


def test_approved_communities_end_with_their_reason() -> None:
    harness = mitigator(
        rule_for("a", communities=("1:1",), approval=True),
        rule_for("b", communities=("1:2",)),
    )
    harness.send("ban", sensor="b")
    harness.send("ban", sensor="a")
    harness.command("approve", KEY)
    assert harness.mitigation().communities == ("1:1", "1:2")
    harness.send("unban", sensor="b")
    assert harness.mitigation().communities == ("1:1",)


def test_long_lease_of_a_weak_action_keeps_no_strong_one() -> None:
    harness = mitigator(
        flow_rule_for("a", FAST, lease=900),
        flow_rule_for("b", SLOW, lease=60),
        fastnetmon_ban_time=0,
    )
    harness.send("ban", sensor="a")
    harness.send("ban", sensor="b")
    assert harness.lease_left(FLOW) == 60
    harness.run(57)
    assert harness.mitigation(FLOW).then == SLOW
    harness.run(2)
    assert harness.mitigation(FLOW).then == FAST
    assert harness.wanted() == [FLOW]
    assert harness.lease_left(FLOW) > 800


def test_weaker_effect_is_written_before_the_stronger_lease_ends() -> None:
    harness = mitigator(
        flow_rule_for("a", FAST, lease=900),
        flow_rule_for("b", SLOW, lease=60),
        fastnetmon_ban_time=0,
    )
    harness.send("ban", sensor="a")
    harness.send("ban", sensor="b")
    for _ in range(120):
        harness.run(1)
        assert harness.wanted() == [FLOW]


# -- approval --------------------------------------------------------------------------


def test_rule_with_approval_proposes_and_approval_starts() -> None:
    harness = mitigator(rule(approval=True))
    harness.send("ban")
    assert harness.wanted() == []
    assert harness.mitigation().held_by == ("approval",)
    harness.command("approve", KEY)
    assert harness.wanted() == [KEY]
    assert harness.mitigation().by == "alice"


def test_approval_only_reason_beside_a_live_one_changes_nothing() -> None:
    harness = mitigator(
        rule_for("a", communities=("1:1",), approval=True), rule_for("b")
    )
    harness.send("ban", sensor="b")
    harness.send("ban", sensor="a")
    record = harness.mitigation()
    assert (record.state, record.communities) == ("wanted", ())
    assert record.pending is not None
    assert record.pending.communities == ("1:1",)
    assert (record.live_reasons, record.pending_reasons) == (1, 1)


def test_approval_reason_alone_takes_it_out_of_force() -> None:
    harness = mitigator(rule_for("a", approval=True), rule_for("b"))
    harness.send("ban", sensor="b")
    harness.send("ban", sensor="a")
    harness.send("unban", sensor="b")
    assert harness.mitigation().state == "proposed"
    assert harness.wanted() == []


def test_approval_covers_the_next_equal_reason() -> None:
    harness = mitigator(rule(approval=True))
    harness.send("ban", sensor="a")
    harness.command("approve", KEY)
    harness.send("ban", sensor="b")
    harness.send("unban", sensor="a")
    assert harness.wanted() == [KEY]
    assert harness.mitigation().pending is None


def test_approval_does_not_cover_a_stronger_action() -> None:
    harness = mitigator(
        flow_rule_for("a", SLOW, approval=True),
        flow_rule_for("b", DISCARD, approval=True),
    )
    harness.send("ban", sensor="a")
    harness.command("approve", FLOW)
    harness.send("ban", sensor="b")
    record = harness.mitigation(FLOW)
    assert (record.state, record.then) == ("wanted", SLOW)
    assert record.pending is not None
    assert record.pending.then == DISCARD


def test_approval_ends_with_the_mitigation() -> None:
    harness = mitigator(rule(approval=True))
    harness.send("ban")
    harness.command("approve", KEY)
    harness.send("unban")
    harness.send("ban", attack_uuid="a2")
    assert harness.wanted() == []
    assert harness.mitigation().approved is None


def test_approval_lasts_over_a_takeover() -> None:
    harness = mitigator(rule(approval=True))
    harness.send("ban")
    harness.command("approve", KEY)
    harness.restart()
    harness.send("attack_status")
    assert harness.wanted() == [KEY]


# -- suppression -----------------------------------------------------------------------


def test_withdrawn_measure_stays_so_for_the_second_sensor() -> None:
    harness = banned(sensor="a")
    harness.command("withdraw", KEY)
    assert harness.mitigation().state == "suppressed"
    harness.send("ban", sensor="b")
    harness.send("attack_status", sensor="a")
    harness.restart()
    harness.send("attack_status", sensor="b")
    harness.send("ban", sensor="a", attack_uuid="a2")
    assert harness.wanted() == []
    assert harness.mitigation().state == "suppressed"


def test_withdrawn_group_measure_stays_so_for_the_next_host() -> None:
    group = ip_network("203.0.113.0/24")
    harness = mitigator(rule(prefixes=(group,)))
    key = f"blackhole|{group}"
    harness.send("ban", "203.0.113.1")
    harness.command("withdraw", key)
    for number in range(2, 20):
        harness.send("ban", f"203.0.113.{number}")
    harness.send("unban", "203.0.113.1")
    assert harness.wanted() == []
    assert harness.mitigation(key).state == "suppressed"


def test_suppression_lasts_one_lease_after_an_unban() -> None:
    harness = banned(policy(rule(lease=900)))
    harness.send("attack_status")
    harness.command("withdraw", KEY)
    harness.wait(100)
    harness.send("unban")
    harness.run(890)
    assert harness.mitigation().state == "suppressed"
    harness.run(20)
    assert harness.mitigation().state == "ended"
    harness.send("ban", attack_uuid="a2")
    assert harness.wanted() == [KEY]


def test_suppression_lasts_one_lease_after_the_last_lease() -> None:
    harness = MitigatorHarness(policy(rule(lease=600)), fastnetmon_ban_time=600)
    harness.send("ban")
    harness.command("withdraw", KEY)
    harness.run(300)
    harness.send("attack_status")
    harness.restart()
    harness.run(1_190)
    assert harness.mitigation().state == "suppressed"
    harness.run(20)
    assert harness.mitigation().state == "ended"


def test_suppression_goes_on_while_reasons_come_back() -> None:
    harness = MitigatorHarness(policy(rule(lease=60)), fastnetmon_ban_time=60)
    harness.send("ban")
    harness.command("withdraw", KEY)
    for number in range(50):
        harness.run(50)
        harness.send("unban")
        harness.run(50)
        harness.send("ban", attack_uuid=f"b{number}")
    assert harness.mitigation().state == "suppressed"


def test_rejected_measure_stays_so_while_its_attack_goes_on() -> None:
    harness = mitigator(rule(approval=True))
    harness.send("ban")
    harness.command("reject", KEY)
    harness.send("attack_status")
    harness.send("ban", sensor="b")
    assert harness.mitigation().state == "suppressed"


@pytest.mark.parametrize("verb", ["approve", "add"])
def test_approve_and_add_lift_a_suppression(verb: str) -> None:
    harness = banned()
    harness.command("withdraw", KEY)
    if verb == "approve":
        harness.command("approve", KEY)
    else:
        harness.command("add", kind="blackhole", prefix=f"{HOST}/32")
    assert harness.wanted() == [KEY]
    harness.send("attack_status")
    assert harness.wanted() == [KEY]
