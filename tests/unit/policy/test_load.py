"""A policy file becomes a policy; all problems are reported at once."""

import re
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

import consumers
from consumers.policy.file.load import load, loads
from consumers.policy.model import Action, Customer, Limits, Match, Policy, Rule
from fnm_bus.errors import ConfigError
from fnm_bus.event import FlowThen

OWN = 'own_networks = ["203.0.113.0/24", "2001:db8:1::/48"]\n'
RULE = '[[rule]]\nname = "x"\nthen = { action = "notify" }\n'
SMALLEST = OWN + RULE

WHOLE = """
own_networks = ["203.0.113.0/24", "2001:db8:1::/48"]

[guardrails]
protected_prefixes = "203.0.113.1"
infrastructure = ["192.0.2.254", "2001:db8:ffff::1"]
min_prefix_length_ipv4 = 26
min_prefix_length_ipv6 = 64
max_active = 5
max_per_customer = 6
max_new_per_minute = 7
max_affected_share = 0.5
max_event_age = "1h30m"
max_clock_skew = 30

[[customer]]
name = "acme"
networks = ["203.0.113.0/26"]
max_active = 20

[[customer]]
name = "rest"
networks = "203.0.113.0/24"

[[hostgroup]]
name = "customers"
prefixes = ["203.0.113.64/26"]
action = "flowspec"
flowspec_action = "rate-limit"
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
action = "flowspec"
flowspec_action = "redirect"
redirect = "64500:100"
lease = "10m"
enforcers = "exabgp"
prefixes = "203.0.113.5"
dry_run = true
approval = true
when_limited = "hostgroup"

[[rule]]
name = "large"
match.scope = ["host"]
then.action = "blackhole"
then.communities = ["64500:666", "64500:1:666"]
"""


def refused(text: str) -> list[str]:
    with pytest.raises(ConfigError) as info:
        loads(text)
    assert info.value.exit_code == 78
    return str(info.value).splitlines()


def test_every_key_becomes_a_value_of_the_policy() -> None:
    own = ip_network("203.0.113.0/24"), ip_network("2001:db8:1::/48")
    assert replace(loads(WHOLE), digest="") == Policy(
        limits=Limits(
            own_networks=own,
            protected_prefixes=(ip_network("203.0.113.1/32"),),
            infrastructure=(ip_network("192.0.2.254"), ip_network("2001:db8:ffff::1")),
            min_prefix_length_ipv4=26,
            min_prefix_length_ipv6=64,
            max_active=5,
            max_per_customer=6,
            max_new_per_minute=7,
            max_affected_share=0.5,
            max_event_age=5400.0,
            max_clock_skew=30.0,
        ),
        customers=(
            Customer(
                name="acme", networks=(ip_network("203.0.113.0/26"),), max_active=20
            ),
            Customer(name="rest", networks=(own[0],), max_active=6),
        ),
        hostgroups={
            "customers": Action(
                action="flowspec",
                prefixes=(ip_network("203.0.113.64/26"),),
                flowspec_action=FlowThen(action="rate-limit", rate=125_000_000),
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
                    action="flowspec",
                    flowspec_action=FlowThen(
                        action="redirect", redirect_as=64500, redirect_value=100
                    ),
                    lease=600.0,
                    enforcers=("exabgp",),
                    prefixes=(ip_network("203.0.113.5"),),
                    dry_run=True,
                    approval=True,
                    when_limited="hostgroup",
                ),
            ),
            Rule(
                name="large",
                match=Match(scopes=frozenset({"host"})),
                action=Action(
                    action="blackhole", communities=("64500:666", "64500:1:666")
                ),
            ),
        ),
    )


def test_missing_keys_have_the_defaults_of_the_policy() -> None:
    own = ip_network("203.0.113.0/24"), ip_network("2001:db8:1::/48")
    assert replace(loads(SMALLEST), digest="") == Policy(
        rules=(Rule(name="x", match=Match(), action=Action(action="notify")),),
        limits=Limits(own_networks=own),
        hostgroups={},
    )


