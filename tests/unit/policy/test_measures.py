"""The measures of an action, neither wider nor narrower than the event."""

import json
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.attack_facts import HOST, RECEIPT, facts, flow_rule, host_event

from consumers.mitigation.flow_match import MAX_VALUES
from consumers.mitigation.flow_words import FRAGMENTS, PROTOCOLS, TCP_FLAGS
from consumers.mitigation.measure import (
    BLACKHOLE,
    FIREWALL,
    FLOWSPEC,
    KINDS,
    NOTIFY,
    validate_measure,
)
from consumers.mitigation.reason_key import MAX_KEY_BYTES
from consumers.policy.facts import AttackFacts, facts_of
from consumers.policy.measures import MAX_MEASURES, PlannedMeasures, plan_measures
from consumers.policy.model import HOSTGROUP, IGNORE, Action
from fnm_bus.event import Check, FlowMatch, FlowSpecAction, FlowSpecRule, FlowThen
from fnm_bus.event.parse import parse

BAN = facts("ban")._replace(protocol="udp")
GROUP_BAN = facts("hostgroup-ban")
DISCARD = FlowThen(action="discard")


def planned(
    subject: AttackFacts, action: str = FLOWSPEC, **keys: Any
) -> PlannedMeasures:
    plan = plan_measures(subject, Action(action=action, **keys))
    for measure in plan.measures:
        validate_measure(measure, measure.key)
    assert all(check.stage == "policy" for check in plan.checks)
    assert all(check.verdict == "refuse" for check in plan.checks)
    return plan


def with_rules(*rules: FlowSpecRule, **event: Any) -> AttackFacts:
    return facts_of(host_event(flow_spec_rules=rules, **event))[0]


def codes(plan: PlannedMeasures) -> list[str]:
    assert not plan.measures
    return [check.code for check in plan.checks]


@pytest.mark.parametrize("kind", [BLACKHOLE, FIREWALL, NOTIFY])
def test_a_host_is_a_network_of_one(kind: str) -> None:
    plan = planned(BAN, kind)
    assert [measure.key for measure in plan.measures] == [f"{kind}|203.0.113.25/32"]
    assert plan.checks == ()


