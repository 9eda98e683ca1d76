"""A policy file becomes a policy; all that is wrong in it is told, with lines."""

import re
from ipaddress import ip_network
from pathlib import Path

import pytest

import consumers
from consumers.policy.model import Action, Customer, Limits, Match, Policy, Rule
from consumers.policy.file.load import load, loads
from fnm_bus.errors import ConfigError
from fnm_bus.event import FlowThen

OWN = '[own]\nnetworks = ["203.0.113.0/24", "2001:db8:1::/48"]\n'
RULE = '[[rule]]\nname = "x"\nthen = { outcome = "notify" }\n'
SMALLEST = OWN + RULE

WHOLE = """
[own]
networks = ["203.0.113.0/24", "2001:db8:1::/48"]

[guardrails]
never = "203.0.113.1"
addresses = ["192.0.2.254", "2001:db8:ffff::1"]
widest4 = 26
widest6 = 64
total = 5
per_customer = 6
per_minute = 7
share = 0.5
fresh = "1h30m"
ahead = 30

[[customer]]
name = "acme"
networks = ["203.0.113.0/26"]
cap = 20

[[customer]]
name = "rest"
networks = "203.0.113.0/24"

[[group]]
name = "customers"
prefixes = ["203.0.113.64/26"]
outcome = "flowspec"
action = "rate-limit"
rate = 125_000_000
approval = true

[[rule]]
name = "amplification"

[rule.match]
scope = "host"
action = ["ban", "attack_status"]
hostgroup = "customers"
prefix = "203.0.113.0/24"
direction = "Incoming"
protocol = ["UDP"]
threshold = "udp packets per second"
severity = ["middle", "high"]
sensor = ["fra1"]
flow_spec = false
min_pps = 100_000
max_pps = 200_000
min_bits = 0
max_bits = 9_000_000_000

[rule.then]
outcome = "flowspec"
action = "redirect"
redirect = "64500:100"
lease = "10m"
enforcers = "exabgp"
prefixes = "203.0.113.5"
dry_run = true
approval = true
at_cap = "group"

[[rule]]
name = "large"
match.scope = ["host"]
then.outcome = "blackhole"
then.communities = ["64500:666", "64500:1:666"]
"""


def refused(text: str) -> list[str]:
    with pytest.raises(ConfigError) as info:
        loads(text)
    assert info.value.exit_code == 78
    return str(info.value).splitlines()


def test_every_key_arrives_in_the_policy() -> None:
    own = ip_network("203.0.113.0/24"), ip_network("2001:db8:1::/48")
    assert loads(WHOLE) == Policy(
        limits=Limits(
            own=own,
            named=frozenset(
                {ip_network("203.0.113.64/26"), ip_network("203.0.113.5/32")}
            ),
            never=(ip_network("203.0.113.1/32"),),
            addresses=(ip_network("192.0.2.254"), ip_network("2001:db8:ffff::1")),
            widest4=26,
            widest6=64,
            total=5,
            per_customer=6,
            per_minute=7,
            share=0.5,
            fresh=5400.0,
            ahead=30.0,
        ),
        customers=(
            Customer(name="acme", networks=(ip_network("203.0.113.0/26"),), cap=20),
            Customer(name="rest", networks=(own[0],), cap=6),
        ),
        groups={
            "customers": Action(
                outcome="flowspec",
                prefixes=(ip_network("203.0.113.64/26"),),
                then=FlowThen(action="rate-limit", rate=125_000_000),
                approval=True,
            )
        },
        rules=(
            Rule(
                name="amplification",
                match=Match(
                    scopes=frozenset({"host"}),
                    actions=frozenset({"ban", "attack_status"}),
                    hostgroups=frozenset({"customers"}),
                    prefixes=(own[0],),
                    directions=frozenset({"incoming"}),
                    protocols=frozenset({"udp"}),
                    thresholds=frozenset({"udp packets per second"}),
                    severities=frozenset({"middle", "high"}),
                    sensors=frozenset({"fra1"}),
                    flow_spec=False,
                    min_pps=100_000,
                    max_pps=200_000,
                    min_bits=0,
                    max_bits=9_000_000_000,
                ),
                action=Action(
                    outcome="flowspec",
                    then=FlowThen(
                        action="redirect", redirect_as=64500, redirect_value=100
                    ),
                    lease=600.0,
                    enforcers=("exabgp",),
                    prefixes=(ip_network("203.0.113.5"),),
                    dry_run=True,
                    approval=True,
                    at_cap="group",
                ),
            ),
            Rule(
                name="large",
                match=Match(scopes=frozenset({"host"})),
                action=Action(
                    outcome="blackhole", communities=("64500:666", "64500:1:666")
                ),
            ),
        ),
    )


