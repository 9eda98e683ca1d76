"""Any input, in any order: decisions keep the mitigator's promises.

FUZZ_SECONDS lets it search for that long, with new examples each time: `make fuzz`.
"""

import os
import time
from datetime import timedelta
from ipaddress import ip_network
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.mitigator_checks import (
    Ledger,
    check_decisions,
    check_ended,
    check_memory,
    check_nothing_lost,
    check_nothing_unwanted,
    check_records,
    in_force,
    mitigations,
    picture,
)
from support.mitigator_harness import START, MitigatorHarness, policy
from support.mitigator_harness import rule as rule_of
from support.mitigator_model import WITHIN, Desire, Model

from consumers.mitigation.measure import Measure
from consumers.mitigator.decisions.decide import apply_event
from consumers.mitigator.decisions.expire import expire_leases, start_proposals
from consumers.mitigator.decisions.operator_commands import apply_command
from consumers.mitigator.decisions.received_command import ReceivedCommand
from consumers.mitigator.state.transition import Transition
from consumers.policy.model import Action, Customer, Match, Policy
from fnm_bus.event import Audit, Command, Effect, Event, FlowSpecRule, FlowThen

BAN_TIME: Final = 200.7
"""No lease, nor a third of one, is a whole number of seconds: no moment is two."""
WEB, LAB = ip_network("203.0.113.64/26"), ip_network("203.0.113.128/28")
ACME = ip_network("203.0.113.0/30")
ROUTER = ip_network("203.0.113.2/32")
RATE = FlowThen(action="rate-limit", rate=125_000)
LOW = FlowThen(action="rate-limit", rate=1_000)
REDIRECT = FlowThen(action="redirect", redirect_as=64500, redirect_value=1)
FLOW: Final = {"action": "flowspec", "any_protocol": True}
SHORT, LONG = 60.7, 100.3
RULES: Final[dict[str, dict[str, Any]]] = {
    "block": {"lease": SHORT},
    "tagged": {"lease": LONG, "communities": ("64500:666",)},
    "spread": {"lease": SHORT, "communities": ("64500:1", "64500:666")},
    "trial": {"lease": LONG, "dry_run": True},
    "ask": {"lease": LONG, "approval": True},
    "ask-tagged": {"lease": SHORT, "approval": True, "communities": ("64500:9",)},
    "rate": {**FLOW, "lease": LONG, "flowspec_action": RATE},
    "low": {**FLOW, "lease": SHORT, "flowspec_action": LOW, "dry_run": True},
    "drop": {**FLOW, "lease": SHORT},
    "redirect": {**FLOW, "lease": LONG, "flowspec_action": REDIRECT},
    "ask-drop": {**FLOW, "lease": LONG, "approval": True},
    "ask-redirect": {
        **FLOW,
        "lease": SHORT,
        "approval": True,
        "flowspec_action": REDIRECT,
    },
    "places": {"lease": SHORT, "enforcers": ("exabgp", "nftables")},
    "inform": {"lease": SHORT, "action": "notify"},
    "ignore": {"action": "ignore"},
    "group": {"lease": SHORT, "action": "hostgroup"},
    "fallback": {"lease": SHORT, "when_limited": "hostgroup"},
    "fallback-ask": {"lease": LONG, "when_limited": "hostgroup", "approval": True},
}
NARROWER: Final[dict[str, dict[str, Any]]] = {
    "inform": {"action": "notify"},
    "ignore": {"action": "ignore"},
    "trial": {"dry_run": True},
    "ask": {"approval": True},
    "short": {"lease": 20.9},
}
HOSTS = st.sampled_from(
    [
        *("203.0.113.1", "203.0.113.1", "203.0.113.1", "203.0.113.70"),
        *("203.0.113.2", "203.0.113.71", "2001:db8:1::1", "198.51.100.1"),
    ]
)
SENSORS = st.sampled_from(["fnm1", "fnm2"])
ATTACKS = st.sampled_from(["a1", "a1", "a2", None])
NAMES = st.sampled_from(
    [*sorted(RULES), "block", "ask", "trial", "drop", "rate", "fallback", "fallback"]
)
GROUPS = st.sampled_from([None, "web", "web", "lab"])
CLOCKS = st.sampled_from([None, 7.25, 1000.0, 5e6])
GAPS = st.sampled_from([1, 2, 3, 5, 19, 30, 61, 130, 250, 500])
DAY = 90_000


