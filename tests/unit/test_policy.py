"""Which rule decides about an event, why, and which measures that means."""

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from consumers.measure import BLACKHOLE, FIREWALL, FLOWSPEC, KINDS, NOTIFY
from consumers.mitigator.facts import Facts, facts_of
from consumers.mitigator.plan import measures, then_of
from consumers.mitigator.policy import (
    GROUP,
    NOTHING,
    Action,
    Customer,
    Decision,
    Limits,
    Match,
    Policy,
    Rule,
    customer_of,
    decide,
    mismatch,
)
from fnm_bus import schema
from fnm_bus.event import FlowMatch, FlowSpecAction, FlowSpecRule, FlowThen

HOSTS = schema.examples("fastnetmon.HostEvent")
GROUPS = schema.examples("fastnetmon.HostgroupEvent")
STATUS = schema.examples("fastnetmon.StatusEvent")


def facts(name: str, **changes: Any) -> Facts:
    """Return the facts of an example."""
    event: Any = {**HOSTS, **GROUPS, **STATUS}[name]
    return facts_of(event)[0]._replace(**changes)


BAN = facts("ban")  # 203.0.113.25, 289,104 packets/s, 3,303,012,344 bit/s
GROUP_BAN = facts("hostgroup-ban")


def rule(name: str, outcome: str = NOTIFY, **match: Any) -> Rule:
    return Rule(name=name, match=Match(**match), action=Action(outcome=outcome))


def decided(subject: Facts, *rules: Rule) -> Decision:
    return decide(subject, Policy(rules=rules, limits=Limits(), groups={}))


def words(*them: str) -> frozenset[str]:
    return frozenset(them)


@pytest.mark.parametrize(
    "match",
    [
        {},
        {"scopes": words("host")},
        {"actions": words("ban", "attack_status")},
        {"hostgroups": words("customers", "other")},
        {"prefixes": (ip_network("2001:db8::/32"), ip_network("203.0.113.0/24"))},
        {"prefixes": (ip_network("203.0.113.25/32"),)},
        {"directions": words("incoming")},
        {"protocols": words("none")},
        {"thresholds": words("bytes per second")},
        {"severities": words("middle")},
        {"sensors": words("fra1")},
        {"flow_spec": False},
        {"min_pps": 289_104},
        {"max_pps": 289_105},
        {"min_bits": 3_303_012_344},
        {"max_bits": 3_303_012_345},
    ],
)
def test_a_condition_that_is_met_matches(match: dict[str, Any]) -> None:
    assert mismatch(BAN, Match(**match)) == ""


@pytest.mark.parametrize(
    ("match", "why"),
    [
        ({"scopes": words("hostgroup")}, "scope is host, wanted hostgroup"),
        (
            {"actions": words("partial_block", "attack_status")},
            "action is ban, wanted attack_status or partial_block",
        ),
        ({"hostgroups": words("x")}, "hostgroup is customers, wanted x"),
        (
            {"prefixes": (ip_network("203.0.113.0/28"),)},
            "203.0.113.25/32 is not within 203.0.113.0/28",
        ),
        (
            {"prefixes": (ip_network("::/0"),)},
            "203.0.113.25/32 is not within ::/0",
        ),
        ({"directions": words("outgoing")}, "direction is incoming, wanted outgoing"),
        ({"protocols": words("udp")}, "protocol is none, wanted udp"),
        (
            {"thresholds": words("packets per second")},
            "threshold is bytes per second, wanted packets per second",
        ),
        ({"severities": words("high")}, "severity is middle, wanted high"),
        ({"sensors": words("ams1")}, "sensor is fra1, wanted ams1"),
        ({"flow_spec": True}, "flow_spec is False, wanted True"),
        ({"min_pps": 289_105}, "pps is 289104, wanted at least 289105"),
        ({"max_pps": 289_104}, "pps is 289104, wanted less than 289104"),
        (
            {"min_bits": 3_303_012_345},
            "bits is 3303012344, wanted at least 3303012345",
        ),
        (
            {"max_bits": 3_303_012_344},
            "bits is 3303012344, wanted less than 3303012344",
        ),
    ],
)
def test_a_condition_that_is_not_met_says_why(match: dict[str, Any], why: str) -> None:
    assert mismatch(BAN, Match(**match)) == why


def test_all_conditions_have_to_be_met() -> None:
    both = Match(scopes=words("host"), sensors=words("ams1"))
    assert mismatch(BAN, both) == "sensor is fra1, wanted ams1"


def test_an_event_without_a_size_is_neither_large_nor_small() -> None:
    small = facts("text-mode-unban")  # without a report: packets/s only
    assert mismatch(small, Match(min_pps=1)) == ""
    assert mismatch(small, Match(min_bits=0)) == "bits is not said"
    assert mismatch(small, Match(max_bits=10**12)) == "bits is not said"


def test_a_flow_spec_document_is_told_from_others() -> None:
    assert mismatch(facts("partial-block"), Match(flow_spec=True)) == ""
    assert mismatch(facts("partial-block"), Match(flow_spec=False)) != ""


