"""What no key of a policy has wrong by itself, but with others, is told."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.mitigation.measure import Network
from consumers.policy.facts import Facts, facts_of
from consumers.policy.model import Match, mismatch
from consumers.policy.file.check import check
from consumers.policy.file.load import policy_of
from consumers.policy.file.reach import covers
from consumers.policy.file.tables import PolicyTables
from consumers.policy.file.words import network
from fnm_bus import schema

OWN = 'own.networks = ["203.0.113.0/24", "2001:db8:1::/48"]\n'
TELL = '[[rule]]\nname = "x"\nthen.outcome = "notify"\n'
GROUP = """
[[group]]
name = "customers"
prefixes = "203.0.113.9"
outcome = "blackhole"
"""


def problems(text: str) -> list[tuple[str, str]]:
    """Return the paths, with dots, and the texts of all mistakes."""
    tables = PolicyTables.model_validate(tomllib.loads(text))
    found = check(tables, policy_of(tables))
    return [(".".join(map(str, it.path)), it.text) for it in found]


def then(pairs: str, more: str = "", match: str = "{}") -> list[tuple[str, str]]:
    rule = f'[[rule]]\nname = "x"\nmatch = {match}\nthen = {{ {pairs} }}\n'
    return problems(f"{OWN}{rule}{more}")


def test_a_policy_without_mistakes_has_none() -> None:
    assert problems(OWN + TELL) == []


@pytest.mark.parametrize("kind", ["customer", "group", "rule"])
def test_no_two_have_one_name(kind: str) -> None:
    bodies = {
        "customer": ('networks = "203.0.113.1"', 'networks = "203.0.113.2"'),
        "group": ('prefixes = "203.0.113.1"\noutcome = "notify"',) * 2,
        "rule": (
            'match.sensor = "a"\nthen.outcome = "notify"',
            'match.sensor = "b"\nthen.outcome = "notify"',
        ),
    }
    text = "".join(f'[[{kind}]]\nname = "same"\n{it}\n' for it in bodies[kind])
    rest = "" if kind == "rule" else TELL
    assert problems(OWN + text + rest) == [
        (f"{kind}.1.name", f"there is a {kind} of this name before")
    ]


@pytest.mark.parametrize("own", ["0.0.0.0/0", "::/0", "224.0.0.0/4", "127.0.0.0/8"])
def test_nobody_owns_everything_or_what_is_special(own: str) -> None:
    ((path, text),) = problems(f'own.networks = ["203.0.113.0/24", "{own}"]\n{TELL}')
    assert path == "own.networks.1"
    assert text.startswith(f"{own} is unspecified, multicast, loopback")


@pytest.mark.parametrize("key", ["never", "addresses"])
@pytest.mark.parametrize("network", ["203.0.113.0/24", "203.0.0.0/16", "2001:db8::/32"])
def test_what_is_protected_leaves_something_of_each_own_network(
    key: str, network: str
) -> None:
    text = f'{OWN}guardrails.{key} = ["192.0.2.1", "{network}"]\n{TELL}'
    ((path, said),) = problems(text)
    assert path == f"guardrails.{key}.1"
    assert said.startswith(f"{network} covers all of your network ")


def test_a_customers_networks_are_own_ones() -> None:
    customer = '[[customer]]\nname = "a"\nnetworks = ["203.0.113.0/25", "192.0.2.0/24"]'
    assert problems(OWN + TELL + customer) == [
        ("customer.0.networks.1", "192.0.2.0/24 is not within your own networks")
    ]


def test_a_customer_whose_network_another_takes_first_is_told() -> None:
    wide = '[[customer]]\nname = "wide"\nnetworks = "203.0.113.0/24"\n'
    narrow = '[[customer]]\nname = "narrow"\nnetworks = "203.0.113.0/25"\n'
    assert problems(OWN + TELL + narrow + wide) == []
    ((path, text),) = problems(OWN + TELL + wide + narrow)
    assert path == "customer.1.networks.0"
    assert 'customer "wide", which is asked before' in text


PREFIXES = [
    ("192.0.2.1", "192.0.2.1/32 is not within our own networks"),
    ("203.0.113.0/25", "203.0.113.0/25 covers 203.0.113.66/32, which is protected"),
    ("203.0.113.77", "203.0.113.77/32 covers 203.0.113.77/32, which is protected"),
]
RAILS = """
[guardrails]
widest4 = 28
never = "203.0.113.66"
addresses = "203.0.113.77"
"""


@pytest.mark.parametrize(("prefix", "why"), PREFIXES)
def test_a_rules_prefixes_are_ones_that_the_guardrails_allow(
    prefix: str, why: str
) -> None:
    assert then('outcome = "blackhole", prefixes = "203.0.113.0/28"', RAILS) == []
    found = then(f'outcome = "blackhole", prefixes = "{prefix}"', RAILS)
    assert {path for path, _ in found} == {"rule.0.then.prefixes.0"}
    assert any(why in text for _, text in found)


@pytest.mark.parametrize(("prefix", "why"), PREFIXES)
def test_a_groups_prefixes_are_ones_that_the_guardrails_allow(
    prefix: str, why: str
) -> None:
    group = f'[[group]]\nname = "g"\nprefixes = "{prefix}"\noutcome = "firewall"\n'
    found = problems(OWN + TELL + group + RAILS)
    assert {path for path, _ in found} == {"group.0.prefixes.0"}
    assert any(why in text for _, text in found)


@pytest.mark.parametrize("outcome", ["blackhole", "firewall", "notify", "nothing"])
@pytest.mark.parametrize(
    "pair", ['action = "discard"', "rate = 5", 'redirect = "64500:1"']
)
def test_what_packets_suffer_is_flowspecs_alone(outcome: str, pair: str) -> None:
    key = pair.partition(" ")[0]
    assert then(f'outcome = "{outcome}", {pair}') == [
        (
            f"rule.0.then.{key}",
            f'only outcome "flowspec" has it, and this is "{outcome}"',
        )
    ]


@pytest.mark.parametrize(
    ("pairs", "path"),
    [
        ('action = "rate-limit"', "rate"),
        ('action = "redirect"', "redirect"),
        ('action = "discard", rate = 5', "rate"),
        ("rate = 5", "rate"),
        ('action = "rate-limit", rate = 5, redirect = "64500:1"', "redirect"),
        ('redirect = "64500:1"', "redirect"),
    ],
)
def test_a_rate_and_a_route_target_stand_beside_their_action(
    pairs: str, path: str
) -> None:
    ((found, _),) = then(f'outcome = "flowspec", {pairs}')
    assert found == f"rule.0.then.{path}"


@pytest.mark.parametrize(
    "pairs",
    [
        'action = "discard"',
        'action = "rate-limit", rate = 5',
        'action = "redirect", redirect = "64500:1"',
    ],
)
def test_an_action_with_all_that_it_needs_is_no_mistake(pairs: str) -> None:
    assert then(f'outcome = "flowspec", {pairs}') == []


@pytest.mark.parametrize("outcome", ["flowspec", "firewall", "notify", "nothing"])
def test_communities_are_a_blackholes_alone(outcome: str) -> None:
    assert then('outcome = "blackhole", communities = ["64500:666"]') == []
    ((path, text),) = then(f'outcome = "{outcome}", communities = ["64500:666"]')
    assert path == "rule.0.then.communities"
    assert text == f'only outcome "blackhole" has them, and this is "{outcome}"'


@pytest.mark.parametrize(
    ("outcome", "enforcers", "fine"),
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
def test_one_of_the_enforcers_at_least_knows_the_measure(
    outcome: str, enforcers: str, *, fine: bool
) -> None:
    found = then(f'outcome = "{outcome}", enforcers = {enforcers}')
    assert [path for path, _ in found] == ([] if fine else ["rule.0.then.enforcers"])


def test_a_group_that_its_enforcers_do_not_know_is_told_as_well() -> None:
    group = GROUP + 'enforcers = "nftables"\naction = "discard"\n'
    assert [path for path, _ in problems(OWN + TELL + group)] == [
        "group.0.action",
        "group.0.enforcers",
    ]


@pytest.mark.parametrize(
    ("pairs", "key"),
    [
        ('outcome = "group"', "outcome"),
        ('outcome = "blackhole", at_cap = "group"', "at_cap"),
    ],
)
def test_what_leads_to_a_group_needs_one(pairs: str, key: str) -> None:
    assert then(pairs, GROUP) == []
    assert then(pairs) == [
        (f"rule.0.then.{key}", '"group" needs a [[group]], and there is none')
    ]


def test_each_hostgroup_that_a_rule_names_has_the_group_it_leads_to() -> None:
    match = '{ hostgroup = ["customers", "servers"] }'
    assert then('outcome = "blackhole"', GROUP, match) == []
    assert then('outcome = "group"', GROUP, match) == [
        ("rule.0.then.outcome", "there is no [[group]] with the name servers")
    ]


@pytest.mark.parametrize(
    "pair",
    [
        'lease = "5m"',
        'enforcers = "exabgp"',
        'prefixes = "203.0.113.9"',
        "dry_run = true",
        "approval = true",
        'at_cap = "hold"',
        'action = "discard"',
        'communities = ["64500:666"]',
    ],
)
def test_what_the_group_says_is_not_said_by_the_rule(pair: str) -> None:
    found = then(f'outcome = "group", {pair}', GROUP)
    assert [path for path, _ in found] == [f"rule.0.then.{pair.partition(' ')[0]}"]


@pytest.mark.parametrize(
    ("match", "path"),
    [
        ("{ min_pps = 5, max_pps = 5 }", "min_pps"),
        ("{ min_bits = 6, max_bits = 5 }", "min_bits"),
        ('{ prefix = ["203.0.113.0/25", "192.0.2.0/24"] }', "prefix.1"),
        ('{ scope = "hostgroup", action = "partial_block" }', "action"),
    ],
)
def test_a_condition_that_nothing_meets_is_told(match: str, path: str) -> None:
    ((found, _),) = then('outcome = "notify"', match=match)
    assert found == f"rule.0.match.{path}"


@pytest.mark.parametrize(
    "match",
    [
        "{ min_pps = 4, max_pps = 5 }",
        '{ prefix = ["203.0.0.0/16", "203.0.113.7"] }',
        '{ scope = ["host", "hostgroup"], action = "partial_block" }',
        '{ scope = "hostgroup", action = ["ban", "partial_block"] }',
    ],
)
def test_a_condition_that_something_meets_is_not(match: str) -> None:
    assert then('outcome = "notify"', match=match) == []


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
def test_a_rule_that_another_leaves_nothing_to_is_told(first: str, second: str) -> None:
    later = f'[[rule]]\nname = "y"\nmatch = {second}\nthen.outcome = "blackhole"\n'
    ((path, text),) = then('outcome = "notify"', later, first)
    assert path == "rule.1"
    assert text.startswith('is never asked: rule "x" before it matches all')


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
        ("{ min_pps = 0 }", "{}"),  # an event may not say its size
        ("{ min_pps = 5 }", "{ min_bits = 5 }"),
        ('{ direction = ["incoming", "outgoing"] }', "{}"),
    ],
)
def test_a_rule_that_is_left_something_is_no_mistake(first: str, second: str) -> None:
    later = f'[[rule]]\nname = "y"\nmatch = {second}\nthen.outcome = "blackhole"\n'
    assert then('outcome = "notify"', later, first) == []


EVENTS = [
    facts
    for name in ("HostEvent", "HostgroupEvent", "StatusEvent")
    for event in schema.examples(f"fastnetmon.{name}").values()
    for facts in facts_of(event)  # type: ignore[arg-type]
]
NETWORKS: list[Network] = [
    network(it) for it in ("203.0.113.0/24", "203.0.113.25", "2001:db8::/32", "::/0")
]
SIZES = st.none() | st.sampled_from([0, 1, 70_000, 289_104, 289_105, 10**6])


def some(*them: str) -> Any:
    return st.frozensets(st.sampled_from(them), max_size=2)


MATCHES = st.builds(
    Match,
    scopes=some("host", "hostgroup"),
    actions=some("ban", "partial_block", "attack_status"),
    hostgroups=some("customers", "global"),
    prefixes=st.lists(st.sampled_from(NETWORKS), max_size=2).map(tuple),
    protocols=some("udp", "none"),
    flow_spec=st.none() | st.booleans(),
    min_pps=SIZES,
    max_pps=SIZES,
)


@given(MATCHES, MATCHES, st.sampled_from(EVENTS))
def test_what_is_said_to_cover_a_rule_matches_all_that_it_matches(
    wide: Match, narrow: Match, facts: Facts
) -> None:
    if covers(wide, narrow) and facts.action in {"ban", "partial_block"}:
        assert mismatch(facts, narrow) or not mismatch(facts, wide)


@given(MATCHES)
def test_every_rule_covers_itself(match: Match) -> None:
    assert covers(match, match)