def test_the_example_loads() -> None:
    policy = load(Path(consumers.__file__).with_name("policy.example.toml"))
    assert [rule.action.action for rule in policy.rules] == [
        "flowspec",
        "blackhole",
        "notify",
    ]


def test_the_commented_tables_of_the_example_load() -> None:
    file = Path(consumers.__file__).with_name("policy.example.toml")
    head, _, tail = file.read_text("utf-8").partition("are often the next step.")
    assert tail
    lines = [line.removeprefix("# ") for line in tail.splitlines()]
    pairs = [line for line in lines if line.startswith("[[") or " = " in line]
    keys = [
        line
        for line in pairs
        if line[:2] == "[[" or line.split(" = ")[0].isidentifier()
    ]
    policy = loads("\n".join([head, *keys]))
    assert set(policy.hostgroups) == {"customers"}
    assert [customer.name for customer in policy.customers] == ["acme"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("protected_prefixes = 7", 'expected text such as "203.0.113.0/24", got 7'),
        ("protected_prefixes = [true]", "got True"),
        ('protected_prefixes = "203.0.113.0/33"', 'got "203.0.113.0/33"'),
        (
            'protected_prefixes = ""',
            'expected a network such as "203.0.113.0/24", got ""',
        ),
        ('protected_prefixes = "customers"', 'got "customers"'),
        (
            'protected_prefixes = "203.0.113.9/28"',
            '"203.0.113.0/28" is the network, "203.0.113.9" the host',
        ),
        ('protected_prefixes = "2001:db8::1/64"', '"2001:db8::/64" is the network'),
        (
            'protected_prefixes = "203.0.113.0/255.255.255.0"',
            'has a mask: write "203.0.113.0/24"',
        ),
        (
            "protected_prefixes = { a = 1 }",
            "guardrails.protected_prefixes: expected a list",
        ),
        (
            "min_prefix_length_ipv4 = 33",
            "guardrails.min_prefix_length_ipv4: expected at most 32, got 33",
        ),
        ("min_prefix_length_ipv4 = 0", "expected at least 1, got 0"),
        ('min_prefix_length_ipv6 = "64"', 'expected a whole number, got "64"'),
        ("max_active = true", "a whole number, got true"),
        ("max_active = 1.0", "expected a whole number, got 1.0"),
        ("max_per_customer = 0", "expected at least 1, got 0"),
        ("max_affected_share = 0", "expected more than 0, got 0"),
        ("max_affected_share = 1.1", "expected at most 1, got 1.1"),
        ("max_affected_share = nan", "guardrails.max_affected_share: expected"),
        (
            'max_event_age = "5 minutes"',
            'expected "30s", "5m", "1h30m" or a number of seconds',
        ),
        ('max_event_age = "30m1h"', "or a number of seconds, got '30m1h'"),
        ('max_event_age = ""', "or a number of seconds, got ''"),
        ("max_event_age = true", "or a number of seconds, got True"),
        ("max_event_age = 00:05:00", "or a number of seconds"),
        ("max_event_age = inf", "expected more than 0 s, 24 h at most, got"),
        ("max_event_age = nan", "expected more than 0 s, 24 h at most, got"),
        (f"max_event_age = 1{'0' * 400}", "expected more than 0 s, 24 h at most, got"),
        ("max_event_age = 0", "expected more than 0 s, 24 h at most, got 0 s"),
        ("max_clock_skew = -1", "expected more than 0 s, 24 h at most, got -1 s"),
        ("max_clock_skew = 1e300", "expected more than 0 s, 24 h at most, got inf s"),
        ("max_event_age = 4294967294", "24 h at most, got 4.29497e+09 s"),
        (
            "max_actve = 1",
            "guardrails.max_actve: there is no such key; did you mean max_active?",
        ),
        (
            "zzz = 1",
            "there is no such key; the keys are protected_prefixes, infrastructure",
        ),
    ],
)
def test_a_wrong_guardrail_is_reported_with_its_key(line: str, expected: str) -> None:
    (row,) = refused(f"{SMALLEST}[guardrails]\n\n{line}")
    assert row.startswith("policy.toml: guardrails.")
    assert expected in row


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (
            'scope = "global"',
            "match.scope: expected 'host' or 'hostgroup', got \"global\"",
        ),
        ("scope = []", "match.scope: expected at least one"),
        ('action = "unban"', "it ends an attack, and no rule is tried"),
        ('action = ["ban", "partial_unblock"]', '"partial_unblock" would never match'),
        ('action = "bann"', '"bann" would never match: expected attack_status, ban'),
        ('hostgroup = ""', "match.hostgroup: expected text that is not empty"),
        ("prefix = 1", "match.prefix: expected text such as"),
        ("prefix = []", "match.prefix: expected at least one"),
        ('direction = "in"', "match.direction: expected 'incoming', 'outgoing'"),
        ("protocol = 17", "match.protocol: expected text in quotes, got 17"),
        ("threshold = [1]", "match.threshold: expected text in quotes, got 1"),
        ('severity = "medium"', "expected 'low', 'middle', 'high', 'unknown' or"),
        ("sensor = [[]]", "match.sensor: expected text in quotes, got []"),
        ("flow_spec = 1", "match.flow_spec: expected true or false, got 1"),
        ('flow_spec = "true"', "match.flow_spec: expected true or false"),
        ("min_pps = -1", "match.min_pps: expected at least 0, got -1"),
        ("max_pps = 0", "match.max_pps: expected at least 1, got 0"),
        ("min_bits = 1e9", "match.min_bits: expected a whole number, got 1000000000.0"),
        ('max_bits = "10G"', 'match.max_bits: expected a whole number, got "10G"'),
        ('actoin = "ban"', "match.actoin: there is no such key; did you mean action?"),
    ],
)
def test_a_wrong_condition_is_reported_with_its_key(pair: str, expected: str) -> None:
    text = f'{OWN}[[rule]]\nname = "x"\nthen.action = "notify"\n[rule.match]\n{pair}'
    (row,) = refused(text)
    assert row.startswith('policy.toml: rule "x": match.')
    assert expected in row


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (
            'flowspec_action = "drop"',
            "then.flowspec_action: expected 'discard', 'rate-limit' or 'redirect'",
        ),
        ("rate = 0", "then.rate: expected at least 1, got 0"),
        ("rate = 1.5", "then.rate: expected a whole number, got 1.5"),
        ('redirect = "64500"', 'expected a route target such as "64500:100"'),
        ('redirect = "70000:65536"', "then.redirect: expected a route target"),
        ('redirect = "64500:4294967296"', "then.redirect: expected a route target"),
        ('redirect = "1:2:3"', "then.redirect: expected a route target"),
        ("redirect = 64500", "then.redirect: expected text in quotes, got 64500"),
        ('lease = "4s"', "then.lease: expected 5 s to 24 h, got 4 s"),
        ('lease = "24h1s"', "then.lease: expected 5 s to 24 h, got 86401 s"),
        ('enforcers = ["x", ""]', "then.enforcers: expected text that is not empty"),
        (f'enforcers = "{"x" * 65}"', "then.enforcers: expected at most 64 characters"),
        (f"enforcers = {['x'] * 17}", "then.enforcers: expected at most 16 values"),
        (
            f"communities = {['64500:1'] * 33}",
            "then.communities: expected at most 32 values",
        ),
        ("lease = inf", "then.lease: expected 5 s to 24 h, got inf s"),
        ("lease = nan", "then.lease: expected 5 s to 24 h, got"),
        ("lease = 1e300", "then.lease: expected 5 s to 24 h, got inf s"),
        ("lease = 4294967294", "then.lease: expected 5 s to 24 h, got 4.29497e+09 s"),
        ("lease = 0", "then.lease: expected 5 s to 24 h, got 0 s"),
        ("rate = 1_000_000_000_001", "then.rate: expected at most 1000000000000, got"),
        ("document_targets = 1", "document_targets: expected true or false, got 1"),
        ("enforcers = []", "then.enforcers: expected at least one"),
        ('communities = ["65536:1"]', 'then.communities: "65536:1" is not a community'),
        ('communities = ["1:2:4294967296"]', "is not a community"),
        ('communities = ["1:2:3:4"]', "is not a community"),
        ('communities = ["no-export"]', "is not a community"),
        ('communities = ["01:2"]', "is not a community"),
        ('communities = ["-1:2"]', "is not a community"),
        ("communities = [64500]", "then.communities: expected text in quotes"),
        ('prefixes = "203.0.113.9/30"', "has host bits"),
        ('dry_run = "yes"', 'then.dry_run: expected true or false, got "yes"'),
        ("approval = 0", "then.approval: expected true or false, got 0"),
        (
            'when_limited = "drop"',
            "then.when_limited: expected 'approve' or 'hostgroup', got \"drop\"",
        ),
        ("laese = 5", "then.laese: there is no such key; did you mean lease?"),
    ],
)
def test_a_wrong_action_is_reported_with_its_key(pair: str, expected: str) -> None:
    text = f'{OWN}[[rule]]\nname = "x"\n[rule.then]\naction = "flowspec"\n{pair}'
    (row,) = refused(text)
    assert row.startswith('policy.toml: rule "x": then.')
    assert expected in row


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RULE, "policy.toml: own_networks: is missing; write own_networks ="),
        (
            f"own_networks = []\n{RULE}",
            "policy.toml: own_networks: write own_networks =",
        ),
        (f"own_networks = 3\n{RULE}", "policy.toml: own_networks: expected text"),
        (OWN, "policy.toml: rule: is missing; write a [[rule]]"),
        ("rule = []\n" + OWN, "policy.toml: rule: write a [[rule]]"),
        ("rule = 4\n" + OWN, "policy.toml: rule: expected a list, got 4"),
        (f"{SMALLEST}[[rules]]", "policy.toml: rules: there is no such key; did you"),
        (
            f'{OWN}[[rule]]\nthen.action = "notify"',
            "policy.toml: rule 1: name: is missing",
        ),
        (
            f'{OWN}[[rule]]\nname = "a\\nb"\nthen.action = "notify"',
            'policy.toml: rule "a\\nb": name: expected text on one line',
        ),
        (
            f'{OWN}[[rule]]\nname = "{"x" * 256}"\nthen.action = "notify"',
            f'policy.toml: rule "{"x" * 256}": name: expected at most 255 characters',
        ),
        (f'{OWN}[[rule]]\nname = "x"', 'policy.toml: rule "x": then: is missing'),
        (
            f'{OWN}[[rule]]\nname = "x"\nthen.lease = 60',
            'policy.toml: rule "x": then.action: is missing',
        ),
        (
            f'{OWN}[[rule]]\nname = "x"\nthen = "drop"',
            'policy.toml: rule "x": then: expected a table, got "drop"',
        ),
        (
            f'{SMALLEST}[[customer]]\nname = "acme"',
            'policy.toml: customer "acme": networks: is missing',
        ),
        (
            (
                f'{SMALLEST}[[customer]]\nname = "acme"\nnetworks = "203.0.113.0"\n'
                "max_active = 0"
            ),
            'policy.toml: customer "acme": max_active: expected at least 1, got 0',
        ),
        (
            f'{SMALLEST}[[hostgroup]]\nname = "g"\naction = "blackhole"',
            'policy.toml: hostgroup "g": prefixes: is missing',
        ),
        (
            f'{SMALLEST}[[hostgroup]]\nname="g"\nprefixes="203.0.113.9"\naction="hostgroup"',
            "policy.toml: hostgroup \"g\": action: expected 'blackhole', 'flowspec'",
        ),
        (
            (
                f'{SMALLEST}[[hostgroup]]\nname = "g"\nprefixes = "203.0.113.9"\n'
                'action = "notify"\nwhen_limited = "hostgroup"'
            ),
            'policy.toml: hostgroup "g": when_limited: there is no such key',
        ),
    ],
)
def test_a_wrong_or_missing_table_is_reported(text: str, expected: str) -> None:
    (row,) = refused(text)
    assert row.startswith(expected)