def test_all_networks_of_a_hostgroup_have_to_lie_within_the_prefixes() -> None:
    v4 = tuple(map(ip_network, ("203.0.113.0/24", "198.51.100.0/24")))
    assert mismatch(GROUP_BAN, Match(prefixes=v4)) == (
        "203.0.113.0/24, 198.51.100.0/25, 2001:db8:113::/48 is not within"
        " 203.0.113.0/24, 198.51.100.0/24"
    )
    both = (*v4, ip_network("2001:db8::/32"))
    assert mismatch(GROUP_BAN, Match(prefixes=both)) == ""


def test_an_event_without_networks_lies_nowhere() -> None:
    subject = facts("hostgroup-unban")
    why = mismatch(subject, Match(prefixes=(ip_network("0.0.0.0/0"),)))
    assert why == "no network is not within 0.0.0.0/0"


def test_a_long_list_of_networks_is_told_shortened() -> None:
    many = tuple(ip_network(f"192.0.2.{it}/32") for it in range(8))
    why = mismatch(BAN, Match(prefixes=many))
    assert why.endswith("192.0.2.4/32, 3 more")


def test_the_first_rule_that_matches_decides() -> None:
    first, second = rule("a", BLACKHOLE, scopes=words("host")), rule("b")
    assert decided(BAN, first, second).rule is first
    assert decided(BAN, second, first).rule is second


def test_every_rule_that_was_asked_says_why_and_no_further_one_is() -> None:
    rules = rule("a", min_pps=10**6), rule("b", BLACKHOLE), rule("c")
    asked = decided(BAN, *rules).checks
    assert [(it.stage, it.name, it.verdict, it.text) for it in asked] == [
        ("policy", "a", "no-match", "pps is 289104, wanted at least 1000000"),
        ("policy", "b", "match", "→ blackhole"),
    ]


def test_when_no_rule_matches_nothing_is_decided_and_each_says_why() -> None:
    decision = decided(BAN, rule("a", scopes=words("hostgroup")))
    assert decision.rule is None
    assert [it.verdict for it in decision.checks] == ["no-match"]
    assert decided(BAN) == (None, ())


def test_a_customer_is_the_first_in_whose_networks_all_lie() -> None:
    acme = Customer(name="acme", networks=(ip_network("203.0.113.0/26"),), cap=1)
    rest = Customer(name="rest", networks=(ip_network("203.0.113.0/24"),), cap=1)
    them = (acme, rest)
    assert customer_of((ip_network("203.0.113.25/32"),), them) is acme
    assert customer_of((ip_network("203.0.113.0/25"),), them) is rest
    assert customer_of((ip_network("198.51.100.1/32"),), them) is None
    assert customer_of((), them) is None


@pytest.mark.parametrize("kind", [BLACKHOLE, FIREWALL, NOTIFY])
def test_a_host_is_meant_as_a_network_of_one(kind: str) -> None:
    found, problems = measures(BAN, Action(outcome=kind))
    assert [it.key for it in found] == [f"{kind}|203.0.113.25/32"]
    assert problems == []


