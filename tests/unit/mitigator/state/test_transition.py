"""A transition's records and audit records, their bounds, and undo."""

import random
from datetime import datetime, timedelta
from ipaddress import ip_network
from time import process_time
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support.mitigator_harness import (
    HOST,
    KEY,
    OWN,
    START,
    MitigatorHarness,
    banned,
    policy,
    rule,
)

from consumers.mitigation.reason_key import key_of_reason
from consumers.mitigator.decisions.decide import apply_event
from consumers.mitigator.decisions.expire import expire_leases, start_proposals
from consumers.mitigator.decisions.operator_commands import apply_command
from consumers.mitigator.decisions.received_command import ReceivedCommand
from consumers.mitigator.state import recompute
from consumers.mitigator.state.record_content import MAX_RECORD_BYTES
from consumers.mitigator.state.state import State
from consumers.mitigator.state.transition import Transition
from consumers.policy.model import Action, Customer, Match
from fnm_bus.errors import InvalidRecord
from fnm_bus.event import Command, FlowSpecRule, FlowThen

MAX_REASON_BYTES = 128_000
MAX_AUDIT_BYTES = 128_000
GROUP = ip_network("203.0.113.0/24")
UDP = FlowSpecRule(uuid="r1", destination_prefix=f"{HOST}/32", protocols=("udp",))
TCP = FlowSpecRule(uuid="r2", destination_prefix=f"{HOST}/32", protocols=("tcp",))


def size(record: Any) -> int:
    return len(msgspec.json.encode(record))


# -- records ---------------------------------------------------------------------------


def test_equal_decision_is_not_written_again() -> None:
    harness = banned(sensor="a")
    harness.send("ban", sensor="b")
    record = harness.mitigations[KEY]
    harness.send("ban", sensor="a")
    assert harness.mitigations[KEY] is record


def test_record_has_counts_by_magnitude() -> None:
    harness = MitigatorHarness(policy(rule(prefixes=(GROUP,))))
    key = f"blackhole|{GROUP}"
    revisions = set()
    shown = []
    for number in range(120):
        harness.send("ban", f"203.0.113.{number}")
        shown.append(harness.mitigation(key).live_reasons)
        revisions.add(harness.mitigation(key).revision)
    assert shown[0] == 1
    assert shown[1] == 2
    assert shown[9] == 10
    assert shown[99] == 100
    assert len(set(shown)) == 4
    assert revisions == {1}
    assert len(harness.mitigation(key).reasons) == 5


def test_revision_grows_with_the_approved_content() -> None:
    harness = banned(policy(rule(approval=True)))
    assert harness.mitigation().revision == 1
    harness.command("approve", KEY)
    approved = harness.mitigation().revision
    assert approved > 1
    harness.send("attack_status")
    assert harness.mitigation().revision == approved
    harness.send("unban")
    assert harness.mitigation().revision > approved


def test_record_is_for_people_too() -> None:
    harness = banned(total_incoming_pps=7)
    record = harness.mitigation()
    assert record.key == KEY
    assert record.cause == "ban by fnm1: rule any"
    assert record.created_at == record.started_at == record.changed_at == START
    assert (record.expires_at - START).total_seconds() == record.lease_ms / 1000
    [reason] = record.reasons
    assert (reason.sensor, reason.target, reason.pps) == ("fnm1", HOST, 7)


def test_approval_only_reason_is_shown_as_pending() -> None:
    ask = rule("ask", Match(sensors=frozenset({"ask"})), approval=True)
    harness = MitigatorHarness(policy(ask, rule("live"), rule("dry", dry_run=True)))
    harness.send("ban", sensor="live")
    harness.send("ban", sensor="ask")
    record = harness.mitigation()
    counts = (record.live_reasons, record.pending_reasons, record.dry_reasons)
    assert counts == (1, 1, 0)


