"""Sequences of events, commands and takeovers that once did harm, one test each."""

from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from msgspec.structs import replace

from consumers.mitigation.reason_key import ReasonKey
from consumers.mitigator.state import recompute
from consumers.mitigator.state.restore import StoredRecord
from consumers.policy.model import Action, Customer, Match
from fnm_bus.event import FlowSpecRule
from tests.support.mitigator_harness import (
    HOST,
    KEY,
    OWN,
    MitigatorHarness,
    banned,
    policy,
    rule,
)

GROUP = {"web": Action(action="blackhole", prefixes=(ip_network("203.0.113.0/28"),))}
ELSEWHERE = {
    "web": Action(action="blackhole", prefixes=(ip_network("203.0.113.32/28"),))
}
GROUP_KEY = "blackhole|203.0.113.0/28"


# -- the hostgroup's measure beside the host's own -------------------------------------


def test_refused_ban_keeps_measures_beside_a_fallback() -> None:
    filtering = rule(action="flowspec", when_limited="hostgroup")
    harness = banned(policy(filtering, hostgroups=GROUP), host_group="web")
    before = harness.wanted()
    harness.send("ban", host_group="web", attack_protocol="unsupported")
    assert before
    assert harness.wanted() == before


def test_changed_policy_decides_again_about_a_lone_fallback() -> None:
    falls_back = rule(when_limited="hostgroup")
    protected = (ip_network("203.0.113.7/32"),)
    harness = banned(policy(falls_back, hostgroups=ELSEWHERE), host_group="web")
    harness.restart(
        policy(
            falls_back, hostgroups=ELSEWHERE, digest="p2", protected_prefixes=protected
        )
    )
    assert harness.wanted() == []
    harness.restart(policy(falls_back, hostgroups=ELSEWHERE, digest="p3"))
    harness.wait(20)
    harness.send("attack_status", host_group="web")
    assert harness.wanted() == [KEY]


def test_fallback_of_a_dry_run_is_a_dry_run() -> None:
    trial = rule(dry_run=True, when_limited="hostgroup")
    harness = banned(policy(trial, hostgroups=GROUP, max_active=1), host_group="web")
    harness.send("ban", "203.0.113.9", host_group="web")
    assert harness.mitigation(GROUP_KEY).dry_run
    assert harness.wanted() == []


def test_fallback_needs_the_approval_that_its_rule_needs() -> None:
    asking = rule(
        "asking",
        Match(sensors=frozenset({"careful"})),
        approval=True,
        when_limited="hostgroup",
    )
    harness = banned(policy(asking, rule(), hostgroups=GROUP, max_active=0))
    harness.send("ban", sensor="careful", host_group="web")
    assert harness.mitigation(GROUP_KEY).held_by == ("approval",)


def test_rule_that_became_a_dry_run_narrows_its_fallback() -> None:
    falls_back = rule(when_limited="hostgroup")
    harness = MitigatorHarness(policy(falls_back, hostgroups=GROUP, max_active=0))
    harness.send("ban", host_group="web")
    assert harness.wanted() == [GROUP_KEY]
    trial = rule(when_limited="hostgroup", dry_run=True)
    harness.restart(policy(trial, hostgroups=GROUP, max_active=0, digest="p2"))
    assert harness.wanted() == []


# -- proposals and limits --------------------------------------------------------------


def test_proposal_without_reasons_does_not_hold_the_others() -> None:
    harness = banned(policy(max_active=1))
    lost, other = "203.0.113.8", "203.0.113.9"
    for target in (lost, other):
        harness.wait(1)
        harness.send("ban", target)
    del harness.reasons[ReasonKey("fnm1", "host", lost, "attack")]
    harness.restart()
    harness.send("unban")
    harness.run(3)
    assert harness.wanted() == [f"blackhole|{other}/32"]


