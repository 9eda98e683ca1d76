"""A simulated attack is valid, and matches no real policy."""

import json
import re
from collections import Counter
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from fnm_bus.demo.attack import (
    GROUP,
    PARENT,
    AttackPlan,
    NotifyCall,
    _host_address,
    attack_calls,
)
from fnm_bus.event import HostgroupEvent, Receipt
from fnm_bus.event.parse import Parsed, parse
from fnm_bus.kafka.addressing import subject_of

ROOT = Path(__file__).parents[3]
POLICIES = sorted(
    path
    for folder in ("consumers", "docker", "docs", "packaging")
    for path in (ROOT / folder).rglob("*policy*.toml")
)
DOCUMENTATION = tuple(
    map(
        ip_network,
        ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"),
    )
)
"""RFC 5737 and RFC 3849."""

RECEIPT = Receipt(
    event_id="00000000-0000-5000-8000-000000000000",
    received_at=datetime(2026, 1, 1, tzinfo=UTC),
    sequence=1,
    sensor="test",
    producer_name="fnm-bus",
    producer_version="0",
    raw_digest="sha256:",
    raw_size=0,
    arguments=(),
)


def parsed(call: NotifyCall) -> Parsed:
    return parse(call.document, call.arguments, RECEIPT)


@pytest.mark.parametrize("seed", range(5))
def test_every_document_parses_without_extra_fields(seed: int) -> None:
    for call in attack_calls(AttackPlan(hosts=40, seed=seed)):
        event, drift = parsed(call)
        assert drift == ()
        assert event.extra == {}


def test_the_seed_decides_the_attack() -> None:
    first = list(attack_calls(AttackPlan(seed=7)))
    assert first == list(attack_calls(AttackPlan(seed=7)))
    assert first != list(attack_calls(AttackPlan(seed=8)))


@pytest.mark.parametrize(("hosts", "updates"), [(1, 0), (3, 2), (20, 1)])
def test_the_attack_has_the_planned_size(hosts: int, updates: int) -> None:
    calls = list(attack_calls(AttackPlan(hosts, updates)))
    actions = Counter(json.loads(call.document)["action"] for call in calls)
    assert actions["ban"] == actions["unban"] == hosts + 1  # and the hostgroup
    assert actions["attack_status"] == hosts * updates


def test_every_block_ends_in_an_unblock() -> None:
    opposite = {"ban": "unban", "partial_block": "partial_unblock"}
    open_blocks: set[tuple[str, str]] = set()
    for call in attack_calls(AttackPlan(hosts=5)):
        event, _ = parsed(call)
        if event.action in opposite:
            open_blocks.add((subject_of(event), opposite[event.action]))
        elif event.action in opposite.values():
            open_blocks.remove((subject_of(event), event.action))
    assert open_blocks == set()


def test_one_attack_has_one_uuid_from_ban_to_unban() -> None:
    uuids: dict[str, set[str | None]] = {}
    for call in attack_calls(AttackPlan(hosts=4)):
        event, _ = parsed(call)
        assert event.attack_details is not None
        uuids.setdefault(subject_of(event), set()).add(event.attack_details.attack_uuid)
    assert all(len(names) == 1 for names in uuids.values())
    assert len(set.union(*uuids.values())) == len(uuids)


def test_hosts_of_both_families_are_attacked_each_once() -> None:
    calls = attack_calls(AttackPlan(hosts=600))
    bans = [call.arguments[1] for call in calls if call.arguments[:1] == ("ban",)]
    assert len(bans) == len(set(bans)) == 600
    assert {ip_address(ip).version for ip in bans} == {4, 6}


def test_some_hosts_get_flow_spec_and_a_hostgroup_a_ban() -> None:
    events = [parsed(call)[0] for call in attack_calls(AttackPlan(hosts=12))]
    assert any(event.flow_spec_rules for event in events)
    assert any(isinstance(event, HostgroupEvent) for event in events)


def texts(value: Any) -> list[str]:
    """Return every text in a JSON value."""
    if isinstance(value, dict):
        return [text for child in value.values() for text in texts(child)]
    if isinstance(value, list):
        return [text for child in value for text in texts(child)]
    return [value] if isinstance(value, str) else []


def addresses(text: str) -> set[str]:
    """Return all that looks like an address or a network in *text*."""
    v4 = re.findall(r"(?<![\d.])\d+(?:\.\d+){3}(?:/\d+)?(?![\d.])", text)
    v6 = re.findall(r"(?<![\w:])[0-9a-f]+:[0-9a-f]*:[0-9a-f:]*(?:/\d+)?", text)
    return {*v4, *v6}


@pytest.mark.parametrize("hosts", [40, 2_000])
def test_all_addresses_are_from_documentation_ranges(hosts: int) -> None:
    calls = list(attack_calls(AttackPlan(hosts, updates=0)))
    attacked = {
        address
        for call in calls[:60] + calls[-60:]
        for text in (*call.arguments, *texts(json.loads(call.document)))
        if not re.match(r"\d{4}-\d\d-\d\d ", text)  # a line of a packet dump
        for address in addresses(text)
    }
    attacked |= {call.arguments[1] for call in calls if call.arguments}
    assert len(attacked) >= hosts
    attacked.add(
        _host_address(9_999, is_ipv6=True)
    )  # the last host of the largest attack
    for address in attacked:
        network = ip_network(address)
        assert any(
            network.version == allowed.version and network.subnet_of(allowed)  # type: ignore[arg-type]
            for allowed in DOCUMENTATION
        ), address


def test_packet_dumps_have_addresses_from_documentation_ranges_only() -> None:
    lines = [
        line
        for call in attack_calls(AttackPlan(40, updates=0))
        for line in json.loads(call.document).get("packet_dump", ())
    ]
    assert lines
    for line in lines:
        source, target = re.findall(r"(\S+):\d+(?= )", line)[-2:]
        for address in (ip_address(source), ip_address(target)):
            assert any(address in allowed for allowed in DOCUMENTATION), line


def test_hostgroups_are_named_as_simulated() -> None:
    events = [parsed(call)[0] for call in attack_calls(AttackPlan(hosts=12))]
    groups = {
        event.hostgroup_name for event in events if isinstance(event, HostgroupEvent)
    }
    assert groups == {GROUP}
    details = [
        event.attack_details for event in events if event.attack_details is not None
    ]
    names = {d.host_group for d in details} | {d.parent_host_group for d in details}
    for name in (GROUP, PARENT, *filter(None, names)):
        assert "simulated" in name


def test_no_shipped_policy_names_a_simulated_hostgroup() -> None:
    assert len(POLICIES) >= 3
    for path in POLICIES:
        text = path.read_text()
        for name in (GROUP, PARENT):
            assert name not in text, path
