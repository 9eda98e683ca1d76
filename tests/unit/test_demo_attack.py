"""A made-up attack is what FastNetMon could have said."""

import json
from collections import Counter
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest

from fnm_bus.demo.attack import Call, Plan, attack
from fnm_bus.event import HostgroupEvent, Receipt
from fnm_bus.parse import Parsed, parse
from fnm_bus.route import subject_of

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


def parsed(call: Call) -> Parsed:
    return parse(call.document, call.arguments, RECEIPT)


@pytest.mark.parametrize("seed", range(5))
def test_every_document_is_understood_to_the_last_field(seed: int) -> None:
    for call in attack(Plan(hosts=40, seed=seed)):
        event, drift = parsed(call)
        assert drift == ()
        assert event.extra == {}


def test_the_same_seed_makes_the_same_attack_and_another_another() -> None:
    first = list(attack(Plan(seed=7)))
    assert first == list(attack(Plan(seed=7)))
    assert first != list(attack(Plan(seed=8)))


@pytest.mark.parametrize(("hosts", "updates"), [(1, 0), (3, 2), (20, 1)])
def test_it_is_as_large_as_asked_for(hosts: int, updates: int) -> None:
    calls = list(attack(Plan(hosts, updates)))
    actions = Counter(json.loads(call.document)["action"] for call in calls)
    assert actions["ban"] == actions["unban"] == hosts + 1  # and the hostgroup
    assert actions["attack_status"] == hosts * updates


def test_everything_that_is_blocked_is_taken_back_later() -> None:
    opposite = {"ban": "unban", "partial_block": "partial_unblock"}
    open_blocks: set[tuple[str, str]] = set()
    for call in attack(Plan(hosts=5)):
        event, _ = parsed(call)
        if event.action in opposite:
            open_blocks.add((subject_of(event), opposite[event.action]))
        elif event.action in opposite.values():
            open_blocks.remove((subject_of(event), event.action))
    assert open_blocks == set()


def test_one_attack_has_one_uuid_from_ban_to_unban() -> None:
    uuids: dict[str, set[str | None]] = {}
    for call in attack(Plan(hosts=4)):
        event, _ = parsed(call)
        assert event.attack_details is not None
        uuids.setdefault(subject_of(event), set()).add(event.attack_details.attack_uuid)
    assert all(len(it) == 1 for it in uuids.values())
    assert len(set.union(*uuids.values())) == len(uuids)


def test_hosts_of_both_families_are_attacked_each_once() -> None:
    calls = attack(Plan(hosts=600))
    bans = [it.arguments[1] for it in calls if it.arguments[:1] == ("ban",)]
    assert len(bans) == len(set(bans)) == 600
    assert {ip_address(ip).version for ip in bans} == {4, 6}


def test_some_hosts_are_met_with_flow_spec_and_a_hostgroup_with_a_ban() -> None:
    events = [parsed(call)[0] for call in attack(Plan(hosts=12))]
    assert any(event.flow_spec_rules for event in events)
    assert any(isinstance(event, HostgroupEvent) for event in events)
