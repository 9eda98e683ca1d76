"""Problems of a policy's key in combination with other keys."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.attack_facts import example_facts

from consumers.mitigation.measure import Network
from consumers.policy.facts import AttackFacts
from consumers.policy.file.check import find_problems
from consumers.policy.file.field_types import parse_network
from consumers.policy.file.load import build_policy
from consumers.policy.file.reach import covers
from consumers.policy.file.tables import PolicyTables
from consumers.policy.model import Action, Limits, Match, Policy, Rule
from consumers.policy.rules import match_rule

OWN = 'own_networks = ["203.0.113.0/24", "2001:db8:1::/48"]\n'
INFORM = '[[rule]]\nname = "x"\nthen.action = "notify"\n'
HOSTGROUP = """
[[hostgroup]]
name = "customers"
prefixes = "203.0.113.9"
action = "blackhole"
"""


def problems(text: str) -> list[tuple[str, str]]:
    """Return the paths, with dots, and the texts of all problems."""
    tables = PolicyTables.model_validate(tomllib.loads(text))
    rows = find_problems(tables, build_policy(tables))
    return [(".".join(map(str, problem.path)), problem.text) for problem in rows]


def then(pairs: str, more: str = "", match: str = "{}") -> list[tuple[str, str]]:
    rule = f'[[rule]]\nname = "x"\nmatch = {match}\nthen = {{ {pairs} }}\n'
    return problems(f"{OWN}{rule}{more}")


def test_a_valid_policy_has_no_problems() -> None:
    assert problems(OWN + INFORM) == []


@pytest.mark.parametrize("kind", ["customer", "hostgroup", "rule"])
def test_names_are_unique(kind: str) -> None:
    bodies = {
        "customer": ('networks = "203.0.113.1"', 'networks = "203.0.113.2"'),
        "hostgroup": ('prefixes = "203.0.113.1"\naction = "notify"',) * 2,
        "rule": (
            'match.sensor = "a"\nthen.action = "notify"',
            'match.sensor = "b"\nthen.action = "notify"',
        ),
    }
    text = "".join(f'[[{kind}]]\nname = "same"\n{body}\n' for body in bodies[kind])
    rest = "" if kind == "rule" else INFORM
    assert problems(OWN + text + rest) == [
        (f"{kind}.1.name", f"an earlier {kind} has this name")
    ]


@pytest.mark.parametrize("own", ["0.0.0.0/0", "::/0", "224.0.0.0/4", "127.0.0.0/8"])
def test_a_special_or_unlimited_own_network_is_a_problem(own: str) -> None:
    ((path, text),) = problems(f'own_networks = ["203.0.113.0/24", "{own}"]\n{INFORM}')
    assert path == "own_networks.1"
    assert text.startswith(f"{own} is unspecified, multicast, loopback")


@pytest.mark.parametrize("key", ["protected_prefixes", "infrastructure"])
@pytest.mark.parametrize("network", ["203.0.113.0/24", "203.0.0.0/16", "2001:db8::/32"])
def test_protecting_all_of_an_own_network_is_a_problem(key: str, network: str) -> None:
    text = f'{OWN}guardrails.{key} = ["192.0.2.1", "{network}"]\n{INFORM}'
    ((path, message),) = problems(text)
    assert path == f"guardrails.{key}.1"
    assert message.startswith(f"{network} covers all of your network ")


def test_a_customer_network_outside_the_own_is_a_problem() -> None:
    customer = '[[customer]]\nname = "a"\nnetworks = ["203.0.113.0/25", "192.0.2.0/24"]'
    assert problems(OWN + INFORM + customer) == [
        ("customer.0.networks.1", "192.0.2.0/24 is not within your own networks")
    ]


def test_a_customer_behind_a_wider_customer_is_a_problem() -> None:
    wide = '[[customer]]\nname = "wide"\nnetworks = "203.0.113.0/24"\n'
    narrow = '[[customer]]\nname = "narrow"\nnetworks = "203.0.113.0/25"\n'
    assert problems(OWN + INFORM + narrow + wide) == []
    ((path, text),) = problems(OWN + INFORM + wide + narrow)
    assert path == "customer.1.networks.0"
    assert 'customer "wide", which is tried before' in text


PREFIXES = [
    ("192.0.2.1", "192.0.2.1/32 is not within your own networks"),
    ("203.0.113.0/25", "203.0.113.0/25 covers 203.0.113.66/32, which is protected"),
    ("203.0.113.77", "203.0.113.77/32 is protected itself"),
]
RAILS = """
[guardrails]
min_prefix_length_ipv4 = 28
protected_prefixes = "203.0.113.66"
infrastructure = "203.0.113.77"
"""


@pytest.mark.parametrize(("prefix", "fault"), PREFIXES)
def test_prefixes_of_rules_pass_the_guardrails(prefix: str, fault: str) -> None:
    assert then('action = "blackhole", prefixes = "203.0.113.0/28"', RAILS) == []
    rows = then(f'action = "blackhole", prefixes = "{prefix}"', RAILS)
    assert {path for path, _ in rows} == {"rule.0.then.prefixes.0"}
    assert any(fault in text for _, text in rows)


@pytest.mark.parametrize(("prefix", "fault"), PREFIXES)
def test_prefixes_of_hostgroups_pass_the_guardrails(prefix: str, fault: str) -> None:
    group = f'[[hostgroup]]\nname = "g"\nprefixes = "{prefix}"\naction = "firewall"\n'
    rows = problems(OWN + INFORM + group + RAILS)
    assert {path for path, _ in rows} == {"hostgroup.0.prefixes.0"}
    assert any(fault in text for _, text in rows)


@pytest.mark.parametrize("action", ["blackhole", "firewall", "notify", "ignore"])
@pytest.mark.parametrize(
    "pair", ['flowspec_action = "discard"', "rate = 5", 'redirect = "64500:1"']
)
def test_flowspec_keys_need_the_flowspec_action(action: str, pair: str) -> None:
    key = pair.partition(" ")[0]
    assert then(f'action = "{action}", {pair}') == [
        (
            f"rule.0.then.{key}",
            f'only action "flowspec" has this key, and this is "{action}"',
        )
    ]


@pytest.mark.parametrize(
    ("pairs", "path"),
    [
        ('flowspec_action = "rate-limit"', "rate"),
        ('flowspec_action = "redirect"', "redirect"),
        ('flowspec_action = "discard", rate = 5', "rate"),
        ("rate = 5", "rate"),
        ('flowspec_action = "rate-limit", rate = 5, redirect = "64500:1"', "redirect"),
        ('redirect = "64500:1"', "redirect"),
    ],
)
def test_rate_and_redirect_need_their_flowspec_action(pairs: str, path: str) -> None:
    ((rule_path, _),) = then(f'action = "flowspec", {pairs}')
    assert rule_path == f"rule.0.then.{path}"


@pytest.mark.parametrize(
    "pairs",
    [
        'flowspec_action = "discard"',
        'flowspec_action = "rate-limit", rate = 5',
        'flowspec_action = "redirect", redirect = "64500:1"',
    ],
)
def test_a_complete_flowspec_action_is_not_a_problem(pairs: str) -> None:
    assert then(f'action = "flowspec", {pairs}') == []


@pytest.mark.parametrize("action", ["flowspec", "firewall", "notify", "ignore"])
def test_communities_need_the_blackhole_action(action: str) -> None:
    assert then('action = "blackhole", communities = ["64500:666"]') == []
    ((path, text),) = then(f'action = "{action}", communities = ["64500:666"]')
    assert path == "rule.0.then.communities"
    assert text == f'only action "blackhole" has this key, and this is "{action}"'


@pytest.mark.parametrize(
    ("action", "enforcers", "fine"),
    [
        ("blackhole", '["exabgp"]', True),
        ("flowspec", '["exabgp", "nftables"]', True),
        ("firewall", '["nftables"]', True),
        ("firewall", '["router-script"]', True),
        ("firewall", '["exabgp", "router-script"]', True),
        ("firewall", '["exabgp"]', False),
        ("blackhole", '["nftables"]', False),
        ("flowspec", '["nftables"]', False),
        ("notify", '["exabgp", "nftables"]', False),
    ],
)
def test_one_of_the_enforcers_supports_the_measure(
    action: str, enforcers: str, *, fine: bool
) -> None:
    rows = then(f'action = "{action}", enforcers = {enforcers}')
    assert [path for path, _ in rows] == ([] if fine else ["rule.0.then.enforcers"])


def test_actions_of_hostgroups_are_checked_too() -> None:
    group = HOSTGROUP + 'enforcers = "nftables"\nflowspec_action = "discard"\n'
    assert [path for path, _ in problems(OWN + INFORM + group)] == [
        "hostgroup.0.flowspec_action",
        "hostgroup.0.enforcers",
    ]


@pytest.mark.parametrize(
    ("pairs", "key"),
    [
        ('action = "hostgroup"', "action"),
        ('action = "blackhole", when_limited = "hostgroup"', "when_limited"),
    ],
)
def test_a_rule_for_hostgroups_needs_a_hostgroup(pairs: str, key: str) -> None:
    assert then(pairs, HOSTGROUP) == []
    assert then(pairs) == [
        (
            f"rule.0.then.{key}",
            '"hostgroup" needs a [[hostgroup]], and the file has none',
        )
    ]


def test_each_hostgroup_of_a_rule_needs_its_table() -> None:
    match = '{ hostgroup = ["customers", "servers"] }'
    assert then('action = "blackhole"', HOSTGROUP, match) == []
    assert then('action = "hostgroup"', HOSTGROUP, match) == [
        ("rule.0.then.action", "there is no [[hostgroup]] with the name servers")
    ]


@pytest.mark.parametrize(
    "pair",
    [
        'lease = "5m"',
        'enforcers = "exabgp"',
        'prefixes = "203.0.113.9"',
        "dry_run = true",
        "approval = true",
        'when_limited = "approve"',
        'flowspec_action = "discard"',
        'communities = ["64500:666"]',
    ],
)
def test_a_rule_for_hostgroups_has_no_other_keys(pair: str) -> None:
    rows = then(f'action = "hostgroup", {pair}', HOSTGROUP)
    assert [path for path, _ in rows] == [f"rule.0.then.{pair.partition(' ')[0]}"]


@pytest.mark.parametrize(
    ("match", "path"),
    [
        ("{ min_pps = 5, max_pps = 5 }", "min_pps"),
        ("{ min_bits = 6, max_bits = 5 }", "min_bits"),
        ('{ prefix = ["203.0.113.0/25", "192.0.2.0/24"] }', "prefix.1"),
        ('{ scope = "hostgroup", action = "partial_block" }', "action"),
    ],
)
def test_an_impossible_condition_is_a_problem(match: str, path: str) -> None:
    ((rule_path, _),) = then('action = "notify"', match=match)
    assert rule_path == f"rule.0.match.{path}"


@pytest.mark.parametrize(
    "match",
    [
        "{ min_pps = 4, max_pps = 5 }",
        '{ prefix = ["203.0.0.0/16", "203.0.113.7"] }',
        '{ scope = ["host", "hostgroup"], action = "partial_block" }',
        '{ scope = "hostgroup", action = ["ban", "partial_block"] }',
    ],
)
def test_a_possible_condition_is_not_a_problem(match: str) -> None:
    assert then('action = "notify"', match=match) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("{}", "{}"),
        ("{}", '{ scope = "host", min_pps = 5 }'),
        ('{ protocol = ["udp", "tcp"] }', '{ protocol = "tcp" }'),
        ('{ scope = ["host", "hostgroup"] }', "{}"),
        ('{ action = ["ban", "partial_block", "attack_status"] }', "{}"),
        ('{ prefix = "203.0.113.0/24" }', '{ prefix = "203.0.113.64/26" }'),
        ("{ flow_spec = true }", '{ flow_spec = true, scope = "host" }'),
        ("{ min_pps = 5 }", "{ min_pps = 5 }"),
        ("{ min_pps = 5 }", "{ min_pps = 6, max_pps = 7 }"),
        ("{ max_bits = 7 }", "{ max_bits = 7, min_bits = 1 }"),
        ("{ min_pps = 0 }", "{ max_pps = 7 }"),
    ],
)
def test_a_covered_rule_is_a_problem(first: str, second: str) -> None:
    later = f'[[rule]]\nname = "y"\nmatch = {second}\nthen.action = "blackhole"\n'
    ((path, text),) = then('action = "notify"', later, first)
    assert path == "rule.1"
    assert text.startswith('is never tried: the earlier rule "x" matches each')


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('{ scope = "host" }', "{}"),
        ('{ protocol = "tcp" }', '{ protocol = ["udp", "tcp"] }'),
        ('{ prefix = "203.0.113.0/25" }', '{ prefix = "203.0.113.0/24" }'),
        (
            '{ prefix = ["203.0.113.0/24"] }',
            '{ prefix = ["203.0.113.9", "2001:db8:1::"] }',
        ),
        ('{ prefix = "203.0.113.0/24" }', "{}"),
        ("{ flow_spec = true }", "{ flow_spec = false }"),
        ("{ flow_spec = false }", "{}"),
        ("{ min_pps = 6 }", "{ min_pps = 5 }"),
        ("{ max_pps = 6 }", "{ max_pps = 7 }"),
        ("{ max_pps = 6 }", "{ min_pps = 7 }"),
        ("{ min_pps = 0 }", "{}"),  # an event may lack a size
        ("{ min_pps = 5 }", "{ min_bits = 5 }"),
        ('{ direction = ["incoming", "outgoing"] }', "{}"),
    ],
)
def test_a_rule_that_is_not_covered_is_not_a_problem(first: str, second: str) -> None:
    later = f'[[rule]]\nname = "y"\nmatch = {second}\nthen.action = "blackhole"\n'
    assert then('action = "notify"', later, first) == []


NETWORKS: list[Network] = [
    parse_network(text)
    for text in ("203.0.113.0/24", "203.0.113.25", "2001:db8::/32", "::/0")
]
SIZES = st.none() | st.sampled_from([0, 1, 70_000, 289_104, 289_105, 10**6])


def some(*words: str) -> Any:
    return st.frozensets(st.sampled_from(words), max_size=2)


RULES = st.builds(
    lambda action, **match: Rule(
        name="x", match=Match(**match), action=Action(action=action)
    ),
    action=st.sampled_from(["blackhole", "notify"]),
    scopes=some("host", "hostgroup"),
    actions=some("ban", "partial_block", "attack_status"),
    hostgroups=some("customers", "none"),
    prefixes=st.lists(st.sampled_from(NETWORKS), max_size=2).map(tuple),
    directions=some("incoming", "outgoing", "unknown"),
    protocols=some("udp", "none"),
    flow_spec=st.none() | st.booleans(),
    min_pps=SIZES,
    max_pps=SIZES,
)


def matches(facts: AttackFacts, rule: Rule) -> bool:
    return match_rule(facts, Policy(rules=(rule,), limits=Limits())).rule is not None


@given(RULES, RULES, st.sampled_from(example_facts()))
def test_a_rule_that_covers_another_matches_all_that_it_matches(
    wide: Rule, narrow: Rule, facts: AttackFacts
) -> None:
    if covers(wide, narrow) and facts.action in {"ban", "partial_block"}:
        assert matches(facts, wide) or not matches(facts, narrow)


@given(RULES)
def test_every_rule_covers_itself(rule: Rule) -> None:
    assert covers(rule, rule)


@pytest.mark.parametrize(
    ("first", "second", "covered"),
    [
        ("blackhole", "blackhole", True),
        ("blackhole", "notify", False),  # the outgoing attacks are left to it
        ("notify", "blackhole", True),
        ("ignore", "notify", True),
    ],
)
def test_a_blocking_rule_does_not_cover_outgoing_attacks(
    first: str, second: str, *, covered: bool
) -> None:
    text = f'{OWN}[[rule]]\nname = "x"\nthen.action = "{first}"\n'
    text += f'[[rule]]\nname = "y"\nthen.action = "{second}"\n'
    assert [path for path, _ in problems(text)] == (["rule.1"] if covered else [])


def test_the_default_hostgroup_of_hosts_never_matches() -> None:
    match = '{ scope = "host", hostgroup = "global" }'
    ((path, text),) = then('action = "notify"', match=match)
    assert path == "rule.0.match.hostgroup"
    assert 'write hostgroup = "none"' in text
    match = '{ scope = "hostgroup", hostgroup = "global" }'
    assert then('action = "notify"', match=match) == []


@pytest.mark.parametrize(
    "pair",
    ["any_protocol = true", "document_targets = true", "document_redirect = true"],
)
def test_document_permissions_need_the_flowspec_action(pair: str) -> None:
    key = pair.partition(" ")[0]
    assert then(f'action = "flowspec", {pair}') == []
    ((path, _),) = then(f'action = "blackhole", {pair}')
    assert path == f"rule.0.then.{key}"


def test_a_wide_prefix_of_a_rule_is_not_a_problem() -> None:
    assert then('action = "blackhole", prefixes = "203.0.113.0/25"') == []


def test_too_many_prefixes_of_a_rule_are_a_problem() -> None:
    hosts = [f"203.0.113.{number}" for number in range(256)]
    assert then(f'action = "blackhole", prefixes = {hosts}') == []
    hosts.append("2001:db8:1::1")
    assert then(f'action = "blackhole", prefixes = {hosts}') == [
        ("rule.0.then.prefixes", "257 prefixes, allowed are 256")
    ]