def test_start_in_the_future_does_not_hold_the_others() -> None:
    harness = MitigatorHarness(policy(max_new_per_minute=1))
    harness.now += timedelta(days=2)  # the broker's clock was wrong
    harness.send("ban")
    harness.now -= timedelta(days=2)
    harness.send("ban", "203.0.113.9")
    assert harness.wanted() == [KEY]
    harness.run(65)
    assert harness.wanted() == [KEY, "blackhole|203.0.113.9/32"]


# -- order of events -------------------------------------------------------------------


def test_events_delivered_twice_do_not_open_a_closed_attack() -> None:
    harness = MitigatorHarness()
    events = [
        harness.send(action, sequence=sequence, attack_uuid=attack)
        for action, sequence, attack in (
            ("ban", 10, "a1"),
            ("unban", 20, "a1"),
            ("ban", 30, "a2"),
            ("unban", 40, "a2"),
        )
    ]
    for event in events:
        harness.apply(event)
        assert harness.wanted() == []


# -- takeover after a long time --------------------------------------------------------


def outage(harness: MitigatorHarness) -> None:
    """Let hours pass without a mitigator; the next one reads an event first."""
    harness.now += timedelta(hours=3)
    harness.clock += 3 * 3_600
    harness.restart()
    harness.send("ban", attack_uuid="a2")


def test_approval_does_not_outlive_an_outage() -> None:
    harness = banned(policy(rule(approval=True)))
    harness.command("approve", KEY)
    outage(harness)
    assert harness.mitigation().state == "proposed"


def test_suppression_does_not_outlive_an_outage() -> None:
    harness = banned()
    harness.command("withdraw", KEY)
    outage(harness)
    assert harness.wanted() == [KEY]


def test_start_after_an_outage_is_within_limits() -> None:
    harness = banned(policy(max_active=1))
    harness.now += timedelta(hours=3)
    harness.clock += 3 * 3_600
    harness.restart()
    harness.send("ban", "203.0.113.9")
    harness.send("ban", attack_uuid="a2")
    assert harness.wanted() == ["blackhole|203.0.113.9/32"]


# -- people ----------------------------------------------------------------------------


def test_suppression_ends_one_lease_after_its_last_reason() -> None:
    long = rule("long", Match(sensors=frozenset({"slow"})), lease=86_400.0)
    short = rule(lease=60.0)
    harness = MitigatorHarness(policy(long, short), fastnetmon_ban_time=60.0)
    harness.send("ban", sensor="slow")
    harness.send("ban")
    harness.command("withdraw", KEY)
    harness.send("unban", sensor="slow")
    harness.run(125)
    assert harness.mitigation().state == "ended"


def test_rejection_removes_an_operators_reason() -> None:
    harness = MitigatorHarness(policy(max_active=0))
    fields = {"kind": "blackhole", "prefix": f"{HOST}/32", "lease_ms": 86_400_000}
    harness.command("add", **fields)
    assert harness.command("reject", KEY).action == "ended"


def test_rejection_of_an_earlier_proposal_does_not_end_the_next() -> None:
    harness = banned(policy(rule(approval=True)))
    assert harness.command("reject", KEY, age=60).code == "too_old"
    assert harness.mitigation().state == "proposed"


def test_approval_of_an_earlier_mitigation_does_not_count() -> None:
    harness = banned(policy(rule(approval=True)))
    assert harness.command("approve", KEY, age=60).code == "too_old"
    assert harness.wanted() == []


def test_lifted_suppression_does_not_start_its_fallback() -> None:
    falls_back = rule(when_limited="hostgroup")
    harness = banned(policy(falls_back, hostgroups=GROUP), host_group="web")
    harness.command("withdraw", KEY)
    harness.command("approve", KEY)
    assert harness.wanted() == [KEY]
    assert {audit.key for audit in harness.audits} == {KEY}


def test_command_that_arrives_twice_counts_once() -> None:
    harness = MitigatorHarness()
    order = {"kind": "blackhole", "prefix": f"{HOST}/32", "command_id": "once"}
    harness.command("add", **order)
    harness.command("withdraw", KEY)
    assert harness.command("add", **order).code == "duplicate"
    assert harness.wanted() == []