def test_a_hostgroup_is_all_its_networks() -> None:
    plan = planned(GROUP_BAN, BLACKHOLE)
    assert [measure.prefix for measure in plan.measures] == [
        *("203.0.113.0/24", "198.51.100.0/25", "2001:db8:113::/48")
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_prefixes_of_an_action_replace_networks_and_rules(kind: str) -> None:
    prefix = ip_network("203.0.113.128/25")
    for subject in (BAN, facts("partial-block"), with_rules(flow_rule(ttls=(1,)))):
        plan = planned(subject, kind, prefixes=(prefix,))
        assert [measure.networks for measure in plan.measures] == [(prefix,)]
        assert plan.checks == ()


def test_communities_are_of_blackholes_only() -> None:
    for kind in KINDS:
        (measure,) = planned(BAN, kind, communities=("64500:666",)).measures
        assert measure.communities == (("64500:666",) if kind == BLACKHOLE else ())


@pytest.mark.parametrize("action", [IGNORE, HOSTGROUP])
def test_ignore_and_hostgroup_have_no_measures(action: str) -> None:
    assert planned(BAN, action) == PlannedMeasures((), ())


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_without_networks_is_refused(kind: str) -> None:
    assert codes(planned(facts("hostgroup-unban"), kind)) == ["no_network"]


# Bounds.


def hosts(count: int) -> tuple[Any, ...]:
    first = int(ip_network("203.0.0.0/32").network_address)
    return tuple(ip_network((first + number, 32)) for number in range(count))


@pytest.mark.parametrize("kind", [BLACKHOLE, FIREWALL, FLOWSPEC])
def test_too_many_measures_have_one_refusal(kind: str) -> None:
    most = BAN._replace(networks=hosts(MAX_MEASURES))
    assert len(planned(most, kind).measures) == MAX_MEASURES
    more = BAN._replace(networks=hosts(MAX_MEASURES + 1))
    assert codes(planned(more, kind)) == ["too_many_measures"]
    (check,) = planned(more, kind).checks
    assert check.text == "257 measures for one attack, allowed are 256"


def test_notify_has_measures_for_the_first_networks() -> None:
    plan = planned(BAN._replace(networks=hosts(20_000)), NOTIFY)
    assert len(plan.measures) == MAX_MEASURES
    assert plan.checks == ()


def test_too_many_rules_have_one_refusal() -> None:
    rules = tuple(flow_rule(source_ports=(port,)) for port in range(MAX_MEASURES + 1))
    assert codes(planned(with_rules(*rules))) == ["too_many_measures"]
    direct = BAN._replace(rules=rules, has_rules=True)
    assert codes(planned(direct)) == ["too_many_measures"]
    most = planned(with_rules(*rules[:-1]))
    assert len(most.measures) == MAX_MEASURES


def test_no_two_measures_have_one_key() -> None:
    host = ip_network("203.0.113.7/32")
    for kind in (BLACKHOLE, FLOWSPEC):
        assert len(planned(BAN, kind, prefixes=(host, host)).measures) == 1
    plan = planned(with_rules(flow_rule(), flow_rule(source_prefix="0.0.0.0/0")))
    assert len(plan.measures) == 1
    assert plan.checks == ()


def test_the_first_of_two_conflicting_rules_counts() -> None:
    redirect = flow_rule(
        action_type="redirect",
        action=FlowSpecAction(redirect_target_as=64500, redirect_target_value=1),
    )
    plan = planned(with_rules(flow_rule(), redirect), document_redirect=True)
    assert [measure.then for measure in plan.measures] == [DISCARD]
    assert [(check.name, check.code) for check in plan.checks] == [
        ("flow_spec_rules/1", "rules_conflict")
    ]


@pytest.mark.parametrize(
    "field", ["source_ports", "destination_ports", "packet_lengths"]
)
def test_a_match_with_too_many_values_is_refused(field: str) -> None:
    def plan(count: int) -> PlannedMeasures:
        values = {"source_ports": (), "protocols": (), field: tuple(range(count))}
        return planned(with_rules(flow_rule(**values)))

    assert len(plan(MAX_VALUES).measures) == 1
    assert codes(plan(MAX_VALUES + 1)) == ["match_too_large"]
    assert codes(plan(65_000)) == ["match_too_large"]


# Measures from the attack itself.


@pytest.mark.parametrize(
    ("word", "expected"),
    [("udp", "udp"), ("tcp", "tcp"), ("icmp", "icmp"), ("gre", "gre"), ("esp", "esp")],
)
def test_flowspec_matches_the_protocol_of_the_attack(word: str, expected: str) -> None:
    (measure,) = planned(BAN._replace(protocol=word)).measures
    assert measure.flow == FlowMatch(
        destination_prefix="203.0.113.25/32", protocols=(expected,)
    )
    assert measure.then == DISCARD


@pytest.mark.parametrize("word", ["sctp", "igmp"])
def test_flowspec_matches_protocols_by_their_number(word: str) -> None:
    (measure,) = planned(BAN._replace(protocol=word)).measures
    assert measure.flow is not None
    assert measure.flow.protocols == (word,)


@pytest.mark.parametrize("word", ["", "unknown", "hopopt", "quic", "17", "ipv6-icmp"])
def test_an_attack_without_a_supported_protocol_is_not_widened(word: str) -> None:
    subject = BAN._replace(protocol=word)
    plan = planned(subject)
    assert codes(plan) == ["protocol_not_supported"]
    assert "any_protocol = true" in plan.checks[0].text
    (measure,) = planned(subject, any_protocol=True).measures
    assert measure.flow == FlowMatch(destination_prefix="203.0.113.25/32")


def test_any_protocol_does_not_widen_a_supported_one() -> None:
    (measure,) = planned(BAN, any_protocol=True).measures
    assert measure.flow is not None
    assert measure.flow.protocols == ("udp",)


def test_icmp_has_another_number_in_ipv6() -> None:
    subject = BAN._replace(protocol="icmp", networks=(ip_network("2001:db8:1::7/128"),))
    (measure,) = planned(subject).measures
    assert measure.flow is not None
    assert measure.flow.protocols == ("ipv6-icmp",)


def test_one_network_whose_protocol_is_refused_refuses_all() -> None:
    both = (ip_network("203.0.113.7/32"), ip_network("2001:db8:1::7/128"))
    subject = BAN._replace(protocol="igmp", networks=both)
    assert codes(planned(subject)) == ["protocol_not_supported"]


def test_the_target_of_an_outgoing_attack_is_the_source() -> None:
    subject = facts("text-mode-ban-ipv6")
    assert subject.outgoing
    (measure,) = planned(subject).measures
    assert measure.flow == FlowMatch(
        source_prefix="2001:db8:99::99/128", protocols=("tcp",)
    )


def test_flowspec_has_the_configured_action() -> None:
    limit = FlowThen(action="rate-limit", rate=125_000)
    for subject in (BAN, facts("partial-block")):
        (measure,) = planned(subject, flowspec_action=limit).measures
        assert measure.then == limit


# Measures from a document's rules.


def test_a_rule_becomes_exactly_its_match() -> None:
    rule = flow_rule(
        source_prefix="198.51.100.9/24",
        protocols=("TCP",),
        source_ports=(123, 53, 53),
        destination_ports=(80,),
        packet_lengths=(1500,),
        fragmentation_flags=("Is-Fragment",),
        tcp_flags=("SYN|ACK",),
    )
    (measure,) = planned(with_rules(rule)).measures
    assert measure.flow == FlowMatch(
        destination_prefix=f"{HOST}/32",
        source_prefix="198.51.100.0/24",
        protocols=("tcp",),
        source_ports=(53, 123),
        destination_ports=(80,),
        packet_lengths=(1500,),
        fragmentation_flags=("is-fragment",),
        tcp_flags=("ack|syn",),
    )
    assert measure.then == DISCARD


def sample(text: str) -> AttackFacts:
    (first,) = facts_of(parse(text.encode(), [], RECEIPT).event)
    return first


def document(kind: str, host: str, /, **rule: Any) -> AttackFacts:
    return sample(
        json.dumps(
            {
                "action": kind,
                "alert_scope": "host",
                "ip": host,
                "attack_details": {
                    "attack_uuid": "0b6c1f0e-2d5e-4c3a-9a51-7c0f2f6b1a01",
                    "attack_direction": "incoming",
                    "attack_protocol": "udp",
                },
                "flow_spec_rules": [
                    {
                        "destination_prefix": f"{host}/32",
                        "protocols": ["udp"],
                        "source_ports": [53],
                        "action_type": "discard",
                        "action": {},
                        **rule,
                    }
                ],
            }
        )
    )


@pytest.mark.parametrize("action", ["ban", "partial_block"])
@pytest.mark.parametrize(
    "rule",
    [
        {"dscp": [46]},
        {"source_ports": ["53"]},
        {"source_ports": 53},
        {"source_ports": [53, 70_000]},
        {"protocols": "udp"},
        {"action": {"rate": "x"}},
        {"tcp_flags": [2]},
    ],
)
def test_an_invalid_rule_has_no_measure(action: str, rule: dict[str, Any]) -> None:
    """Nothing takes its place: neither the rest of the rule nor the whole attack."""
    subject = document(action, "203.0.113.63", **rule)
    for keys in ({}, {"any_protocol": True}, {"flowspec_action": DISCARD}):
        assert codes(planned(subject, **keys)) == ["rule_not_understood"]


def test_a_valid_rule_beside_an_invalid_one_has_a_measure() -> None:
    subject = with_rules(
        flow_rule(), flow_rule(source_ports=()), extra={"/flow_spec_rules/1/x": "1"}
    )
    plan = planned(subject)
    assert len(plan.measures) == 1
    assert [(check.name, check.code) for check in plan.checks] == [
        ("flow_spec_rules/1", "rule_not_understood")
    ]


REFUSAL = Check(stage="policy", name="x", code="x", verdict="refuse")


@pytest.mark.parametrize(
    "fields", [{"has_rules": True}, {"refused_rules": (REFUSAL,)}, {"part": "r1"}]
)
def test_an_event_about_rules_has_no_measure_of_attack(fields: dict[str, Any]) -> None:
    subject: Any = BAN._replace(**fields)
    plan = planned(subject, any_protocol=True)
    assert plan == PlannedMeasures((), subject.refused_rules)
    assert len(planned(BAN).measures) == 1


@pytest.mark.parametrize("action", ["partial_block", "partial_unblock"])
def test_a_partial_block_without_rules_has_no_measure(action: str) -> None:
    (subject,) = facts_of(host_event(action))
    assert codes(planned(subject)) == ["no_rules"]


@pytest.mark.parametrize(
    ("source", "destination", "host"),
    [
        ("0.0.0.0/0", "203.0.113.62/32", "203.0.113.62"),
        ("::/0", "2001:db8:1::7/128", "2001:db8:1::7"),
        ("203.0.113.62/32", "0.0.0.0/0", "203.0.113.62"),
    ],
)
def test_a_prefix_of_length_0_is_the_absent_field(
    source: str, destination: str, host: str
) -> None:
    subject = document(
        "partial_block", host, source_prefix=source, destination_prefix=destination
    )
    (measure,) = planned(subject).measures
    assert measure.flow == FlowMatch(
        source_prefix=None if source.endswith("/0") else source,
        destination_prefix=None if destination.endswith("/0") else destination,
        protocols=("udp",),
        source_ports=(53,),
    )
    assert "/0" not in measure.key


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ({"ttls": (64,)}, "part_not_supported"),
        ({"vlans": (113,)}, "part_not_supported"),
        ({"source_asns": (64496,)}, "part_not_supported"),
        ({"destination_asns": (64511,)}, "part_not_supported"),
        ({"input_interfaces": (529,)}, "part_not_supported"),
        ({"output_interfaces": (530,)}, "part_not_supported"),
        ({"agent_addresses": ("192.0.2.254",)}, "part_not_supported"),
        ({"fragmentation_flags": ("more",)}, "part_not_supported"),
        ({"tcp_flags": ("psh",)}, "part_not_supported"),
        ({"tcp_flags": ("syn|syn",)}, "part_not_supported"),
        ({"tcp_flags": ("syn|",)}, "part_not_supported"),
        ({"protocols": ("quic",)}, "protocol_not_supported"),
        ({"protocols": ("udp", "17")}, "protocol_not_supported"),
        ({"protocols": ("ipv6-icmp",)}, "protocol_not_supported"),
        ({"protocols": ("",)}, "protocol_not_supported"),
        ({"destination_prefix": None}, "no_network"),
        ({"destination_prefix": "0.0.0.0/0"}, "no_network"),
        (
            {"destination_prefix": "0.0.0.0/0", "source_prefix": "0.0.0.0/0"},
            "no_network",
        ),
        ({"source_prefix": "2001:db8::/32"}, "mixed_families"),
        ({"source_prefix": "::/0"}, "mixed_families"),
        ({"destination_prefix": "web"}, "prefix_not_understood"),
        ({"destination_prefix": "203.0.113.7/33"}, "prefix_not_understood"),
        ({"source_prefix": "fe80::1%eth0"}, "prefix_not_understood"),
        # A mask of zeros is /0 to some and /32 to others.
        ({"source_prefix": "198.51.100.1/0.0.0.0"}, "prefix_not_understood"),
        ({"destination_prefix": f"{HOST}/0.0.0.0"}, "prefix_not_understood"),
        ({"destination_prefix": f"{HOST}/255.255.255.255"}, "prefix_not_understood"),
    ],
)
def test_a_part_that_flowspec_cannot_match_refuses_the_rule(
    part: dict[str, Any], code: str
) -> None:
    assert codes(planned(with_rules(flow_rule(**part)))) == [code]
    both = planned(with_rules(flow_rule(**part), flow_rule(source_ports=(7,))))
    assert [m.flow.source_ports for m in both.measures if m.flow] == [(7,)]
    assert [check.name for check in both.checks] == ["flow_spec_rules/0"]