def test_what_is_not_said_is_as_the_policys_own_defaults_are() -> None:
    own = ip_network("203.0.113.0/24"), ip_network("2001:db8:1::/48")
    assert loads(SMALLEST) == Policy(
        rules=(Rule(name="x", match=Match(), action=Action(outcome="notify")),),
        limits=Limits(own=own),
        groups={},
    )


def test_the_example_is_a_policy_that_loads() -> None:
    policy = load(Path(consumers.__file__).with_name("policy.example.toml"))
    assert [it.action.outcome for it in policy.rules] == [
        "flowspec",
        "blackhole",
        "notify",
    ]


def test_what_the_example_has_commented_out_loads_as_well() -> None:
    file = Path(consumers.__file__).with_name("policy.example.toml")
    head, _, tail = file.read_text("utf-8").partition("is often wanted next.")
    shown = [it.removeprefix("# ") for it in tail.splitlines()]
    start = [it for it in shown if it.startswith("[[") or " = " in it]
    keys = [it for it in start if it[:2] == "[[" or it.split(" = ")[0].isidentifier()]
    wide = head.replace("[guardrails]", "[guardrails]\nwidest4 = 26")
    policy = loads("\n".join([wide, *keys]))
    assert set(policy.groups) == {"customers"}
    assert [it.name for it in policy.customers] == ["acme"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("never = 7", 'guardrails.never: wanted text such as "203.0.113.0/24", got 7'),
        ("never = [true]", "got True"),
        ('never = "203.0.113.0/33"', 'got "203.0.113.0/33"'),
        ('never = ""', 'wanted a network such as "203.0.113.0/24", got ""'),
        ('never = "customers"', 'got "customers"'),
        (
            'never = "203.0.113.9/28"',
            '"203.0.113.0/28" is the network, "203.0.113.9" the host',
        ),
        ('never = "2001:db8::1/64"', '"2001:db8::/64" is the network'),
        ('never = "203.0.113.0/255.255.255.0"', 'has a mask: write "203.0.113.0/24"'),
        ("never = { a = 1 }", "guardrails.never: wanted a list"),
        ("widest4 = 33", "guardrails.widest4: wanted at most 32, got 33"),
        ("widest4 = 0", "wanted at least 1, got 0"),
        ('widest6 = "64"', 'wanted a whole number, got "64"'),
        ("total = true", "wanted a whole number, got true"),
        ("total = 1.0", "wanted a whole number, got 1.0"),
        ("per_customer = 0", "wanted at least 1, got 0"),
        ("share = 0", "wanted more than 0, got 0"),
        ("share = 1.1", "wanted at most 1, got 1.1"),
        ("share = nan", "guardrails.share: wanted"),
        ('fresh = "5 minutes"', 'wanted "30s", "5m", "1h30m" or a number of seconds'),
        ('fresh = "30m1h"', "or a number of seconds, got '30m1h'"),
        ('fresh = ""', "or a number of seconds, got ''"),
        ("fresh = true", "or a number of seconds, got True"),
        ("fresh = 00:05:00", "or a number of seconds"),
        ("fresh = inf", "wanted a number that is not as large"),
        ("fresh = nan", "wanted a number that is not as large"),
        (f"fresh = 1{'0' * 400}", "wanted a number that is not as large"),
        ("fresh = 0", "wanted more than 0, got 0"),
        ("ahead = -1", "wanted more than 0, got -1"),
        ("nevr = []", "guardrails.nevr: there is no such key; did you mean never?"),
        ("zzz = 1", "there is no such key; known are never, addresses, widest4"),
    ],
)
def test_a_wrong_guardrail_is_told_with_its_line(line: str, told: str) -> None:
    (row,) = refused(f"{SMALLEST}[guardrails]\n\n{line}")
    assert row.startswith("policy.toml:8: guardrails.")
    assert told in row