# -- reports ---------------------------------------------------------------------------


def test_unban_is_not_reported_as_a_persons_act() -> None:
    harness = banned(policy(rule(approval=True)))
    harness.command("approve", KEY)
    harness.send("unban")
    assert (harness.audits[-1].action, harness.audits[-1].by) == ("ended", "mitigator")


def test_unban_that_ends_nothing_is_not_a_renewal() -> None:
    harness = banned()
    harness.send("ban", sensor="fnm2")
    cause = harness.mitigation().cause
    harness.send("unban")
    assert harness.wanted() == [KEY]
    assert harness.audits[-1].action == "changed"
    assert "other reasons" in harness.audits[-1].text
    assert harness.mitigation().cause == cause


def test_withdrawal_is_reported_once() -> None:
    harness = MitigatorHarness()
    harness.command("add", kind="blackhole", prefix=f"{HOST}/32")
    harness.command("withdraw", KEY)
    assert len(harness.audit_texts("ended")) == 1


# -- forged and many records -----------------------------------------------------------


@pytest.mark.parametrize("lease_ms", [2**40, 2**62])
def test_stored_lease_beyond_a_day_counts_as_a_day(lease_ms: int) -> None:
    harness = banned()
    for key, stored in harness.reasons.items():
        harness.reasons[key] = forged(stored, lease_ms)
    for name, stored in harness.mitigations.items():
        harness.mitigations[name] = forged(stored, lease_ms)
    harness.restart()
    harness.command("withdraw", KEY)
    assert harness.wanted() == []
    harness.wait(2 * 86_400)
    assert harness.mitigation().state == "ended"


def forged(stored: StoredRecord, lease_ms: int) -> StoredRecord:
    return StoredRecord(replace(stored.record, lease_ms=lease_ms), stored.at)


def test_rules_of_one_target_have_a_bound() -> None:
    harness = MitigatorHarness(policy(rule(action="notify")))
    for port in range(1, 300):
        flow_rule = FlowSpecRule(
            destination_prefix=f"{HOST}/32",
            destination_ports=(port,),
            protocols=("udp",),
        )
        harness.send("partial_block", rules=(flow_rule,))
    assert len(harness.state.reasons) == 256
    assert "too_many_measures" in harness.audit_codes("refused")


def test_refused_proposal_is_relieved_by_its_hostgroup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recompute, "MAX_PROPOSALS", 1)
    falls_back = rule(when_limited="hostgroup")
    harness = MitigatorHarness(policy(falls_back, hostgroups=GROUP, max_active=2))
    others = [f"203.0.113.{number}" for number in (97, 98, 99)]
    for target in others:
        harness.send("ban", target)
    harness.send("ban", host_group="web")
    assert harness.audit_codes("refused") == ["too_many_proposals"]
    assert GROUP_KEY in harness.wanted()
    harness.restart()
    assert GROUP_KEY in harness.wanted()
    assert harness.audit_texts("ended") == []
    for target in others:
        harness.send("unban", target)
    harness.wait(20)
    harness.send("attack_status", host_group="web")
    assert harness.wanted() == [KEY]
    harness.send("unban", host_group="web")
    assert harness.state.refused == {}


@pytest.mark.parametrize("limit", ["max_active", "customer"])
def test_last_fallback_does_not_hold_the_relieved_measure(limit: str) -> None:
    falls_back = rule(when_limited="hostgroup")
    small = Customer(name="small", networks=OWN, max_active=1)
    limits: dict[str, Any] = (
        {"customers": (small,)} if limit == "customer" else {"max_active": 1}
    )
    harness = MitigatorHarness(policy(falls_back, hostgroups=GROUP, **limits))
    for target in ("203.0.113.1", "203.0.113.2", HOST):
        harness.send("ban", target, host_group="web")
    harness.send("unban", "203.0.113.1")
    harness.run(3)
    assert harness.wanted() == [GROUP_KEY]  # two need it
    harness.send("unban", "203.0.113.2")
    harness.run(3)
    assert harness.wanted() == [KEY]
