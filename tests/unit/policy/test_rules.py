"""The rule that decides about an event, with its checks."""

import time
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from support.attack_facts import facts

from consumers.mitigation.measure import BLACKHOLE, FIREWALL, FLOWSPEC, NOTIFY
from consumers.policy.facts import AttackFacts
from consumers.policy.model import (
    HOSTGROUP,
    IGNORE,
    Action,
    Customer,
    Limits,
    Match,
    Policy,
    Rule,
)
from consumers.policy.networks import NetworkSet
from consumers.policy.rules import Decision, customer_of, first_mismatch, match_rule

BAN = facts("ban")  # 203.0.113.25, 289,104 packets/s, 3,303,012,344 bit/s
GROUP_BAN = facts("hostgroup-ban")


def rule(name: str, action: str = NOTIFY, **match: Any) -> Rule:
    return Rule(name=name, match=Match(**match), action=Action(action=action))


def decided(subject: AttackFacts, *rules: Rule) -> Decision:
    return match_rule(subject, Policy(rules=rules, limits=Limits()))


def mismatch(subject: AttackFacts, match: Match) -> str:
    fault = first_mismatch(subject, match, NetworkSet(subject.networks))
    return fault.text if fault else ""


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
def test_a_met_condition_matches(match: dict[str, Any]) -> None:
    assert mismatch(BAN, Match(**match)) == ""


@pytest.mark.parametrize(
    ("match", "fault"),
    [
        ({"scopes": words("hostgroup")}, "scope is host, expected hostgroup"),
        (
            {"actions": words("partial_block", "attack_status")},
            "action is ban, expected attack_status or partial_block",
        ),
        ({"hostgroups": words("x")}, "hostgroup is customers, expected x"),
        (
            {"prefixes": (ip_network("203.0.113.0/28"),)},
            "203.0.113.25/32 is not within 203.0.113.0/28",
        ),
        ({"prefixes": (ip_network("::/0"),)}, "203.0.113.25/32 is not within ::/0"),
        ({"directions": words("outgoing")}, "direction is incoming, expected outgoing"),
        ({"protocols": words("udp")}, "protocol is none, expected udp"),
        (
            {"thresholds": words("packets per second")},
            "threshold is bytes per second, expected packets per second",
        ),
        ({"severities": words("high")}, "severity is middle, expected high"),
        ({"sensors": words("ams1")}, "sensor is fra1, expected ams1"),
        ({"flow_spec": True}, "flow_spec is false, expected true"),
        ({"min_pps": 289_105}, "pps is 289104, expected at least 289105"),
        ({"max_pps": 289_104}, "pps is 289104, expected less than 289104"),
        (
            {"min_bits": 3_303_012_345},
            "bits is 3303012344, expected at least 3303012345",
        ),
        (
            {"max_bits": 3_303_012_344},
            "bits is 3303012344, expected less than 3303012344",
        ),
    ],
)
def test_an_unmet_condition_is_explained(match: dict[str, Any], fault: str) -> None:
    assert mismatch(BAN, Match(**match)) == fault


def test_all_conditions_have_to_be_met() -> None:
    conditions = Match(scopes=words("host"), sensors=words("ams1"))
    assert mismatch(BAN, conditions) == "sensor is fra1, expected ams1"


def test_an_event_without_a_size_is_neither_large_nor_small() -> None:
    small = facts("text-mode-ban")._replace(bits=None)
    assert mismatch(small, Match(min_pps=1)) == ""
    assert mismatch(small, Match(min_bits=0)) == "bits is not in the event"
    assert mismatch(small, Match(max_bits=10**12)) == "bits is not in the event"


def test_flow_spec_documents_match_flow_spec() -> None:
    assert mismatch(facts("partial-block"), Match(flow_spec=True)) == ""
    assert mismatch(facts("partial-block"), Match(flow_spec=False)) != ""


def test_a_hostgroup_matches_if_all_networks_are_within_prefixes() -> None:
    v4 = tuple(map(ip_network, ("203.0.113.0/24", "198.51.100.0/24")))
    assert mismatch(GROUP_BAN, Match(prefixes=v4)) == (
        "203.0.113.0/24, 198.51.100.0/25, 2001:db8:113::/48 is not within"
        " 203.0.113.0/24, 198.51.100.0/24"
    )
    both = (*v4, ip_network("2001:db8::/32"))
    assert mismatch(GROUP_BAN, Match(prefixes=both)) == ""