def test_all_problems_are_reported_in_the_files_order() -> None:
    rows = refused(
        f"""{OWN}
[guardrails]
max_affected_share = 2
[[rule]]
name = "x"
match = {{ protocol = ["udp", 17], colour = "red" }}
then = {{ action = "drop" }}
"""
    )
    assert [row.split(": ")[:3] for row in rows] == [
        ["policy.toml", "guardrails.max_affected_share", "expected at most 1, got 2"],
        ["policy.toml", 'rule "x"', "match.protocol"],
        ["policy.toml", 'rule "x"', "match.colour"],
        ["policy.toml", 'rule "x"', "then.action"],
    ]


def test_problems_of_several_rules_and_of_one_are_reported() -> None:
    rows = refused(
        f'{OWN}[[rule]]\nname = "bad"\nthen.action = "drop"\n'
        '[[rule]]\nname = "all"\nthen.action = "notify"\n'
        '[[rule]]\nname = "late"\nthen.action = "blackhole"'
    )
    assert [row.split(": ")[:2] for row in rows] == [
        ["policy.toml", 'rule "bad"'],
        ["policy.toml", 'rule "late"'],
    ]
    assert 'is never tried: the earlier rule "all"' in rows[1]


@pytest.mark.parametrize(
    "text",
    [
        "x = [",
        f"{OWN}[[rule]\n",
        f"{OWN}own_networks = []",
        f"x = 1{'0' * 5000}",
        "x = 2026-02-30",
    ],
)
def test_text_that_is_not_toml_is_one_problem(text: str) -> None:
    (row,) = refused(text)
    assert row.startswith("policy.toml: not valid TOML: ")


