"""Operator commands and their results."""

from dataclasses import replace
from ipaddress import ip_network

import msgspec
import pytest
from support.mitigator_harness import HOST, KEY, MitigatorHarness, banned, policy, rule

from consumers.policy.model import Action, Match, Rule
from fnm_bus.event import FlowMatch, FlowThen

DISCARD = FlowThen(action="discard")


def proposing() -> MitigatorHarness:
    return banned(policy(rule(approval=True)))


# -- approve and reject ----------------------------------------------------------------


@pytest.mark.parametrize("revision", [None, 0, 2, 99])
def test_approval_of_another_revision_is_refused(revision: int | None) -> None:
    harness = proposing()
    assert harness.mitigation().revision == 1
    answer = harness.command("approve", KEY, revision=revision)
    assert (answer.action, answer.code) == ("refused", "revision")
    assert harness.wanted() == []


def test_approval_of_an_old_revision_is_refused() -> None:
    def rate_limit_rule(name: str, rate: int) -> Rule:
        return rule(
            name,
            Match(sensors=frozenset({name})),
            action="flowspec",
            flowspec_action=FlowThen(action="rate-limit", rate=rate),
            approval=True,
        )

    harness = MitigatorHarness(
        policy(rate_limit_rule("a", 900), rate_limit_rule("b", 100))
    )
    harness.send("ban", sensor="a")
    [key] = harness.mitigations
    seen = harness.mitigation(key).revision
    harness.send("ban", sensor="b")
    answer = harness.command("approve", key, revision=seen)
    assert answer.code == "revision"
    assert harness.wanted() == []
    harness.command("approve", key)
    assert harness.mitigation(key).then == FlowThen(action="rate-limit", rate=100)


def test_renewals_keep_the_revision() -> None:
    harness = proposing()
    seen = harness.mitigation().revision
    for _ in range(50):
        harness.wait(20)
        harness.send("attack_status")
    harness.command("approve", KEY, revision=seen)
    assert harness.wanted() == [KEY]


def test_approval_starts_beyond_a_limit() -> None:
    harness = MitigatorHarness(policy(max_active=1))
    harness.send("ban", "203.0.113.1")
    harness.send("ban")
    assert harness.mitigation().held_by == ("max_active",)
    answer = harness.command("approve", KEY)
    assert answer.action == "approved"
    assert len(harness.wanted()) == 2


def test_approval_of_a_mitigation_in_force_is_refused() -> None:
    harness = banned()
    assert harness.command("approve", KEY).code == "state"


def test_approval_of_a_refused_measure_is_refused() -> None:
    harness = proposing()
    forbidden = policy(protected_prefixes=(ip_network(f"{HOST}/32"),))
    harness.context = replace(harness.context, policy=forbidden)
    answer = harness.command("approve", KEY)
    assert (answer.action, answer.code) == ("refused", "protected_prefixes")
    assert harness.wanted() == []


@pytest.mark.parametrize("named_first", [True, False])
def test_approval_allows_prefixes_that_any_reason_names(*, named_first: bool) -> None:
    wide = ip_network("203.0.113.0/26")
    named = rule(
        "named", Match(sensors=frozenset({"named"})), prefixes=(wide,), approval=True
    )
    other = rule("other", action="hostgroup", approval=True)
    used_policy = policy(
        named,
        other,
        hostgroups={"web": Action(action="blackhole", approval=True)},
        min_prefix_length_ipv4=26,
    )
    harness = MitigatorHarness(used_policy)
    steps = [
        lambda: harness.send("ban", sensor="named"),
        lambda: harness.send("ban", "web", networks=(str(wide),), sensor="plain"),
    ]
    for step in steps if named_first else reversed(steps):
        step()
    key = f"blackhole|{wide}"
    assert harness.mitigation(key).pending_reasons == 2
    narrow = replace(used_policy.limits, min_prefix_length_ipv4=32)
    harness.context = replace(
        harness.context, policy=replace(used_policy, limits=narrow)
    )
    assert harness.command("approve", key).action == "approved"


def test_rejected_proposal_cannot_start_by_itself() -> None:
    harness = MitigatorHarness(policy(max_active=1))
    harness.send("ban", "203.0.113.1")
    harness.send("ban")
    assert harness.command("reject", KEY).action == "suppressed"
    harness.send("unban", "203.0.113.1")
    harness.run(5)
    assert harness.wanted() == []


def test_reject_of_a_mitigation_in_force_is_refused() -> None:
    harness = banned()
    assert harness.command("reject", KEY).code == "state"
    assert harness.wanted() == [KEY]


# -- withdraw --------------------------------------------------------------------------