@pytest.mark.parametrize(
    "part", [{"protocols": ("icmp",)}, {"fragmentation_flags": ("dont-fragment",)}]
)
def test_words_of_the_other_family_refuse_the_rule(part: dict[str, Any]) -> None:
    host = "2001:db8:1::7"
    rule = flow_rule(destination_prefix=f"{host}/128", **part)
    assert len(codes(planned(with_rules(rule, ip=host)))) == 1
    assert len(planned(with_rules(flow_rule(**part))).measures) == 1


def test_a_rule_with_only_the_host_matches_all_traffic() -> None:
    rule = FlowSpecRule(destination_prefix=f"{HOST}/32")
    (measure,) = planned(with_rules(rule)).measures
    assert measure.flow == FlowMatch(destination_prefix=f"{HOST}/32")


# Permissions.


@pytest.mark.parametrize(
    "part",
    [
        {"destination_prefix": "203.0.113.8/32"},
        {"destination_prefix": "203.0.113.0/24"},
        {"destination_prefix": "203.0.113.6/31"},
        {"destination_prefix": None, "source_prefix": "198.51.100.0/24"},
    ],
)
def test_a_rule_about_another_host_needs_a_permission(part: dict[str, Any]) -> None:
    subject = with_rules(flow_rule(**part))
    plan = planned(subject)
    assert codes(plan) == ["another_target"]
    assert "document_targets = true" in plan.checks[0].text
    assert len(planned(subject, document_targets=True).measures) == 1


