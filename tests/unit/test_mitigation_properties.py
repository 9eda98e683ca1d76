"""Whatever comes, in whatever order: what is wanted keeps the promises."""

from ipaddress import ip_network
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from services.court import OWN, Court, policy
from services.court import rule as rule_of

from consumers.mitigation.measure import KINDS, measure_of
from consumers.policy.model import Action, Customer, Match
from consumers.policy.model import Policy as _Policy
from fnm_bus.event import FlowSpecRule, Mitigation

NEVER = ip_network("203.0.113.53/32")
ROUTER = ip_network("203.0.113.254/32")
GROUP = ip_network("203.0.113.64/26")
LONGEST = 1900.0
TOTAL = 2
PER_CUSTOMER = 1

TARGETS = st.sampled_from(
    [
        *("203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.70"),
        *("203.0.113.53", "203.0.113.254", "198.51.100.1", "2001:db8:1::1"),
        *("2001:db8:9::1", "127.0.0.1", "224.0.0.1", "::1", "::ffff:203.0.113.1"),
    ]
)
NETWORKS = st.lists(
    st.sampled_from(
        ["203.0.113.0/24", "203.0.113.0/28", "203.0.113.64/26", "10.0.0.0/8", "::/0"]
    ),
    min_size=1,
    max_size=3,
).map(tuple)
SENSORS = st.sampled_from(["fnm1", "fnm2"])
ACTIONS = st.sampled_from(["ban", "unban", "attack_status", "ban", "attack_status"])
OUTCOMES = st.sampled_from([*KINDS, "nothing", "group"])
AGES = st.sampled_from([0, 0, 0, 10, 299, 400, -30, -90])
FLOWS = st.builds(
    FlowSpecRule,
    uuid=st.sampled_from([None, "r1", "r2"]),
    destination_prefix=st.sampled_from(
        [None, "203.0.113.1/32", "203.0.113.0/24", "8.8.8.8/32", "203.0.113.53/32"]
    ),
    source_prefix=st.sampled_from([None, "198.51.100.0/24", "203.0.113.2/32"]),
    protocols=st.sampled_from([(), ("udp",), ("tcp", "udp")]),
)


@st.composite
def policies(draw: Any) -> _Policy:
    rules = [
        rule_of(
            f"rule {number}",
            Match(sensors=draw(st.sampled_from([frozenset(), frozenset({"fnm1"})]))),
            outcome=draw(OUTCOMES),
            lease=draw(st.sampled_from([60.0, 900.0])),
            approval=draw(st.booleans()),
            at_cap=draw(st.sampled_from(["hold", "group"])),
        )
        for number in range(draw(st.integers(1, 3)))
    ]
    group = Action(outcome=draw(st.sampled_from(KINDS)), prefixes=(GROUP,))
    return policy(
        *rules,
        groups={"web": group},
        never=(NEVER,),
        addresses=(ROUTER,),
        named=frozenset({GROUP}),
        total=TOTAL,
        per_minute=TOTAL * 2,
        share=draw(st.sampled_from([0.01, 1.0])),
        customers=(
            Customer(
                name="acme",
                networks=(ip_network("203.0.113.0/30"),),
                cap=PER_CUSTOMER,
            ),
        ),
    )