def test_withdraw_of_the_mitigation_before_does_not_end_the_next() -> None:
    harness = banned()
    harness.send("unban")
    harness.wait(30)
    harness.send("ban", attack_uuid="a2")
    answer = harness.command("withdraw", KEY, age=20)
    assert (answer.action, answer.code) == ("refused", "too_old")
    assert harness.wanted() == [KEY]
    harness.command("withdraw", KEY)
    assert harness.wanted() == []


def test_old_withdraw_ends_a_mitigation_in_force_when_sent() -> None:
    harness = banned(policy(rule(lease=3_600)))
    harness.wait(600)
    harness.command("withdraw", KEY, age=590)
    assert harness.wanted() == []


def test_withdraw_ends_a_persons_own_measure() -> None:
    harness = MitigatorHarness()
    harness.command("add", kind="blackhole", prefix=f"{HOST}/32")
    answer = harness.command("withdraw", KEY)
    assert answer.action == "ended"
    record = harness.mitigation()
    assert (record.state, record.ended_because) == ("ended", "operator")
    harness.restart()
    assert harness.wanted() == []


def test_withdraw_of_own_measure_beside_an_attack_suppresses() -> None:
    harness = MitigatorHarness()
    harness.command("add", kind="blackhole", prefix=f"{HOST}/32")
    harness.send("ban")
    harness.command("withdraw", KEY)
    assert harness.mitigation().state == "suppressed"
    assert len(harness.reasons) == 1


def test_withdrawn_measure_stays_so_through_pause_and_resume() -> None:
    harness = banned()
    harness.command("withdraw", KEY)
    harness.command("pause")
    harness.command("resume")
    harness.send("attack_status")
    assert harness.wanted() == []


# -- add -------------------------------------------------------------------------------


def test_added_measure_lasts_its_lease() -> None:
    harness = MitigatorHarness()
    answer = harness.command(
        "add", kind="blackhole", prefix=f"{HOST}/32", lease_ms=60_000
    )
    assert answer.action == "wanted"
    assert harness.wanted() == [KEY]
    assert harness.mitigation().cause == "added by alice: a test"
    harness.wait(59)
    assert harness.wanted() == [KEY]
    harness.wait(2)
    assert harness.wanted() == []


def test_unban_does_not_end_an_added_measure() -> None:
    harness = MitigatorHarness()
    harness.command("add", kind="blackhole", prefix=f"{HOST}/32")
    harness.send("ban")
    harness.send("unban")
    assert harness.wanted() == [KEY]
    harness.restart(policy(digest="p2"))
    assert harness.wanted() == [KEY]


def test_added_measure_holds_where_limits_hold() -> None:
    harness = MitigatorHarness(policy(max_active=1))
    harness.send("ban", "203.0.113.1")
    answer = harness.command("add", kind="blackhole", prefix=f"{HOST}/32")
    assert answer.action == "proposed"
    assert "max_active" in answer.text


def test_refused_add_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.mitigator.state.recompute.MAX_PROPOSALS", 0)
    harness = MitigatorHarness(policy(max_active=1))
    harness.send("ban", "203.0.113.1")
    answer = harness.command("add", kind="blackhole", prefix=f"{HOST}/32")
    assert (answer.action, answer.code) == ("refused", "too_many_proposals")
    harness.send("unban", "203.0.113.1")
    harness.restart()
    harness.run(5)
    assert harness.wanted() == []
    assert all(name.scope != "operator" for name in harness.reasons)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "kind: expected"),
        ({"kind": "blackhole"}, "prefix: expected a network"),
        ({"kind": "blackhole", "prefix": "203.0.113.7"}, "203.0.113.7/32"),
        ({"kind": "blackhole", "prefix": "7"}, "7"),
        ({"kind": "blackhole", "prefix": "203.0.113.7/24"}, "host bits"),
        ({"kind": "blackhole", "prefix": "198.51.100.1/32"}, "not within your own"),
        ({"kind": "blackhole", "prefix": "0.0.0.0/0"}, "any address"),
        ({"kind": "flowspec", "prefix": "203.0.113.7/32"}, "flow, then: expected"),
        ({"kind": "flowspec", "flow": FlowMatch(), "then": DISCARD}, "prefix"),
        (
            {
                "kind": "flowspec",
                "flow": FlowMatch(
                    destination_prefix=f"{HOST}/32",
                    destination_ports=tuple(range(65_000)),
                ),
                "then": DISCARD,
            },
            "values, allowed are",
        ),
        ({"kind": "blackhole", "prefix": f"{HOST}/32", "lease_ms": 10**9}, "86400 s"),
        ({"kind": "blackhole", "prefix": f"{HOST}/32", "lease_ms": 10}, "expected 5 s"),
        (
            {"kind": "blackhole", "prefix": f"{HOST}/32", "place": "exabpg"},
            "place: expected",
        ),
        (
            {"kind": "blackhole", "prefix": f"{HOST}/32", "place": "x" * 600_000},
            "place: expected",
        ),
    ],
)
def test_add_that_is_not_valid_is_refused(fields: dict[str, object], text: str) -> None:
    harness = MitigatorHarness()
    answer = harness.command("add", **fields)
    assert answer.action == "refused"
    assert text in answer.text
    assert harness.written == 0
    assert len(msgspec.json.encode(answer)) < 8_000