@pytest.mark.parametrize(
    "part",
    [
        {},
        {"source_prefix": "198.51.100.0/24"},
        {"destination_prefix": None, "source_prefix": f"{HOST}/32"},
        {"destination_prefix": "198.51.100.1/32", "source_prefix": f"{HOST}/32"},
    ],
)
def test_a_rule_about_the_target_needs_no_permission(part: dict[str, Any]) -> None:
    assert len(planned(with_rules(flow_rule(**part))).measures) == 1


REDIRECT = flow_rule(
    action_type="redirect",
    action=FlowSpecAction(redirect_target_as=64500, redirect_target_value=1),
)


def test_a_redirect_of_the_document_needs_a_permission() -> None:
    plan = planned(with_rules(REDIRECT))
    assert codes(plan) == ["redirect_not_allowed"]
    assert "document_redirect = true" in plan.checks[0].text
    (measure,) = planned(with_rules(REDIRECT), document_redirect=True).measures
    assert measure.then == FlowThen(
        action="redirect", redirect_as=64500, redirect_value=1
    )
    (measure,) = planned(with_rules(REDIRECT), flowspec_action=DISCARD).measures
    assert measure.then == DISCARD


# Actions of a document's rules.


def acting(word: str | None, **values: int) -> AttackFacts:
    action = FlowSpecAction(**values) if values else None
    return with_rules(flow_rule(action_type=word, action=action))