def test_an_event_without_networks_matches_no_prefix() -> None:
    subject = facts("hostgroup-unban")
    fault = mismatch(subject, Match(prefixes=(ip_network("0.0.0.0/0"),)))
    assert fault == "no network is not within 0.0.0.0/0"


def test_a_long_list_of_networks_is_shortened() -> None:
    many = tuple(ip_network(f"192.0.2.{number}/32") for number in range(8))
    fault = mismatch(BAN, Match(prefixes=many))
    assert fault.endswith("192.0.2.4/32, 3 more")


def test_the_first_rule_that_matches_decides() -> None:
    first, second = rule("a", BLACKHOLE, scopes=words("host")), rule("b")
    assert decided(BAN, first, second).rule is first
    assert decided(BAN, second, first).rule is second


def test_each_rule_that_was_tried_has_a_check() -> None:
    rules = rule("a", min_pps=10**6), rule("b", BLACKHOLE), rule("c")
    checks = decided(BAN, *rules).checks
    assert [
        (check.stage, check.name, check.code, check.verdict, check.text)
        for check in checks
    ] == [
        (
            *("policy", "a", "min_pps", "no-match"),
            "pps is 289104, expected at least 1000000",
        ),
        ("policy", "b", "match", "match", "→ blackhole"),
    ]


def test_without_a_matching_rule_no_rule_decides() -> None:
    decision = decided(BAN, rule("a", scopes=words("hostgroup")))
    assert decision.rule is None
    assert [check.verdict for check in decision.checks] == ["no-match"]
    assert decided(BAN) == (None, ())


def test_the_first_customer_with_a_containing_network_counts() -> None:
    acme = Customer(name="acme", networks=(ip_network("203.0.113.0/26"),), max_active=1)
    rest = Customer(name="rest", networks=(ip_network("203.0.113.0/24"),), max_active=1)
    customers = (acme, rest)
    assert customer_of(ip_network("203.0.113.25/32"), customers) is acme
    assert customer_of(ip_network("203.0.113.0/25"), customers) is rest
    assert customer_of(ip_network("198.51.100.1/32"), customers) is None
    assert customer_of(ip_network("203.0.113.25/32"), ()) is None


def test_a_decision_changes_neither_facts_nor_policy() -> None:
    policy = Policy(rules=(rule("a"),), limits=Limits())
    before = replace(policy)
    assert match_rule(BAN, policy) == match_rule(BAN, policy)
    assert policy == before


@pytest.mark.parametrize(
    ("match", "code"),
    [
        ({"scopes": words("hostgroup")}, "scope"),
        ({"actions": words("partial_block")}, "action"),
        ({"hostgroups": words("x")}, "hostgroup"),
        ({"prefixes": (ip_network("203.0.113.0/28"),)}, "prefix"),
        ({"directions": words("outgoing")}, "direction"),
        ({"protocols": words("udp")}, "protocol"),
        ({"thresholds": words("x")}, "threshold"),
        ({"severities": words("high")}, "severity"),
        ({"sensors": words("ams1")}, "sensor"),
        ({"flow_spec": True}, "flow_spec"),
        ({"min_pps": 289_105}, "min_pps"),
        ({"max_pps": 289_104}, "max_pps"),
        ({"min_bits": 3_303_012_345}, "min_bits"),
        ({"max_bits": 3_303_012_344}, "max_bits"),
    ],
)
def test_the_code_is_the_key_of_the_condition(match: dict[str, Any], code: str) -> None:
    (check,) = decided(BAN, rule("a", **match)).checks
    assert check.code == code


def test_a_missing_size_has_a_separate_code() -> None:
    for unit in ("pps", "bits"):
        subject = BAN._replace(pps=None, bits=None)
        for bound in ("min", "max"):
            (check,) = decided(subject, rule("a", **{f"{bound}_{unit}": 5})).checks
            assert (check.code, check.text) == (unit, f"{unit} is not in the event")


def test_a_status_counts_like_its_ban() -> None:
    status = facts("attack-status")
    assert mismatch(status, Match(actions=words("ban"))) == ""
    assert mismatch(status, Match(actions=words("attack_status"))) == ""
    assert mismatch(status, Match(actions=words("partial_block"))) != ""


def test_invalid_rules_count_as_flow_spec_rules() -> None:
    subject = BAN._replace(has_rules=True)
    assert mismatch(subject, Match(flow_spec=True)) == ""
    assert mismatch(subject, Match(flow_spec=False)) != ""