def test_added_measure_of_one_enforcer_has_a_place() -> None:
    harness = MitigatorHarness()
    harness.command("add", kind="blackhole", prefix=f"{HOST}/32", place="exabgp")
    assert harness.wanted() == [f"{KEY}|exabgp"]
    harness.command("withdraw", f"{KEY}|exabgp")
    assert harness.wanted() == []


# -- pause and resume ------------------------------------------------------------------


def test_pause_masks_everything_and_resume_brings_it_back() -> None:
    harness = MitigatorHarness()
    for number in range(5):
        harness.send("ban", f"203.0.113.{number}")
    harness.command("add", kind="firewall", prefix=f"{HOST}/32")
    before = harness.wanted()
    harness.command("pause")
    assert harness.wanted() == []
    assert harness.state.paused
    harness.send("ban", "203.0.113.99")
    harness.send("unban", "203.0.113.1")
    harness.restart()
    assert harness.wanted() == []
    harness.command("resume")
    expected = {*before, "blackhole|203.0.113.99/32"} - {"blackhole|203.0.113.1/32"}
    assert harness.wanted() == sorted(expected)


def test_leases_run_on_while_paused() -> None:
    harness = banned()
    harness.command("pause")
    harness.wait(1_901)
    harness.command("resume")
    assert harness.wanted() == []


def test_pause_record_carries_the_offset_of_its_command() -> None:
    harness = banned()
    harness.command("pause")
    assert harness.mitigation("pause").command_offset == 1
    harness.command("resume")
    assert harness.mitigation("pause").command_offset == 2


# -- answers ---------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["approve", "reject", "withdraw"])
@pytest.mark.parametrize("key", ["blackhole|203.0.113.9/32", "pause", None])
def test_command_without_a_mitigation_is_refused(verb: str, key: str | None) -> None:
    harness = MitigatorHarness()
    harness.command("pause")
    answer = harness.command(verb, key, revision=1)
    assert (answer.action, answer.code) == ("refused", "unknown_key")


def test_unknown_verb_is_refused() -> None:
    answer = MitigatorHarness().command("explode")
    assert answer.code == "unknown_verb"
    assert "verb: expected approve" in answer.text


def test_command_without_a_name_is_refused() -> None:
    harness = MitigatorHarness()
    assert harness.command("pause", by="").code == "no_name"
    assert not harness.state.paused


@pytest.mark.parametrize("field", ["by", "comment"])
def test_command_with_long_texts_is_refused(field: str) -> None:
    answer = MitigatorHarness().command("pause", **{field: "x" * 600_000})
    assert answer.code == "too_long"
    assert len(msgspec.json.encode(answer)) < 8_000


@pytest.mark.parametrize("verb", ["approve", "withdraw", "explode"])
def test_answer_to_a_long_key_has_a_bound(verb: str) -> None:
    harness = MitigatorHarness()
    harness.command(verb, "x" * 600_000, comment="y" * 1_000, revision=1)
    [answer] = harness.audits
    assert len(msgspec.json.encode(answer)) < 8_000


@pytest.mark.parametrize("verb", ["approve", "add", "resume"])
def test_old_command_that_starts_something_is_refused(verb: str) -> None:
    harness = proposing()
    answer = harness.command(verb, KEY, age=301, kind="firewall", prefix=f"{HOST}/32")
    assert (answer.action, answer.code) == ("refused", "too_old")
    assert harness.wanted() == []


def test_old_pause_counts() -> None:
    harness = MitigatorHarness()
    harness.command("pause", age=10_000)
    assert harness.state.paused


def test_age_of_a_command_is_the_brokers() -> None:
    """The clock of the person's machine decides nothing."""
    harness = proposing()
    asked = harness.now.replace(year=2030)
    assert harness.command("approve", KEY, requested_at=asked).action == "approved"


def test_audit_record_has_the_person_and_cause() -> None:
    harness = banned()
    answer = harness.command("withdraw", KEY)
    assert (answer.by, answer.action, answer.key) == ("alice", "suppressed", KEY)
    assert "a test" in answer.text
    assert answer.event_id == "command-1"