@pytest.mark.parametrize(
    "subject", [acting("discard"), acting(None), acting("rate-limit", rate=0)]
)
def test_a_discarding_rule_becomes_a_measure(subject: AttackFacts) -> None:
    (measure,) = planned(subject).measures
    assert measure.then == DISCARD


@pytest.mark.parametrize(
    "subject",
    [
        acting("rate-limit", rate=1024),
        acting("rate-limit"),
        acting("redirect"),
        acting("redirect", redirect_target_as=64500),
        acting("redirect", redirect_target_value=1),
        acting("redirect", redirect_target_as=65_536, redirect_target_value=65_536),
        acting("mark"),
        acting("accept"),
        acting("other"),
    ],
)
def test_an_action_without_a_documented_meaning_is_refused(
    subject: AttackFacts,
) -> None:
    assert codes(planned(subject, document_redirect=True)) == ["action_not_supported"]


@pytest.mark.parametrize("word", ["accept", "mark", "other"])
def test_a_rule_that_accepts_traffic_is_refused(word: str) -> None:
    assert codes(planned(acting(word), flowspec_action=DISCARD)) == [
        "action_not_supported"
    ]


def test_a_rate_of_the_policy_replaces_the_rules_rate() -> None:
    limit = FlowThen(action="rate-limit", rate=125_000)
    (measure,) = planned(acting("rate-limit", rate=7), flowspec_action=limit).measures
    assert measure.then == limit


