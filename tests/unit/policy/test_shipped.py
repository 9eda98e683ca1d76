"""Every shipped policy decides every sample; each ban has a rule."""

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.attack_facts import RECEIPT, example_events

import consumers
from consumers.mitigation.measure import NOTIFY
from consumers.policy.facts import OPENS, facts_of
from consumers.policy.file.load import load, loads
from consumers.policy.measures import plan_measures
from consumers.policy.model import Policy
from consumers.policy.rules import match_rule
from fnm_bus.event import Event
from fnm_bus.event.parse import parse

ROOT = Path(__file__).parents[3]
SAMPLES = ROOT / "tests" / "unit" / "samples"
TEXT = b"""\
IP: 203.0.113.243
Attack type: udp_flood
Initial attack power: 1063900 packets per second
Peak attack power: 1063900 packets per second
Attack direction: incoming
Attack protocol: udp
Total incoming traffic: 12000 mbps
Total outgoing traffic: 3 mbps
Total incoming pps: 1063900 packets per second
Total outgoing pps: 1200 packets per second
Total incoming flows: 400 flows per second
Total outgoing flows: 2 flows per second
"""


def shipped() -> dict[str, Policy]:
    here = Path(consumers.__file__).parent
    documented = (ROOT / "docs" / "mitigation.md").read_text()
    (block,) = re.findall(r"```toml\n(own_networks.*?)```", documented, re.DOTALL)
    return {
        "example": load(here / "policy.example.toml"),
        "demo": load(here / "demo" / "policy.toml"),
        "stack": load(ROOT / "docker" / "policy.toml"),
        "documentation": loads(block),
    }


def events() -> dict[str, Event]:
    documents = {
        path.stem: parse(path.read_bytes(), [], RECEIPT).event
        for path in sorted(SAMPLES.glob("*.json"))
    }
    calls = {
        f"text-{direction}": parse(
            TEXT, ["203.0.113.243", direction, "1063900", "ban"], RECEIPT
        ).event
        for direction in ("incoming", "outgoing", "other", "unknown")
    }
    return {**example_events(), **documents, **calls}


def opening() -> dict[str, Event]:
    return {name: event for name, event in events().items() if event.action in OPENS}


@pytest.mark.parametrize("policy", shipped().values(), ids=shipped())
@pytest.mark.parametrize("event", opening().values(), ids=opening())
def test_a_rule_decides_every_sample(policy: Policy, event: Event) -> None:
    for facts in facts_of(event):
        decision = match_rule(facts, policy)
        assert decision.rule is not None
        plan = plan_measures(facts, decision.rule.action)
        # Something is wanted, or the audit has a reason.
        assert plan.measures or plan.checks


def test_the_samples_have_every_opening_action() -> None:
    assert {event.action for event in opening().values()} == OPENS
    assert len(opening()) > 20


@pytest.mark.parametrize("policy", shipped().values(), ids=shipped())
def test_people_are_informed_of_hostgroup_bans(policy: Policy) -> None:
    for name in ("hostgroup-ban", "attack-status-hostgroup"):
        (facts,) = facts_of(example_events()[name])
        rule = match_rule(facts, policy).rule
        assert rule is not None
        assert rule.action.action == NOTIFY
        assert plan_measures(facts, rule.action).measures


@pytest.mark.parametrize("policy", shipped().values(), ids=shipped())
def test_people_are_informed_of_outgoing_attacks(policy: Policy) -> None:
    (facts,) = facts_of(example_events()["ban"])
    huge: Any = facts._replace(direction="outgoing", pps=2**62, bits=2**62)
    rule = match_rule(huge, policy).rule
    assert rule is not None
    assert rule.action.action == NOTIFY


def test_the_example_blocks_a_large_incoming_attack_only() -> None:
    policy = shipped()["example"]
    (facts,) = facts_of(example_events()["ban"])
    large = facts._replace(networks=(ip_network("203.0.113.7/32"),), bits=10**10)
    rule = match_rule(large, policy).rule
    assert rule is not None
    assert rule.name == "large"
    small = facts._replace(bits=40_000_000)
    assert (match_rule(small, policy).rule or rule).name == "inform"


def test_a_small_attack_on_a_large_sender_is_not_blocked() -> None:
    document = {
        "action": "ban",
        "alert_scope": "host",
        "ip": "203.0.113.7",
        "attack_details": {
            "attack_direction": "incoming",
            "attack_protocol": "tcp",
            "total_incoming_traffic_bits": 40_000_000,
            "total_incoming_pps": 60_000,
            "total_outgoing_traffic_bits": 12_000_000_000,
            "total_outgoing_pps": 1_100_000,
        },
    }
    event = parse(msgspec.json.encode(document), [], RECEIPT).event
    (facts,) = facts_of(event)
    rule = match_rule(facts, shipped()["example"]).rule
    assert rule is not None
    assert rule.name == "inform"


def test_an_event_with_overflowing_bits_is_decided() -> None:
    document = {
        "action": "ban",
        "alert_scope": "host",
        "ip": "203.0.113.7",
        "attack_details": {
            "attack_direction": "incoming",
            "total_incoming_traffic": 2**62,
        },
    }
    event = parse(msgspec.json.encode(document), [], RECEIPT).event
    (facts,) = facts_of(event)
    rule = match_rule(facts, shipped()["example"]).rule
    assert rule is not None
    assert rule.name == "large"