# Outgoing attacks.

OUTGOING = BAN._replace(direction="outgoing")


@pytest.mark.parametrize("action", [BLACKHOLE, FLOWSPEC, FIREWALL, HOSTGROUP])
def test_a_blocking_rule_must_name_the_outgoing_direction(action: str) -> None:
    (check,) = decided(OUTGOING, rule("a", action)).checks
    assert (check.code, check.verdict) == ("outgoing", "no-match")
    assert decided(BAN, rule("a", action)).rule
    named = rule("a", action, directions=words("outgoing", "incoming"))
    assert decided(OUTGOING, named).rule is named
    assert decided(BAN, named).rule is named
    other = rule("a", action, directions=words("incoming"))
    assert decided(OUTGOING, other).checks[0].code == "direction"


@pytest.mark.parametrize("action", [NOTIFY, IGNORE])
def test_a_rule_without_blocking_matches_outgoing_attacks(action: str) -> None:
    assert decided(OUTGOING, rule("a", action)).rule


@pytest.mark.parametrize("direction", ["internal", "other", "unknown", ""])
def test_other_directions_need_not_be_named(direction: str) -> None:
    subject = BAN._replace(direction=direction)
    assert decided(subject, rule("a", BLACKHOLE)).rule


# Bounds.


def hosts(start: str, count: int) -> Iterable[Any]:
    first = int(ip_network(start).network_address)
    return (ip_network((first + number, 32)) for number in range(count))


def test_20000_networks_and_100_rules_are_decided_quickly() -> None:
    subject = GROUP_BAN._replace(networks=tuple(hosts("203.0.0.0/32", 20_000)))
    almost = tuple(ip_network(f"203.0.{number}.0/24") for number in range(78))
    every = (*almost, ip_network("203.0.78.0/24"))
    rules = [rule(f"r{n}", prefixes=almost) for n in range(99)]
    rules.append(rule("last", prefixes=every))
    start = time.process_time()
    decision = decided(subject, *rules)
    assert time.process_time() - start < 0.5
    assert decision.rule is rules[-1]
    assert len(decision.checks) == 100
    assert max(len(check.text) for check in decision.checks) < 300


def test_texts_of_checks_are_short() -> None:
    many = words(*(f"group-{number}" for number in range(1000)))
    (check,) = decided(BAN, rule("a", hostgroups=many)).checks
    assert check.text.endswith("or 995 more")


def test_texts_of_checks_are_printable() -> None:
    subject = BAN._replace(threshold="a\x1b[2J\n")
    (check,) = decided(subject, rule("a", thresholds=words("x"))).checks
    assert check.text == r"threshold is a\x1b[2J\n, expected x"
    assert check.text.isprintable()


def test_five_words_or_networks_are_shown_in_full() -> None:
    five = words(*"abcde")
    assert mismatch(BAN, Match(hostgroups=five)).endswith(
        "expected a or b or c or d or e"
    )
    networks = tuple(ip_network(f"192.0.2.{number}/32") for number in range(5))
    assert mismatch(BAN, Match(prefixes=networks)).endswith(
        "192.0.2.3/32, 192.0.2.4/32"
    )


def test_a_mismatch_has_the_condition_as_code() -> None:
    networks = NetworkSet(BAN.networks)
    outside = Match(prefixes=(ip_network("192.0.2.0/24"),))
    fault = first_mismatch(BAN, outside, networks)
    assert fault is not None
    assert fault.code == "prefix"


def test_the_reason_of_an_outgoing_attack_names_the_remedy() -> None:
    (check,) = decided(OUTGOING, rule("a", BLACKHOLE)).checks
    assert check.text == (
        'the attack is outgoing; a blocking rule needs direction = "outgoing"'
    )


@pytest.mark.parametrize(
    ("field", "key"),
    [
        ("hostgroup", "hostgroups"),
        ("direction", "directions"),
        ("protocol", "protocols"),
        ("threshold", "thresholds"),
        ("severity", "severities"),
    ],
)
def test_none_matches_an_event_without_the_value(field: str, key: str) -> None:
    empty: Any = BAN._replace(**{field: None if field == "hostgroup" else ""})
    assert mismatch(empty, Match(**{key: words("none")})) == ""
    present: Any = BAN._replace(**{field: "x"})
    assert mismatch(present, Match(**{key: words("none")})) == (
        f"{field} is x, expected none"
    )