@pytest.mark.parametrize(
    ("number", "value"), [(65_535, 2**32 - 1), (65_536, 65_535), (0, 0)]
)
def test_a_route_target_has_32_bits_on_one_side_only(number: int, value: int) -> None:
    subject = acting("redirect", redirect_target_as=number, redirect_target_value=value)
    (measure,) = planned(subject, document_redirect=True).measures
    assert measure.then == FlowThen(
        action="redirect", redirect_as=number, redirect_value=value
    )


ALLOW = "in the policy's rule would allow it"
UNSUPPORTED = "is not supported"
TEXTS: list[tuple[dict[str, Any], str]] = [
    ({"ttls": (64,)}, "ttls: FlowSpec cannot match it"),
    ({"destination_prefix": None}, "the rule names no network"),
    ({"destination_prefix": "0.0.0.0/0"}, "the rule names no network"),
    ({"destination_prefix": "web"}, "destination_prefix: 'web' is not a network"),
    ({"source_prefix": "::/0"}, "one prefix is IPv4, the other IPv6"),
    ({"protocols": ("quic",)}, f'protocols: protocol "quic" {UNSUPPORTED}'),
    (
        {"protocols": ("ipv6-icmp",)},
        'protocols: protocol "ipv6-icmp" does not exist in IPv4',
    ),
    ({"tcp_flags": ("psh",)}, f'tcp_flags: TCP flag "psh" {UNSUPPORTED}'),
    ({"tcp_flags": ("syn|syn",)}, 'tcp_flags: TCP flags "syn|syn" name one flag twice'),
    (
        {"fragmentation_flags": ("more",)},
        f'fragmentation_flags: fragmentation flag "more" {UNSUPPORTED}',
    ),
    (
        {
            "destination_prefix": "2001:db8::/32",
            "fragmentation_flags": ("dont-fragment",),
        },
        "fragmentation_flags: IPv6 has no dont-fragment (RFC 8956)",
    ),
    ({"source_ports": tuple(range(100))}, "the match has 101 values, allowed are 100"),
    ({"action_type": "accept"}, "accept: not enforced"),
    (
        {"action_type": "rate-limit"},
        (
            "rate-limit: FastNetMon does not document the unit of its rate; write"
            ' flowspec_action = "rate-limit" and rate (bytes/s) in the policy\'s rule'
        ),
    ),
    ({"action_type": "redirect"}, f"redirect: document_redirect = true {ALLOW}"),
    (
        {"destination_prefix": "203.0.113.8/32"},
        f"the rule is not about the event's target; document_targets = true {ALLOW}",
    ),
]


@pytest.mark.parametrize(("part", "text"), TEXTS, ids=[text for _, text in TEXTS])
def test_a_refusal_has_a_text_for_people(part: dict[str, Any], text: str) -> None:
    (check,) = planned(with_rules(flow_rule(**part))).checks
    assert (check.name, check.text) == ("flow_spec_rules/0", text)


def test_refusals_of_a_whole_document_have_texts() -> None:
    def refusals(subject: AttackFacts) -> list[tuple[str, str]]:
        return [(check.name, check.text) for check in planned(subject).checks]

    unknown = BAN._replace(protocol="unknown")
    allow = "; any_protocol = true would block all protocols"
    assert refusals(unknown) == [
        ("protocol", f"the attack's protocol is not in the event{allow}")
    ]
    assert refusals(BAN._replace(protocol="")) == refusals(unknown)
    assert refusals(BAN._replace(protocol="hopopt")) == refusals(unknown)
    assert refusals(BAN._replace(protocol="quic")) == [
        ("protocol", f'protocol "quic" {UNSUPPORTED}{allow}')
    ]
    assert refusals(BAN._replace(networks=())) == [
        ("networks", "the event names no network")
    ]
    assert refusals(BAN._replace(networks=hosts(300))) == [
        ("networks", "300 measures for one attack, allowed are 256")
    ]
    rules = tuple(flow_rule(source_ports=(port,)) for port in range(257))
    assert refusals(BAN._replace(rules=rules, has_rules=True)) == [
        ("flow_spec_rules", "257 measures for one attack, allowed are 256")
    ]
    assert refusals(with_rules(*rules)) == [
        ("flow_spec_rules", "257 Flow Spec rules, allowed are 256")
    ]
    assert refusals(facts_of(host_event("partial_block"))[0]) == [
        ("flow_spec_rules", "a partial block or unblock without Flow Spec rules")
    ]
    whole = with_rules(flow_rule(), extra={"/flow_spec_rules": "1"})
    assert refusals(whole) == [("flow_spec_rules", "the list is not understood")]
    single = with_rules(flow_rule(), extra={"/flow_spec_rules/0": "7"})
    assert refusals(single) == [("flow_spec_rules/0", "not understood: the rule = 7")]
    two = with_rules(
        flow_rule(), extra={"/flow_spec_rules/0/a": "7", "/flow_spec_rules/0/b": "8"}
    )
    assert refusals(two) == [("flow_spec_rules/0", "not understood: a = 7, and 1 more")]