@pytest.mark.parametrize(
    ("pair", "told"),
    [
        (
            'scope = "global"',
            "match.scope: wanted 'host' or 'hostgroup', got \"global\"",
        ),
        ("scope = []", "match.scope: wanted at least one"),
        ('action = "unban"', "it ends what was begun and asks no rule"),
        ('action = ["ban", "partial_unblock"]', '"partial_unblock" would never match'),
        ('action = "bann"', '"bann" would never match: wanted attack_status, ban, par'),
        ('hostgroup = ""', "match.hostgroup: wanted text that is not empty"),
        ("prefix = 1", "match.prefix: wanted text such as"),
        ("prefix = []", "match.prefix: wanted at least one"),
        ('direction = "in"', "match.direction: wanted 'incoming', 'outgoing'"),
        ("protocol = 17", "match.protocol: wanted text in quotes, got 17"),
        ("threshold = [1]", "match.threshold: wanted text in quotes, got 1"),
        ('severity = "medium"', "wanted 'low', 'middle', 'high', 'unknown' or 'none'"),
        ("sensor = [[]]", "match.sensor: wanted text in quotes, got []"),
        ("flow_spec = 1", "match.flow_spec: wanted true or false, got 1"),
        ('flow_spec = "true"', "match.flow_spec: wanted true or false"),
        ("min_pps = -1", "match.min_pps: wanted at least 0, got -1"),
        ("max_pps = 0", "match.max_pps: wanted at least 1, got 0"),
        ("min_bits = 1e9", "match.min_bits: wanted a whole number, got 1000000000.0"),
        ('max_bits = "10G"', 'match.max_bits: wanted a whole number, got "10G"'),
        ('actoin = "ban"', "match.actoin: there is no such key; did you mean action?"),
    ],
)
def test_a_wrong_condition_is_told_with_its_line(pair: str, told: str) -> None:
    text = f'{OWN}[[rule]]\nname = "x"\nthen.outcome = "notify"\n[rule.match]\n{pair}'
    (row,) = refused(text)
    assert row.startswith('policy.toml:7: rule "x": match.')
    assert told in row


@pytest.mark.parametrize(
    ("pair", "told"),
    [
        (
            'action = "drop"',
            "then.action: wanted 'discard', 'rate-limit' or 'redirect'",
        ),
        ("rate = 0", "then.rate: wanted at least 1, got 0"),
        ("rate = 1.5", "then.rate: wanted a whole number, got 1.5"),
        ('redirect = "64500"', 'wanted a route target such as "64500:100"'),
        ('redirect = "70000:65536"', "then.redirect: wanted a route target"),
        ('redirect = "64500:4294967296"', "then.redirect: wanted a route target"),
        ('redirect = "1:2:3"', "then.redirect: wanted a route target"),
        ("redirect = 64500", "then.redirect: wanted text in quotes, got 64500"),
        ('lease = "4s"', "then.lease: wanted 5 s to 24 h, got 4 s"),
        ('lease = "24h1s"', "then.lease: wanted 5 s to 24 h, got 86401 s"),
        ("lease = inf", "then.lease: wanted 5 s to 24 h"),
        ("enforcers = []", "then.enforcers: wanted at least one"),
        ('communities = ["65536:1"]', 'then.communities: "65536:1" is no community'),
        ('communities = ["1:2:4294967296"]', "is no community"),
        ('communities = ["1:2:3:4"]', "is no community"),
        ('communities = ["no-export"]', "is no community"),
        ('communities = ["01:2"]', "is no community"),
        ('communities = ["-1:2"]', "is no community"),
        ("communities = [64500]", "then.communities: wanted text in quotes"),
        ('prefixes = "203.0.113.9/30"', "has host bits"),
        ('dry_run = "yes"', 'then.dry_run: wanted true or false, got "yes"'),
        ("approval = 0", "then.approval: wanted true or false, got 0"),
        ('at_cap = "drop"', "then.at_cap: wanted 'hold' or 'group', got \"drop\""),
        ("laese = 5", "then.laese: there is no such key; did you mean lease?"),
    ],
)
def test_a_wrong_action_is_told_with_its_line(pair: str, told: str) -> None:
    text = f'{OWN}[[rule]]\nname = "x"\n[rule.then]\noutcome = "flowspec"\n{pair}'
    (row,) = refused(text)
    assert row.startswith('policy.toml:7: rule "x": then.')
    assert told in row


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (RULE, "policy.toml:1: own: is missing; write [own] with networks ="),
        ("[own]\n" + RULE, "policy.toml:1: own.networks: is missing"),
        (
            f"[own]\nnetworks = []\n{RULE}",
            "policy.toml:2: own.networks: wanted at least one",
        ),
        (f"own = 3\n{RULE}", "policy.toml:1: own: wanted a table, got 3"),
        (OWN, "policy.toml:1: rule: is missing; write a [[rule]]"),
        ("rule = []\n" + OWN, "policy.toml:1: rule: write a [[rule]]"),
        ("rule = 4\n" + OWN, "policy.toml:1: rule: wanted a list, got 4"),
        (f"{SMALLEST}[[rules]]", "policy.toml:6: rules: there is no such key; did you"),
        (
            f'{OWN}[[rule]]\nthen.outcome = "notify"',
            "policy.toml:3: rule 1: name: is missing",
        ),
        (
            f'{OWN}[[rule]]\nname = "a\\nb"\nthen.outcome = "notify"',
            'policy.toml:4: rule "a\\nb": name: wanted text on one line',
        ),
        (f'{OWN}[[rule]]\nname = "x"', 'policy.toml:3: rule "x": then: is missing'),
        (
            f'{OWN}[[rule]]\nname = "x"\nthen.lease = 60',
            'policy.toml:5: rule "x": then.outcome: is missing',
        ),
        (
            f'{OWN}[[rule]]\nname = "x"\nthen = "drop"',
            'policy.toml:5: rule "x": then: wanted a table, got "drop"',
        ),
        (
            f'{SMALLEST}[[customer]]\nname = "acme"',
            'policy.toml:6: customer "acme": networks: is missing',
        ),
        (
            f'{SMALLEST}[[customer]]\nname = "acme"\nnetworks = "203.0.113.0"\ncap = 0',
            'policy.toml:9: customer "acme": cap: wanted at least 1, got 0',
        ),
        (
            f'{SMALLEST}[[group]]\nname = "g"\noutcome = "blackhole"',
            'policy.toml:6: group "g": prefixes: is missing',
        ),
        (
            f'{SMALLEST}[[group]]\nname="g"\nprefixes="203.0.113.9"\noutcome="group"',
            "policy.toml:9: group \"g\": outcome: wanted 'blackhole', 'flowspec'",
        ),
        (
            (
                f'{SMALLEST}[[group]]\nname = "g"\nprefixes = "203.0.113.9"\n'
                'outcome = "notify"\nat_cap = "group"'
            ),
            'policy.toml:10: group "g": at_cap: there is no such key',
        ),
    ],
)
def test_a_wrong_or_missing_table_is_told_with_its_line(text: str, told: str) -> None:
    (row,) = refused(text)
    assert row.startswith(told)