def test_full_proposals_take_a_live_measure_out_of_force(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("consumers.mitigator.state.recompute.MAX_PROPOSALS", 0)
    ask = rule("ask", Match(sensors=frozenset({"ask"})), approval=True)
    harness = banned(policy(ask, rule("live")), sensor="live")
    harness.send("ban", sensor="ask")
    assert harness.wanted() == [KEY]
    harness.send("unban", sensor="live")
    record = harness.mitigation()
    assert (record.state, record.ended_because) == ("ended", "unban")
    assert record.cause == "unban by live"
    assert record.lease_ms == 0


# -- audit records ---------------------------------------------------------------------


def test_renewal_of_the_lease_alone_is_not_reported() -> None:
    harness = banned()
    for _ in range(100):
        harness.wait(20)
        harness.send("attack_status")
    assert [audit.action for audit in harness.audits] == ["wanted"]


def test_event_of_a_suppressed_measure_is_reported_once() -> None:
    harness = banned()
    harness.command("withdraw", KEY)
    for _ in range(5):
        harness.send("ban")
    assert harness.audit_codes("ignored") == ["suppressed"]


def test_end_is_reported_with_its_code() -> None:
    harness = banned()
    harness.send("unban")
    audit = harness.audits[-1]
    assert (audit.action, audit.code, audit.key) == ("ended", "unban", KEY)
    assert (audit.sensor, audit.target) == ("fnm1", HOST)


def test_checks_beyond_a_hundred_are_counted() -> None:
    rules = [rule(f"r{n}", Match(protocols=frozenset({"tcp"}))) for n in range(300)]
    harness = banned(policy(*rules, rule("last")))
    [audit] = harness.audits
    assert len(audit.checks) == 100
    assert audit.checks_omitted > 200
    assert size(audit) < MAX_AUDIT_BYTES


# -- bounds ----------------------------------------------------------------------------


def test_measure_of_16_000_hosts_costs_the_same_per_host() -> None:
    """Bytes, records and, roughly, time per event do not depend on the number."""
    own = ip_network("10.0.0.0/8")
    wide = ip_network("10.0.0.0/18")
    chosen = policy(rule(prefixes=(wide,)), own_networks=(own,))
    harness = MitigatorHarness(chosen, fastnetmon_ban_time=86_000)
    key = f"blackhole|{wide}"

    def host_of(number: int) -> str:
        return f"10.0.{number >> 8}.{number & 255}"

    def seconds(first: int, last: int, action: str) -> float:
        began = process_time()
        for number in range(first, last):
            transition = harness.new_transition()
            apply_event(transition, harness.event(action, host_of(number)))
            assert len(transition.reasons) == 1
            assert len(transition.audits) <= 1
            written = [*transition.reasons.values(), *transition.mitigations.values()]
            assert sum(map(size, written)) < 10_000
            harness.commit(transition)
        return (process_time() - began) / (last - first)

    early = seconds(0, 1_000, "ban")
    transition, like = harness.new_transition(), harness.reason("10.0.0.0")
    for number in range(1_000, 15_000):
        more = replace(like, target=host_of(number))
        transition.put_reason(key_of_reason(more), more, active=True)
    late = seconds(15_000, 16_000, "ban")
    assert late < 10 * early
    assert harness.wanted() == [key]
    assert len(harness.state.demands[key]) == 16_000
    assert size(harness.mitigation(key)) < MAX_RECORD_BYTES
    assert seconds(0, 1_000, "unban") < 10 * early
    assert harness.wanted() == [key]


WIDE = "\U0001d54f"
"""A character of four bytes."""
HOSTILE = st.text(
    st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=255
) | st.sampled_from([WIDE * 255, '"' * 255, "\\" * 255, "é" * 255])


def test_record_with_long_names_has_no_examples() -> None:
    """Examples go first where a record would be too large."""
    chosen = policy(rule(WIDE * 100, communities=("1:1",), approval=True))
    harness = MitigatorHarness(chosen)
    for number in range(5):
        sensor = f"{number}{WIDE * 250}"
        harness.send("ban", sensor=sensor, attack_uuid=WIDE * 250, host_group=WIDE)
    assert harness.mitigation().reasons  # of one reason: it was not written again
    harness.command("approve", KEY, by=WIDE * 1_000, comment=WIDE * 1_000)
    record = harness.mitigation()
    assert record.reasons == ()
    assert (record.live_reasons, record.state) == (5, "wanted")
    assert size(record) <= MAX_RECORD_BYTES


def test_record_with_long_match_and_texts_is_within_its_bound() -> None:
    ports = tuple(range(10_000, 10_096))
    udp = FlowSpecRule(
        destination_prefix=f"{HOST}/32", destination_ports=ports, protocols=("udp",)
    )
    harness = MitigatorHarness(policy(rule(action="flowspec", approval=True)))
    harness.send("ban", rules=(udp,), host_group=WIDE * 255)
    [key] = harness.mitigations
    harness.command("approve", key, by=WIDE * 1_000, comment=WIDE * 1_000)
    assert harness.wanted() == [key]
    assert size(harness.mitigation(key)) <= MAX_RECORD_BYTES


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(
    HOSTILE,
    HOSTILE,
    HOSTILE,
    HOSTILE,
    st.integers(1, 400),
    st.integers(0, 32),
    st.integers(0, 300),
    st.sampled_from(["blackhole", "flowspec"]),
    st.booleans(),
)
def test_every_record_stays_within_its_bound(  # noqa: PLR0913, PLR0917 - drawn values
    sensor: str,
    name: str,
    target: str,
    attack: str,
    networks: int,
    communities: int,
    ports: int,
    action: str,
    approval: bool,  # noqa: FBT001 - hypothesis gives it
) -> None:
    numbers = tuple(f"{4_200_000_000 + n}:{n}:4294967295" for n in range(communities))
    ask = rule(
        WIDE * 255,
        action=action,
        approval=approval,
        communities=numbers,
        flowspec_action=FlowThen(action="discard"),
    )
    customer = Customer(name="c" * 255, networks=OWN, max_active=9_999)
    harness = MitigatorHarness(policy(ask, customers=(customer,)))
    prefixes = tuple(f"203.0.113.{n % 256}/32" for n in range(networks))
    rules = tuple(
        FlowSpecRule(
            uuid=f"{name[:200]}{n}",
            destination_prefix=f"{HOST}/32",
            destination_ports=tuple(range(ports)),
            source_ports=(n,),
            protocols=("udp",),
        )
        for n in range(min(networks, 256))
    )
    events = [
        harness.event(
            "ban", target, networks=prefixes, sensor=sensor, attack_uuid=attack
        ),
        harness.event("ban", sensor=sensor, attack_uuid=attack, host_group=name),
        harness.event("ban", sensor=sensor, rules=rules, host_group=name),
        harness.event("partial_block", sensor=sensor, rules=rules, host_group=name),
        harness.event("unban", sensor=sensor, attack_uuid=attack),
    ]
    for event in events:
        transition = harness.new_transition()
        try:
            apply_event(transition, event)
        except InvalidRecord:
            transition.rollback()
            continue
        check_sizes(transition)
        harness.commit(transition)
        for key in list(transition.mitigations)[:3]:
            for verb in ("approve", "withdraw"):
                name = WIDE * 1_000
                answer = harness.command(verb, key, by=name, comment=name)
                assert size(answer) < MAX_AUDIT_BYTES
                assert size(harness.mitigation(key)) <= MAX_RECORD_BYTES


def check_sizes(transition: Transition) -> None:
    for name, reason in transition.reasons.items():
        assert len(name.encode()) <= 2_000
        assert size(reason) <= MAX_REASON_BYTES
        assert reason is None or len(reason.wants) <= 256
    for key, record in transition.mitigations.items():
        assert len(key.encode()) <= 2_100
        assert size(record) <= MAX_RECORD_BYTES
    for audit in transition.audits:
        assert size(audit) <= MAX_AUDIT_BYTES


# -- undoing ---------------------------------------------------------------------------


def test_failed_event_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = banned()
    before = picture(harness.state, harness.now)

    def fail(*_args: Any, **_about: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(recompute, "_report_change", fail)
    transition = harness.new_transition()
    with pytest.raises(ZeroDivisionError):
        apply_event(transition, harness.event("unban"))
    transition.rollback()
    assert picture(harness.state, harness.now) == before
    assert not transition.reasons
    assert not transition.mitigations
    assert not transition.audits


def test_text_of_an_undone_report_is_reported_again() -> None:
    harness = MitigatorHarness(policy(rule(action="ignore")))
    event = harness.event("ban")
    transition = harness.new_transition()
    apply_event(transition, event)
    assert len(transition.audits) == 1
    transition.rollback()
    harness.apply(event)
    assert harness.audit_codes("ignored") == ["rule_ignores"]


def test_ignored_event_at_the_bound_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.mitigator.state.memory._MAX_REMEMBERED", 3)
    harness = MitigatorHarness(policy(rule(action="ignore")))
    for number in range(3):
        harness.send("ban", f"203.0.113.{number}")
    before = picture(harness.state, harness.now)
    transition = harness.new_transition()
    apply_event(transition, harness.event("ban"))
    transition.rollback()
    assert picture(harness.state, harness.now) == before


def picture(state: State, now: datetime) -> dict[str, Any]:
    """Return everything that a later decision can depend on."""
    counts = {}
    for dry_run in (False, True):
        view = state.active_counts(now, dry_run=dry_run)
        covered = (view.affected.count(4), view.affected.count(6))
        counts[dry_run] = (
            *(view.active, dict(view.by_customer), view.new_last_minute, covered),
        )
    return {
        "reasons": dict(state.reasons),
        "mitigations": dict(state.mitigations),
        "demands": {
            name: {
                key: (demand.terms_of(key), demand.latest(demand.terms_of(key)))
                for key in demand
            }
            for name, demand in state.demands.items()
        },
        "idle": set(state.inactive),
        "ended": set(state.ended),
        "waiting": set(state.waiting),
        "ignored": dict(state.ignored),
        "reported": dict(state._audit_texts),
        "counts": counts,
        "proposals": state.proposals,
        "paused": state.paused,
        "states": {word: count for word, count in state._states.items() if count},
        "parts": {key: set(names) for key, names in state._parts.items()},
        "timers": (dict(state._reasons_due._due), dict(state._mitigations_due._due)),
        "taken": taken(state._reasons_due) | taken(state._mitigations_due),
    }


def taken(timers: Any) -> set[Any]:
    """Return the moments that were taken and not set again; a pause has none."""
    due = {(due, key) for key, due in timers._due.items() if key != "pause"}
    return due - set(timers._heap)


def check_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for part, content in before.items():
        if part == "taken":
            assert after[part] <= content, part  # to look at an entry twice is no harm
        else:
            assert after[part] == content, part


def chosen_policy() -> Any:
    return policy(
        rule("ask", Match(sensors=frozenset({"ask"})), approval=True),
        rule("trial", Match(sensors=frozenset({"trial"})), dry_run=True, lease=60),
        rule("none", Match(protocols=frozenset({"icmp"})), action="ignore"),
        rule("flow", Match(flow_spec=True), action="flowspec", lease=90),
        rule("any", when_limited="hostgroup", communities=("1:1",)),
        hostgroups={"web": Action(action="firewall", prefixes=(GROUP,))},
        customers=(
            Customer(name="c", networks=(ip_network("203.0.113.0/30"),), max_active=2),
        ),
        max_active=4,
        max_new_per_minute=16,
    )


def random_event(harness: MitigatorHarness, chance: random.Random) -> Any:
    action = chance.choice(
        [
            "ban",
            "ban",
            "unban",
            "attack_status",
            "attack_status",
            "partial_block",
            "partial_unblock",
            "somersault",
        ]
    )
    fields: dict[str, Any] = {
        "sensor": chance.choice(["fnm1", "ask", "trial"]),
        "age": chance.choice([0, 0, 0, 400]),
        "attack_uuid": chance.choice(["a1", "a2", None]),
        "attack_protocol": chance.choice(["udp", "udp", "icmp"]),
        "host_group": "web",
    }
    if action.startswith("partial") or chance.random() < 0.2:
        fields["rules"] = chance.choice([(UDP,), (UDP, TCP)])
    if action in {"ban", "unban"} and chance.random() < 0.2:
        networks = ("203.0.113.1/32", "203.0.113.2/32", "198.51.100.1/32")
        fields.pop("rules", None)
        return harness.event(action, "web", networks=networks, **fields)
    return harness.event(action, f"203.0.113.{chance.randrange(8)}", **fields)


def random_change(
    harness: MitigatorHarness, chance: random.Random, event: Any
) -> Transition:
    transition = harness.new_transition()
    keys = sorted(harness.state.mitigations)
    if keys and chance.random() < 0.25:
        key = chance.choice(keys)
        verb = chance.choice(
            ["approve", "withdraw", "reject", "add", "pause", "resume"]
        )
        record = harness.state.mitigations[key].record
        command = Command(
            verb=verb,
            by="alice",
            key=key,
            revision=record.revision,
            kind="blackhole",
            prefix="203.0.113.5/32",
        )
        apply_command(transition, ReceivedCommand(command, harness.now, 1))
    else:
        apply_event(transition, event)
    return transition


@pytest.mark.parametrize("seed", range(6))
def test_undone_transition_leaves_the_state_as_before(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a test's
    harness = MitigatorHarness(chosen_policy(), fastnetmon_ban_time=120)
    changed = 0
    for _ in range(400):
        event = random_event(harness, chance)
        state = chance.getstate()
        before = picture(harness.state, harness.now)
        transition = random_change(harness, chance, event)
        changed += picture(harness.state, harness.now) != before
        transition.rollback()
        check_same(before, picture(harness.state, harness.now))
        chance.setstate(state)
        harness.commit(random_change(harness, chance, event))
        if chance.random() < 0.3:
            seconds = chance.choice([1, 30, 70])
            harness.now += timedelta(seconds=seconds)
            harness.clock += seconds
            undo_time(harness)
            harness.tick()
    assert changed > 100


def undo_time(harness: MitigatorHarness) -> None:
    """Undo the changes of one `expire_leases` and `start_proposals`."""
    before = picture(harness.state, harness.now)
    steps = (expire_leases, start_proposals)
    changes = [c for step in steps for c in step(harness.state, harness.new_transition)]
    for transition in reversed(changes):
        transition.rollback()
    check_same(before, picture(harness.state, harness.now))