def test_an_action_of_the_policy_leaves_no_conflict() -> None:
    subject = with_rules(flow_rule(), flow_rule(action_type="redirect"))
    plan = planned(subject, flowspec_action=DISCARD)
    assert (len(plan.measures), plan.checks) == (1, ())


def test_a_redirect_without_a_route_target_has_a_text() -> None:
    (check,) = planned(acting("redirect"), document_redirect=True).checks
    assert check.text == "redirect: not a route target"


def test_a_conflicting_rule_has_a_text() -> None:
    redirect = flow_rule(
        action_type="redirect",
        action=FlowSpecAction(redirect_target_as=64500, redirect_target_value=1),
    )
    (check,) = planned(with_rules(flow_rule(), redirect), document_redirect=True).checks
    assert check.text == "an earlier rule of the document matches the same packets"


# Every measure of a rule is valid, and matches no more than the rule.

WORDS = {
    "protocols": [*PROTOCOLS, "UDP", "quic", "17"],
    "fragmentation_flags": [*FRAGMENTS, "more"],
    "tcp_flags": [*TCP_FLAGS, "syn|ack", "psh"],
}
PREFIXES = st.none() | st.sampled_from(
    [
        *(f"{HOST}/32", "203.0.113.0/24", "203.0.113.9/28", "0.0.0.0/0", "::/0"),
        *("2001:db8:1::/64", "x", "198.51.100.1/32"),
    ]
)


def some(values: Any, most: int = 3) -> Any:
    return st.lists(values, max_size=most).map(tuple)


RULES = st.builds(
    FlowSpecRule,
    destination_prefix=PREFIXES,
    source_prefix=PREFIXES,
    **{name: some(st.sampled_from(words)) for name, words in WORDS.items()},
    source_ports=some(st.integers(0, 65_535), 120),
    destination_ports=some(st.integers(0, 65_535)),
    packet_lengths=some(st.integers(0, 65_535)),
    ttls=some(st.integers(0, 255), 1),
    action_type=st.none() | st.sampled_from(["discard", "accept", "rate-limit"]),
)


@given(st.lists(RULES, min_size=1, max_size=4), st.booleans())
def test_every_measure_of_a_rule_is_valid_and_no_wider(
    rules: list[FlowSpecRule],
    allowed: bool,  # noqa: FBT001 - drawn
) -> None:
    plan = planned(with_rules(*rules), document_targets=allowed)
    assert len(plan.measures) + len(plan.checks) <= len(rules)
    for measure in plan.measures:
        assert len(measure.key.encode()) <= MAX_KEY_BYTES
        flow = measure.flow
        assert flow is not None
        assert any(_same(flow, rule) for rule in rules)


def _same(flow: FlowMatch, rule: FlowSpecRule) -> bool:
    """Compare a match with a rule, field by field and without the canonical form."""
    for name in ("destination_prefix", "source_prefix"):
        text, sent = getattr(flow, name), getattr(rule, name)
        network = ip_network(sent, strict=False) if sent and sent != "x" else None
        if text != (
            str(network) if network is not None and network.prefixlen else None
        ):
            return False
    for name in ("source_ports", "destination_ports", "packet_lengths"):
        if set(getattr(flow, name)) != set(getattr(rule, name)):
            return False
    for name in WORDS:
        words = {frozenset(word.lower().split("|")) for word in getattr(rule, name)}
        if {frozenset(word.split("|")) for word in getattr(flow, name)} != words:
            return False
    return not rule.ttls and rule.action_type in {None, "discard"}