def test_every_mistake_is_told_at_once_in_the_order_of_the_file() -> None:
    rows = refused(
        f"""{OWN}
[guardrails]
share = 2
[[rule]]
name = "x"
match = {{ protocol = ["udp", 17], colour = "red" }}
then = {{ outcome = "drop" }}
"""
    )
    assert [it.split(": ")[:3] for it in rows] == [
        ["policy.toml:5", "guardrails.share", "wanted at most 1, got 2"],
        ["policy.toml:8", 'rule "x"', "match.colour"],
        ["policy.toml:8", 'rule "x"', "match.protocol"],
        ["policy.toml:9", 'rule "x"', "then.outcome"],
    ]


def test_a_network_in_a_list_over_several_lines_is_told_with_its_own_line() -> None:
    (row,) = refused(f'[own]\nnetworks = [\n"203.0.113.0/24",\n\n"x",\n]\n{RULE}')
    assert row.startswith("policy.toml:5: own.networks: ")


def test_mistakes_between_rules_are_told_beside_those_within_one() -> None:
    rows = refused(
        f'{OWN}[[rule]]\nname = "bad"\nthen.outcome = "drop"\n'
        '[[rule]]\nname = "all"\nthen.outcome = "notify"\n'
        '[[rule]]\nname = "late"\nthen.outcome = "blackhole"'
    )
    assert [it.split(": ")[:2] for it in rows] == [
        ["policy.toml:5", 'rule "bad"'],
        ["policy.toml:9", 'rule "late"'],
    ]
    assert 'is never asked: rule "all" before it' in rows[1]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = [", 1),
        (f"{OWN}[[rule]\n", 3),
        (f"{OWN}\nnetworks = []", 4),
        (f"x = 1{'0' * 5000}", 1),
        ("x = 2026-02-30", 1),
    ],
)
def test_what_is_no_toml_is_told_with_its_line(text: str, line: int) -> None:
    (row,) = refused(text)
    assert row.startswith(f"policy.toml:{line}: ")


def test_what_is_nested_too_deeply_is_a_mistake_and_no_crash() -> None:
    (row,) = refused(f"x = {'[' * 100_000}")
    assert row == "policy.toml: nested too deeply"


def test_a_file_is_named_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(RULE)
    with pytest.raises(ConfigError) as info:
        load(file)
    assert str(info.value).startswith(f"{file}:1: own: is missing")


def test_a_file_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match=r"^/nowhere/p\.toml: No such file"):
        load(Path("/nowhere/p.toml"))


def test_a_file_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(file)


def test_a_prefix_that_the_policy_names_may_be_wider() -> None:
    text = """
[own]
networks = ["203.0.113.0/24"]
[[group]]
name = "web"
prefixes = ["203.0.113.0/25"]
outcome = "notify"
[[rule]]
name = "all"
then = { outcome = "group" }
"""
    assert loads(text).limits.named == {ip_network("203.0.113.0/25")}


def test_the_policy_in_the_documentation_loads() -> None:
    text = (Path(__file__).parents[2] / "docs" / "mitigation.md").read_text()
    [found] = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert [it.name for it in loads(found).rules] == ["large", "rest"]