class Choice(NamedTuple):
    """The differences between policies, shown in printed examples."""

    narrower: tuple[tuple[str, str], ...] = ()
    active: int = 500
    minute: int = 200
    share: float = 1.0
    customer: int = 50
    protected: bool = False
    web: str = ""
    lab: bool = True

    def policy(self) -> Policy:
        """Return the policy."""
        rules = {**RULES}
        for name, transition in self.narrower:
            if transition == "gone":
                rules.pop(name, None)
            elif name in rules:
                rules[name] = {**rules[name], **NARROWER[transition]}
        web = {"action": "blackhole", "prefixes": (WEB,), "lease": LONG}
        lab = {**FLOW, "flowspec_action": RATE, "prefixes": (LAB,), "lease": SHORT}
        groups = {"web": {**web, **({self.web: True} if self.web else {})}, "lab": lab}
        return policy(
            *(
                rule_of(name, Match(severities=frozenset({name})), **action)
                for name, action in rules.items()
            ),
            hostgroups={
                name: Action(**action)
                for name, action in groups.items()
                if name == "web" or self.lab
            },
            customers=(
                Customer(name="acme", networks=(ACME,), max_active=self.customer),
            ),
            digest=repr(self),
            max_active=self.active,
            max_new_per_minute=self.minute,
            max_affected_share=self.share,
            max_event_age=300.5,
            protected_prefixes=(ROUTER,) if self.protected else (),
        )


NARROW: Final = st.lists(
    st.tuples(NAMES, st.sampled_from([*NARROWER, "gone"])), min_size=1, max_size=4
).map(tuple)
LIMITED: Final[dict[str, st.SearchStrategy[Any]]] = {
    "active": st.sampled_from([500, 1, 1, 2, 3]),
    "minute": st.sampled_from([200, 200, 4, 4, 8, 1]),
    "share": st.sampled_from([1.0, 1.0, 0.008, 0.3]),
    "customer": st.sampled_from([50, 50, 1, 2]),
}
RULED: Final[dict[str, st.SearchStrategy[Any]]] = {
    "narrower": NARROW,
    "protected": st.sampled_from([False, False, True]),
    "web": st.sampled_from(["", "", "dry_run", "approval"]),
    "lab": st.sampled_from([True, True, False]),
}
CHOICES: Final = st.one_of(
    st.just(Choice()),
    st.fixed_dictionaries(LIMITED).map(lambda drawn: Choice(**drawn)),
    st.fixed_dictionaries(RULED).map(lambda drawn: Choice(**drawn)),
)


class CheckedHarness(MitigatorHarness):
    """A harness that checks each transition as it is written."""

    def __init__(self, model: Model, new_policy: Policy) -> None:
        super().__init__(new_policy, fastnetmon_ban_time=BAN_TIME)
        self.model = model
        self.ledger = Ledger()

    def commit(self, transition: Transition) -> None:
        super().commit(transition)
        check_records(transition)
        self.ledger.observe(self.model, self, transition.mitigations)

    def commit_takeover(self, transition: Transition) -> None:
        super().commit(transition)
        check_records(transition)
        self.ledger.observe(self.model, self, transition.mitigations, one_event=False)