class Storm(RuleBasedStateMachine):
    """Events, people, time and restarts, in any order."""

    @initialize(it=policies())
    def begin(self, it: _Policy) -> None:
        self.court = Court(it, ban_time=LONGEST)
        self.approved: set[str] = set()
        self.latest: dict[tuple[str, str], int] = {}
        self.over: dict[tuple[str, str], bool] = {}

    @rule(action=ACTIONS, host=TARGETS, sensor=SENSORS, age=AGES, late=st.booleans())
    def event(
        self, *, action: str, host: str, sensor: str, age: int, late: bool
    ) -> None:
        about: dict[str, Any] = {"sensor": sensor, "age": age, "host_group": "web"}
        if late:
            about["sequence"] = max(self.latest.get((sensor, host), 1) - 1, 0)
        it = self.court.event(action, host, **about)
        newest = it.receipt.sequence > self.latest.get((sensor, host), -1)
        before = self.court.wanted()
        self.court.judge(it)
        if newest:
            self.latest[sensor, host] = it.receipt.sequence
            self.over[sensor, host] = action == "unban"
        else:
            assert self.court.wanted() == before, "what came late changed something"
        records = len(self.court.records)
        self.court.judge(it)
        assert len(self.court.records) == records, "a duplicate changed something"

    @rule(action=ACTIONS, sensor=SENSORS, networks=NETWORKS)
    def hostgroup(self, action: str, sensor: str, networks: tuple[str, ...]) -> None:
        self.court.tell(action, "web", sensor=sensor, networks=networks)

    @rule(
        action=st.sampled_from(["partial_block", "partial_unblock"]),
        host=TARGETS,
        flows=st.lists(FLOWS, min_size=1, max_size=2).map(tuple),
    )
    def partial(self, action: str, host: str, flows: tuple[FlowSpecRule, ...]) -> None:
        self.court.tell(action, host, rules=flows)

    @rule(verb=st.sampled_from(["approve", "deny", "end"]), data=st.data())
    def order(self, verb: str, data: st.DataObject) -> None:
        keys = sorted(self.court.state.mitigations)
        if keys:
            key = data.draw(st.sampled_from(keys))
            if verb == "approve":
                self.approved.add(key)
            self.court.order(verb, key)

    @rule(kind=st.sampled_from(["blackhole", "firewall"]), host=TARGETS)
    def add(self, kind: str, host: str) -> None:
        length = 128 if ":" in host else 32
        self.court.order("add", kind=kind, prefix=f"{host}/{length}", lease_ms=60_000)

    @rule(verb=st.sampled_from(["pause", "resume"]))
    def button(self, verb: str) -> None:
        self.court.order(verb)

    @rule(seconds=st.sampled_from([1, 30, 61, 500, 2000]))
    def time_passes(self, seconds: int) -> None:
        self.court.wait(seconds)

    @rule()
    def restart(self) -> None:
        before = self.court.wanted()
        self.court.restart()
        assert self.court.wanted() == before

    @invariant()
    def what_is_wanted_is_allowed(self) -> None:
        for it in self.wanted():
            assert it.lease_ms > 0
            assert it.expires_at > it.changed_at
            if it.kind == "notify":
                continue
            networks = measure_of(it).networks
            assert networks, "it would match anybody"
            for network in networks:
                assert not _covers(network, NEVER)
                assert not _covers(network, ROUTER)
            ours = [n for n in networks if any(_in(n, own) for own in OWN)]
            assert ours
            assert ours[0].num_addresses == 1 or ours[0] == GROUP

    @invariant()
    def no_more_are_wanted_than_allowed(self) -> None:
        capped = [
            it
            for it in self.wanted()
            if it.kind != "notify"
            and it.key not in self.approved
            and GROUP not in measure_of(it).networks
        ]
        assert len(capped) <= TOTAL
        assert sum(it.customer == "acme" for it in capped) <= PER_CUSTOMER

    @invariant()
    def what_an_unban_ended_has_no_reason_any_more(self) -> None:
        for it in self.wanted():
            for reason in it.reasons:
                if reason.holds and reason.part == "attack":
                    assert not self.over.get((reason.sensor, reason.target), False)

    @invariant()
    def while_paused_nothing_is_wanted(self) -> None:
        if self.court.state.paused:
            assert self.wanted() == []

    @precondition(lambda self: not self.court.state.paused)
    @rule()
    def every_end_is_reached(self) -> None:
        self.court.wait(LONGEST + 1)
        assert self.wanted() == []

    def wanted(self) -> list[Mitigation]:
        return [self.court.of(key) for key in self.court.wanted()]


Storm.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestStorm = Storm.TestCase


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(ACTIONS, TARGETS, SENSORS), max_size=30), st.data())
def test_after_the_unbans_of_all_sensors_nothing_stands(
    calls: list[tuple[str, str, str]], data: st.DataObject
) -> None:
    court = Court(policy(rule_of(outcome=data.draw(st.sampled_from(KINDS)))))
    for action, target, sensor in calls:
        court.tell(action, target, sensor=sensor)
    for target, sensor in {(target, sensor) for _action, target, sensor in calls}:
        court.tell("unban", target, sensor=sensor)
    assert court.wanted() == []


def _in(inner: Any, outer: Any) -> bool:
    return bool(inner.version == outer.version and inner.subnet_of(outer))


def _covers(network: Any, kept: Any) -> bool:
    return bool(network.version == kept.version and network.overlaps(kept))