def test_a_toml_error_has_the_line_of_the_parser() -> None:
    (row,) = refused(f"{OWN}[[rule]\n")
    assert "at line 2" in row


def test_text_that_is_nested_too_deeply_is_one_problem() -> None:
    (row,) = refused(f"x = {'[' * 100_000}")
    assert row == "policy.toml: nested too deeply"


def test_a_file_is_named_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(RULE)
    with pytest.raises(ConfigError) as info:
        load(file)
    assert str(info.value).startswith(f"{file}: own_networks: is missing")


def test_a_missing_file_is_reported() -> None:
    with pytest.raises(ConfigError, match=r"^/nowhere/p\.toml: No such file"):
        load(Path("/nowhere/p.toml"))


def test_a_file_that_is_not_utf_8_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(file)


def test_the_digest_depends_on_content_and_not_spelling() -> None:
    policy = loads(SMALLEST)
    assert re.fullmatch(r"[0-9a-f]{16}", policy.digest)
    commented = f"# changed by nobody\n{OWN}{RULE}\n[guardrails]\nmax_active = 500\n"
    assert loads(commented).digest == policy.digest
    for other in (
        SMALLEST.replace('"x"', '"y"'),
        SMALLEST.replace("203.0.113.0/24", "203.0.113.0/25"),
        f"{SMALLEST}[guardrails]\nmax_active = 501\n",
    ):
        assert loads(other).digest != policy.digest


def test_the_policy_in_the_documentation_loads() -> None:
    text = (Path(__file__).parents[3] / "docs" / "mitigation.md").read_text()
    [example] = re.findall(r"```toml\n(own_networks.*?)```", text, re.DOTALL)
    assert [rule.name for rule in loads(example).rules] == ["large", "rest"]