class Decisions(RuleBasedStateMachine):
    """Events, people, time, restarts and policies, in any order."""

    examples = 0

    @initialize(choice=CHOICES)
    def new_transition(self, choice: Choice) -> None:
        new_policy = choice.policy()
        type(self).examples += 1
        self.model = Model(new_policy, BAN_TIME)
        self.harness = CheckedHarness(self.model, new_policy)
        self.held_back: list[Event] = []
        self.sent: list[Event] = []
        self.in_force: set[str] = set()
        self.seen: dict[str, tuple[int, Effect]] = {}
        self.older: dict[str, tuple[int, Effect]] = {}
        self.commands = 0
        self.may_stop = False

    # -- events ------------------------------------------------------------------

    @rule(
        action=st.sampled_from(["ban", "ban", "attack_status", "unban"]),
        host=HOSTS,
        sensor=SENSORS,
        attack=ATTACKS,
        name=NAMES,
        group=GROUPS,
        age=st.sampled_from([0, 0, 0, 0, 10, 299, 400, -30, -90]),
        behind=st.sampled_from([False, False, True]),
        leap=st.sampled_from([1, 1, 1, WITHIN]),
        later=st.sampled_from([False, False, False, True]),
    )
    def host_event(self, action: str, host: str, leap: int, **fields: Any) -> None:
        event = self.event(action, host, fields, leap)
        if fields["later"]:
            self.held_back.append(event)
        else:
            self.count(event, behind=fields["behind"])

    @rule(hosts=HOSTS, first=NAMES, second=NAMES, group=GROUPS)
    def two_sensors(
        self, hosts: str, first: str, second: str, group: str | None
    ) -> None:
        """Two sensors report one attack, by rules that differ."""
        for sensor, name in (("fnm1", first), ("fnm2", second)):
            fields = {"age": 0, "sensor": sensor, "attack": "a1"}
            fields |= {"name": name, "group": group}
            self.count(self.event("ban", hosts, fields, 1))

    @rule(
        name=st.sampled_from(["fallback", "fallback", "fallback-ask", "block"]),
        group=st.sampled_from(["web", "lab"]),
        sensor=SENSORS,
    )
    def several_hosts(self, name: str, group: str, sensor: str) -> None:
        """One hostgroup's hosts, one after the other, until a limit is reached."""
        for host in ("203.0.113.1", "203.0.113.70", "203.0.113.71"):
            fields = {"age": 0, "sensor": sensor, "attack": "a1"}
            self.count(
                self.event("ban", host, {**fields, "name": name, "group": group}, 1)
            )

    @rule(host=HOSTS, names=st.lists(NAMES, min_size=1, max_size=4), group=GROUPS)
    def many_bans(self, host: str, names: list[str], group: str | None) -> None:
        """One attack after the other on one target, each by another rule."""
        for number, name in enumerate(names):
            fields = {"age": 0, "sensor": "fnm1", "attack": f"b{number}"}
            fields |= {"name": name, "group": group}
            self.count(self.event("ban", host, fields, 1))

    @precondition(lambda self: self.model.keys())
    @rule(
        index=st.integers(0, 20),
        action=st.sampled_from(["attack_status", "attack_status", "unban"]),
        name=NAMES,
    )
    def what_follows_a_ban(self, index: int, action: str, name: str) -> None:
        """A status update or the unban of an attack that is open."""
        open_ones = [
            (key, wish)
            for key, wish in self.model.wishes.items()
            if wish.active and key.part == "attack"
        ]
        if not open_ones:
            return
        key, wish = open_ones[index % len(open_ones)]
        fields = {"age": 0, "sensor": key.sensor, "attack": wish.attack or None}
        fields |= {"name": name, "group": wish.hostgroup}
        more = {"networks": (str(WEB),)} if key.scope == "hostgroup" else {}
        self.count(self.event(action, key.target, fields, 1, **more))

    @rule(
        action=st.sampled_from(["ban", "attack_status", "unban"]),
        group=st.sampled_from(["web", "lab"]),
        sensor=SENSORS,
        attack=ATTACKS,
        name=st.sampled_from(["group", "block", "inform", "trial"]),
    )
    def group_event(self, action: str, group: str, **fields: Any) -> None:
        fields = {"age": 0, "group": None, **fields}
        self.count(self.event(action, group, fields, 1, networks=(str(WEB),)))

    @rule(sensor=SENSORS, action=st.sampled_from(["ban", "attack_status", "unban"]))
    def carpet(self, sensor: str, action: str) -> None:
        """Many hosts of one hostgroup at once."""
        fields = {"age": 0, "group": "web", "sensor": sensor, "attack": "a9"}
        for number in range(80, 92):
            host = f"203.0.113.{number}"
            self.count(self.event(action, host, {**fields, "name": "group"}, 1))

    @rule(
        action=st.sampled_from(["partial_block", "partial_block", "partial_unblock"]),
        host=st.sampled_from(["203.0.113.1", "203.0.113.3"]),
        sensor=SENSORS,
        attack=ATTACKS,
        name=st.sampled_from(["rate", "drop", "ask-drop", "low"]),
        numbers=st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True),
        ports=st.sampled_from([1, 40]),
    )
    def rules_of_document(
        self, action: str, host: str, numbers: list[int], ports: int, **fields: Any
    ) -> None:
        rules = tuple(
            FlowSpecRule(
                uuid=f"r{number}",
                destination_prefix=f"{host}/32",
                source_ports=tuple(range(number, number + ports)),
                protocols=("udp",),
                action_type="discard",
            )
            for number in numbers
        )
        fields = {"age": 0, "group": None, **fields}
        self.count(self.event(action, host, fields, 1, rules=rules))

    @precondition(lambda self: self.held_back)
    @rule(index=st.integers(0, 7))
    def late_event(self, index: int) -> None:
        self.count(self.held_back.pop(index % len(self.held_back)))

    @precondition(lambda self: self.sent)
    @rule(index=st.integers(1, 8))
    def duplicate(self, index: int) -> None:
        self.count(self.sent[-min(index, len(self.sent))])

    # -- people ------------------------------------------------------------------

    @precondition(lambda self: mitigations(self.harness))
    @rule(data=st.data(), which=st.sampled_from(["now", "now", "before"]))
    def approve(self, data: st.DataObject, which: str) -> None:
        records = mitigations(self.harness)
        key = data.draw(st.sampled_from(sorted(records)))
        record = records[key]
        shown = record.pending or Effect(
            then=record.then, communities=record.communities
        )
        revision, seen = record.revision, shown
        if which == "before":
            revision, seen = self.older.get(key, (record.revision, shown))
        trial = record.dry_run
        old = self.model.approved.get(key), self.model.withdrawn.get(key)
        if not trial:
            self.model.approved[key] = seen
        self.model.withdrawn.pop(key, None)
        answer = self.command("approve", key, revision=revision)
        if answer.action == "refused":
            self.model.approved.pop(key, None)
            for memory, value in zip(
                (self.model.approved, self.model.withdrawn), old, strict=True
            ):
                if value is not None:
                    memory[key] = value  # type: ignore[index]
        else:
            assert revision == record.revision, f"word: {key} as it was before"
            assert seen == shown, f"word: {key} was approved as it was before"

    @precondition(lambda self: mitigations(self.harness))
    @rule(
        data=st.data(),
        verb=st.sampled_from(["withdraw", "withdraw", "reject"]),
        age=st.sampled_from([0, 0, 0, 40]),
        long=st.booleans(),
    )
    def withdraw(self, data: st.DataObject, verb: str, age: int, long: Any) -> None:
        records = mitigations(self.harness)
        key = data.draw(st.sampled_from(sorted(records)))
        record = records[key]
        self.may_stop = True
        text = "é" * 1000 if long else "a test"
        answer = self.command(verb, key, age=age, comment=text)
        if answer.action == "refused":
            allowed = {"withdraw": {"proposed", "wanted"}, "reject": {"proposed"}}[verb]
            old = (self.harness.now - record.created_at).total_seconds() < age
            assert record.state not in allowed or old
            return
        self.model.withdraw(key)

    @rule(
        kind=st.sampled_from(["blackhole", "firewall"]),
        host=HOSTS,
        lease=st.sampled_from([15.3, 300.3]),
        place=st.sampled_from([None, None, "exabgp"]),
    )
    def add(self, kind: str, host: str, lease: float, place: str | None) -> None:
        prefix = f"{host}/{128 if ':' in host else 32}"
        measure = Measure(kind=kind, prefix=prefix)
        name = f"{measure.key}|{place}" if place else measure.key
        model = self.model
        before = {**model.wishes}, {**model.withdrawn}
        model.add(name, Desire(name, measure, Effect()), lease)
        asked = {"kind": kind, "prefix": prefix, "place": place}
        answer = self.command("add", lease_ms=round(lease * 1000), **asked)
        if answer.action == "refused":
            model.wishes, model.withdrawn = before

    @rule(verb=st.sampled_from(["pause", "resume", "resume"]))
    def mask(self, verb: str) -> None:
        self.command(verb)
        self.model.paused = verb == "pause"

    # -- time --------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 5, 15, 30]))
    def seconds_pass(self, seconds: int) -> None:
        for _ in range(seconds):
            self.wait(1)
            self.check()
        if seconds == 30:
            self.harness.ledger.check_proposals(self.model, self.harness)

    @rule(seconds=GAPS)
    def a_jump(self, seconds: int) -> None:
        self.wait(seconds)

    @rule()
    def a_day(self) -> None:
        self.wait(600)  # every lease has ended, before a restart meets its end
        self.wait(DAY)

    @rule(seconds=GAPS)
    def the_end(self, seconds: int) -> None:
        """Nothing outlives its lease while no mitigator runs."""
        self.harness.now = self.moved(seconds)
        self.model.pass_time(self.time(), alive=False)
        check_nothing_unwanted(self.model, self.harness)
        self.take_over(None)

    @rule(seconds=st.sampled_from([1, 19, 61, 250]))
    def a_transaction_fails(self, seconds: int) -> None:
        """The changes of a moment are undone, and the next mitigator repeats them."""
        harness = self.harness
        harness.now = self.moved(seconds)
        harness.clock += seconds
        before = picture(harness)
        changes = [
            *expire_leases(harness.state, harness.new_transition),
            *start_proposals(harness.state, harness.new_transition),
        ]
        for transition in reversed(changes):
            transition.rollback()
        assert picture(harness) == before, "rollback of a moment"
        self.model.pass_time(self.time())
        self.take_over(None)

    # -- mitigators and policies ---------------------------------------------------

    @rule(clock=CLOCKS)
    def restart(self, clock: float | None) -> None:
        force = in_force(self.harness)
        before = {
            key: (record.then, record.communities, self.harness.lease_left(key))
            for key, record in force.items()
        }
        held = {
            key
            for key, record in mitigations(self.harness).items()
            if record.state == "proposed" and "approval" not in record.held_by
        }
        kinds, wide = {**self.harness.ledger.kinds}, {*self.harness.ledger.wide}
        self.take_over(clock)
        after = in_force(self.harness)
        # A limit may end a fallback, or a mitigation beside an approved one.
        relief = {key for key in before if kinds.get(key) == "fallback"} | wide
        assert set(before) - relief <= set(after), "restart: a mitigation is missing"
        assert set(after) <= set(before) | held, "restart: a new mitigation is in force"
        for key, (then, communities, left) in before.items():
            if key in relief:
                continue
            record = after[key]
            assert (record.then, record.communities) == (then, communities), key
            assert abs(self.harness.lease_left(key) - left) < 1.01, f"restart: {key}"

    @rule(choice=CHOICES, clock=CLOCKS)
    def another_policy(self, choice: Choice, clock: float | None) -> None:
        self.may_stop = True
        self.take_over(clock, choice.policy())

    @rule(on=st.sampled_from([True, False, False]))
    def global_dry_run(self, on: bool) -> None:  # noqa: FBT001 - drawn
        self.may_stop = True
        self.take_over(None, dry_run=on)
        if on:
            assert not in_force(self.harness)

    # -- invariants ----------------------------------------------------------------

    @invariant()
    def promises_are_kept(self) -> None:
        self.check()
        check_memory(self.harness)
        records = mitigations(self.harness)
        for key, record in records.items():
            effect = Effect(then=record.then, communities=record.communities)
            self.seen.setdefault(key, (record.revision, record.pending or effect))
            revision, seen = self.seen[key]
            assert revision <= record.revision, f"revision: {key}"
            if revision == record.revision and record.state != "ended":
                assert seen == (record.pending or effect), f"revision: {key}"
            if revision != record.revision:
                self.older[key] = (revision, seen)
            self.seen[key] = (record.revision, record.pending or effect)
        for key in set(self.seen) - set(records):
            del self.seen[key]
            self.older.pop(key, None)

    def check(self) -> None:
        model, harness = self.model, self.harness
        model.keep_decisions(mitigations(harness))
        check_nothing_unwanted(model, harness)
        self.in_force = check_nothing_lost(
            model, harness, self.in_force, may_stop=self.may_stop
        )
        self.may_stop = False
        check_ended(model, harness)
        check_decisions(model, harness)

    # -- inside --------------------------------------------------------------------

    def event(
        self, action: str, target: str, fields: dict[str, Any], leap: int, **more: Any
    ) -> Event:
        harness = self.harness
        return harness.event(
            action,
            target,
            sequence=harness._sequence + leap,
            sensor=fields["sensor"],
            age=fields["age"],
            attack_uuid=fields["attack"],
            attack_severity=fields["name"],
            host_group=fields["group"],
            **more,
        )

    def count(self, event: Event, *, behind: bool = False) -> None:
        """Let an event count: undone at first, then for good; bounded work."""
        harness = self.harness
        self.sent.append(event)
        before = picture(harness)
        transition = harness.new_transition()
        apply_event(transition, event, behind=lambda: behind)
        transition.rollback()
        assert picture(harness) == before, "rollback of an event"
        age = (harness.now - event.receipt.received_at).total_seconds()
        reasons = len(harness.reasons)
        touched = self.model.event(event, age, behind=behind)
        written = harness.written
        harness.apply(event, behind=behind)
        assert reasons <= len(harness.reasons) + 1
        parts = max(len(event.flow_spec_rules), 1) + sum(
            key[:3] == name[:3]
            for key in harness.reasons
            for name in [self.reason_name(event)]
        )
        limit = len(touched) + parts + 1
        number = harness.written - written
        assert number <= limit, f"work: {number} records for {len(touched)} wants"
        self.check()

    def reason_name(self, event: Event) -> tuple[str, str, str]:
        target = getattr(event, "ip", None) or event.hostgroup_name
        scope = "host" if getattr(event, "ip", None) else "hostgroup"
        return (event.receipt.sensor, scope, target or "")

    def command(self, verb: str, key: str | None = None, **fields: Any) -> Audit:
        harness = self.harness
        before = picture(harness)
        transition = harness.new_transition()
        asked = {name: value for name, value in fields.items() if name != "age"}
        command = Command(verb=verb, by="bob", key=key, command_id="undone", **asked)
        apply_command(transition, ReceivedCommand(command, harness.now, 0))
        transition.rollback()
        assert picture(harness) == before, f"rollback of {verb}"
        return harness.command(verb, key, **fields)

    def take_over(
        self, clock: float | None, new_policy: Policy | None = None, **context: Any
    ) -> None:
        model, harness = self.model, self.harness
        dry_run = context.get("dry_run", model.dry_run)
        limit = model.policy.limits.max_new_per_minute
        model.take_over(new_policy or model.policy, dry_run=dry_run)
        harness.ledger.take_over(model, harness, limit)
        harness.restart(
            new_policy, clock=clock, fastnetmon_ban_time=BAN_TIME, dry_run=dry_run
        )
        harness.tick()

    def wait(self, seconds: int) -> None:
        self.model.pass_time((self.moved(seconds) - START).total_seconds())
        self.harness.wait(seconds)

    def moved(self, seconds: int) -> Any:
        return self.harness.now + timedelta(seconds=seconds)

    def time(self) -> float:
        return (self.harness.now - START).total_seconds()


FUZZ_SECONDS: Final = float(os.environ.get("FUZZ_SECONDS", "0"))
CI: Final = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
FUZZ: Final = settings(CI, derandomize=False)


@pytest.mark.timeout(FUZZ_SECONDS + 900)  # 20 s of one core, which others may want
def test_decisions_keep_the_promises() -> None:
    began = time.monotonic()
    try:
        run_state_machine_as_test(Decisions, settings=FUZZ if FUZZ_SECONDS else CI)
        while time.monotonic() - began < FUZZ_SECONDS:
            run_state_machine_as_test(Decisions, settings=FUZZ)
    finally:
        seconds = time.monotonic() - began
        print(f"\n{Decisions.examples} examples in {seconds:.0f} s")  # noqa: T201