def test_a_hostgroup_is_meant_with_all_its_networks() -> None:
    found, _ = measures(GROUP_BAN, Action(outcome=BLACKHOLE))
    assert [it.prefix for it in found] == [
        "203.0.113.0/24",
        "198.51.100.0/25",
        "2001:db8:113::/48",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_an_actions_prefixes_are_meant_instead_of_the_events(kind: str) -> None:
    action = Action(outcome=kind, prefixes=(ip_network("203.0.113.128/25"),))
    for subject in (BAN, facts("partial-block")):
        found, problems = measures(subject, action)
        assert [it.networks for it in found] == [(ip_network("203.0.113.128/25"),)]
        assert problems == []


def test_communities_are_a_blackholes_alone() -> None:
    for kind in (BLACKHOLE, FIREWALL, NOTIFY):
        action = Action(outcome=kind, communities=("64500:666",))
        ((measure,), _) = measures(BAN, action)
        assert measure.communities == (("64500:666",) if kind == BLACKHOLE else ())


@pytest.mark.parametrize("outcome", [NOTHING, GROUP])
def test_nothing_and_group_mean_no_measure_of_their_own(outcome: str) -> None:
    assert measures(BAN, Action(outcome=outcome)) == ([], [])


def test_flowspec_without_rules_discards_what_goes_to_the_target() -> None:
    ((measure,), problems) = measures(BAN, Action(outcome=FLOWSPEC))
    assert measure.flow == FlowMatch(destination_prefix="203.0.113.25/32")
    assert measure.then == FlowThen(action="discard")
    assert problems == []


def test_flowspec_matches_the_attacks_protocol_when_it_is_one() -> None:
    known = facts("text-mode-ban")
    ((measure,), _) = measures(known, Action(outcome=FLOWSPEC))
    assert measure.flow == FlowMatch(
        destination_prefix="198.51.100.99/32", protocols=("udp",)
    )
    for word in ("unknown", "hopopt", ""):
        odd = known._replace(protocol=word)
        ((measure,), _) = measures(odd, Action(outcome=FLOWSPEC))
        assert measure.flow is not None
        assert measure.flow.protocols == ()


def test_of_an_outgoing_attack_the_target_is_the_source() -> None:
    subject = facts("text-mode-ban-ipv6")
    assert subject.outgoing
    ((measure,), _) = measures(subject, Action(outcome=FLOWSPEC))
    assert measure.flow == FlowMatch(
        source_prefix="2001:db8:99::99/128", protocols=("tcp",)
    )


def test_flowspec_does_what_the_action_says() -> None:
    limit = FlowThen(action="rate-limit", rate=125_000)
    action = Action(outcome=FLOWSPEC, then=limit)
    for subject in (BAN, facts("partial-block")):
        ((measure,), _) = measures(subject, action)
        assert measure.then == limit


def test_the_documents_rule_says_what_to_match_and_what_to_do() -> None:
    ((measure,), problems) = measures(facts("partial-block"), Action(outcome=FLOWSPEC))
    assert measure.flow == FlowMatch(
        destination_prefix="203.0.113.27/32",
        protocols=("udp",),
        source_ports=(53,),
        packet_lengths=(1500,),
    )
    assert measure.then == FlowThen(action="discard")
    assert problems == []


def test_a_rule_with_a_part_that_flowspec_cannot_match_is_refused() -> None:
    found, problems = measures(facts("partial-block-by-hand"), Action(outcome=FLOWSPEC))
    assert found == []
    assert [(it.name, it.verdict, it.text) for it in problems] == [
        ("flow_spec_rules/0", "refuse", "ttls: FlowSpec cannot match it")
    ]


@pytest.mark.parametrize(
    "part",
    [
        {"ttls": (64,)},
        {"vlans": (113,)},
        {"source_asns": (64496,)},
        {"destination_asns": (64511,)},
        {"input_interfaces": (529,)},
        {"output_interfaces": (530,)},
        {"agent_addresses": ("192.0.2.254",)},
    ],
)
def test_no_part_that_narrows_a_rule_is_left_out(part: dict[str, Any]) -> None:
    odd = FlowSpecRule(destination_prefix="203.0.113.27/32", **part)
    found, problems = measures(BAN._replace(rules=(odd,)), Action(outcome=FLOWSPEC))
    assert found == []
    assert problems[0].text == f"{next(iter(part))}: FlowSpec cannot match it"


def test_one_rule_that_is_refused_leaves_the_others() -> None:
    good = FlowSpecRule(destination_prefix="203.0.113.27/32", action_type="discard")
    odd = FlowSpecRule(destination_prefix="203.0.113.27/32", ttls=(64,))
    found, problems = measures(
        BAN._replace(rules=(odd, good)), Action(outcome=FLOWSPEC)
    )
    assert [it.flow for it in found] == [
        FlowMatch(destination_prefix="203.0.113.27/32")
    ]
    assert [it.name for it in problems] == ["flow_spec_rules/0"]


def flow_rule(word: str | None, **values: int) -> FlowSpecRule:
    return FlowSpecRule(
        destination_prefix="203.0.113.27/32",
        action_type=word,
        action=FlowSpecAction(**values) if values else None,
    )


@pytest.mark.parametrize(
    ("flow", "then"),
    [
        (flow_rule("discard"), FlowThen(action="discard")),
        (flow_rule(None), FlowThen(action="discard")),
        (flow_rule("rate-limit", rate=0), FlowThen(action="discard")),
        (
            flow_rule("redirect", redirect_target_as=64500, redirect_target_value=1),
            FlowThen(action="redirect", redirect_as=64500, redirect_value=1),
        ),
    ],
)
def test_what_a_documents_rule_does_is_done(flow: FlowSpecRule, then: FlowThen) -> None:
    assert then_of(flow) == then


@pytest.mark.parametrize(
    ("flow", "why"),
    [
        (flow_rule("rate-limit", rate=1024), "does not document the unit of its rate"),
        (flow_rule("rate-limit"), "does not document the unit of its rate"),
        (flow_rule("redirect"), "action redirect: not one that is enforced"),
        (
            flow_rule("redirect", redirect_target_as=64500),
            "action redirect: not one that is enforced",
        ),
        (flow_rule("mark"), "action mark: not one that is enforced"),
        (flow_rule("accept"), "action accept: not one that is enforced"),
    ],
)
def test_what_cannot_be_done_as_it_is_meant_is_refused(
    flow: FlowSpecRule, why: str
) -> None:
    subject = BAN._replace(rules=(flow,))
    found, problems = measures(subject, Action(outcome=FLOWSPEC))
    assert found == []
    assert why in problems[0].text


def test_a_rate_of_the_policys_own_has_a_unit() -> None:
    limit = FlowThen(action="rate-limit", rate=125_000)
    subject = BAN._replace(rules=(flow_rule("rate-limit", rate=1024),))
    ((measure,), problems) = measures(subject, Action(outcome=FLOWSPEC, then=limit))
    assert measure.then == limit
    assert problems == []


def test_a_decision_changes_nothing_that_it_was_made_from() -> None:
    policy = Policy(rules=(rule("a"),), limits=Limits(), groups={})
    before = replace(policy)
    assert decide(BAN, policy) == decide(BAN, policy)
    assert policy == before
