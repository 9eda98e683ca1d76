"""examples/carpet_bombing.py, and its agreement with examples/sql."""

import importlib.util
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import pytest
from support.noc_scenario import ANSWERS, records

from fnm_bus.consume.handler import RetryLater
from fnm_bus.event import AttackDetails, HostEvent, HostgroupEvent, Receipt
from fnm_bus.event.parse import parse
from fnm_bus.kafka.addressing import Topics

NAME = "carpet_bombing"
FILE = Path(__file__).parents[2] / "examples" / f"{NAME}.py"
START = datetime(2026, 11, 22, 3, 14, tzinfo=UTC)


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location(NAME, FILE)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ban(
    number: int, second: float = 0, *, action: str = "ban", **details: Any
) -> HostEvent:
    return HostEvent(
        receipt=Receipt(received_at=START + timedelta(seconds=second)),
        action=action,
        ip=f"203.0.113.{number}",
        attack_details=AttackDetails(**details),
    )


def observe(detector: Any, *events: HostEvent) -> list[dict[str, Any]]:
    return [
        document
        for event in events
        for document in detector.observe(event, event.receipt.received_at)
    ]


def test_the_program_and_the_queries_find_the_same_places(program: ModuleType) -> None:
    detector = program.CarpetDetector(20)
    events = [
        event for _, _, event in records(Topics()) if isinstance(event, HostEvent)
    ]

    documents = observe(detector, *events)

    bans = {doc["hostgroup_name"] for doc in documents if doc["action"] == "ban"}
    assert {place.split()[1] for place, _ in ANSWERS["carpet_bombing"]} == bans
    assert len(bans) == len([doc for doc in documents if doc["action"] == "ban"])


def test_bans_of_one_host_are_no_carpet(program: ModuleType) -> None:
    detector = program.CarpetDetector(3)

    assert observe(detector, ban(1, 0), ban(1, 1), ban(1, 2), ban(2, 3)) == []


def test_a_minute_is_the_longest_time_between_the_hosts(program: ModuleType) -> None:
    assert observe(program.CarpetDetector(2), ban(1, 0), ban(2, 60)) == []
    assert len(observe(program.CarpetDetector(2), ban(1, 0), ban(2, 59))) == 1


def test_other_actions_are_not_counted(program: ModuleType) -> None:
    detector = program.CarpetDetector(2)

    assert observe(detector, ban(1), ban(2, action="unban")) == []
    group = HostgroupEvent(receipt=Receipt(received_at=START), action="ban")
    assert list(detector.observe(group, START)) == []


def test_old_bans_are_history(program: ModuleType) -> None:
    detector = program.CarpetDetector(1)

    assert list(detector.observe(ban(1), START + timedelta(minutes=5))) == []


def test_the_hostgroup_of_all_other_hosts_is_no_place(program: ModuleType) -> None:
    (document,) = observe(program.CarpetDetector(1), ban(1, host_group="global"))

    assert document["hostgroup_name"] == "203.0.113.0/24"


def test_a_document_has_the_networks_and_the_size_of_its_hosts(
    program: ModuleType,
) -> None:
    detector = program.CarpetDetector(2)
    size = {"total_incoming_pps": 5, "total_incoming_traffic_bits": 700}

    (document,) = observe(detector, ban(1, **size), ban(2, **size))

    assert document["hostgroup_networks"] == ["203.0.113.0/24"]
    assert document["attack_details"]["total_incoming_pps"] == 10
    assert document["attack_details"]["total_incoming_traffic_bits"] == 1400


def test_ipv6_hosts_have_a_place(program: ModuleType) -> None:
    event = HostEvent(
        receipt=Receipt(received_at=START), action="ban", ip="2001:db8:1:2::3"
    )

    (document,) = observe(program.CarpetDetector(1), event)

    assert document["hostgroup_name"] == "2001:db8:1::/48"


def test_a_lasting_attack_is_updated_each_minute_and_then_ends(
    program: ModuleType,
) -> None:
    detector = program.CarpetDetector(2)
    seconds = [0, 1, 30, 58, 65, 100, 121, 500]
    events = [ban(number, second) for number, second in enumerate(seconds, 1)]

    documents = observe(detector, *events)

    assert [doc["action"] for doc in documents] == [
        "ban",
        "attack_status",
        "unban",
    ]
    assert len({doc["attack_details"]["attack_uuid"] for doc in documents}) == 1


def test_a_failed_delivery_is_repeated(program: ModuleType) -> None:
    detector = program.CarpetDetector(2)
    observe(detector, ban(1))
    failed = detector.observe(ban(2), START)
    next(failed)
    failed.close()  # as the handler does when the delivery raises

    assert [doc["action"] for doc in observe(detector, ban(2))] == ["ban"]
    assert observe(detector, ban(2)) == []


def test_late_bans_are_not_in_the_newest_minute(program: ModuleType) -> None:
    detector = program.CarpetDetector(2)
    now = START + timedelta(seconds=240)

    assert list(detector.observe(ban(1, 240), now)) == []
    assert list(detector.observe(ban(2, 0), now)) == []
    assert list(detector.observe(ban(1, 10), now)) == []
    assert len(list(detector.observe(ban(3, 241), now))) == 1


def test_a_clock_that_is_ahead_does_not_keep_an_attack(program: ModuleType) -> None:
    detector = program.CarpetDetector(2)
    ahead = 86_400

    hit = [*detector.observe(ban(1, ahead), START), *detector.observe(ban(2), START)]
    later = START + timedelta(minutes=10)
    end = list(detector.observe(ban(3, 600), later))

    assert [doc["action"] for doc in (*hit, *end)] == ["ban", "unban"]


def test_bytes_of_an_older_fastnetmon_are_bits(program: ModuleType) -> None:
    size = {"total_incoming_traffic": 100}

    (document,) = observe(program.CarpetDetector(1), ban(1, **size))

    assert document["attack_details"]["total_incoming_traffic_bits"] == 800


def test_memory_is_bounded_by_the_last_minutes(program: ModuleType) -> None:
    detector = program.CarpetDetector(2)
    for number in range(200):
        event = HostEvent(
            receipt=Receipt(received_at=START + timedelta(seconds=10 * number)),
            action="ban",
            ip=f"203.0.{number}.1",
        )
        observe(detector, event)

    assert len(detector._bans) <= 31


def test_fnm_bus_reads_each_document_as_a_hostgroup_event(program: ModuleType) -> None:
    documents = observe(program.CarpetDetector(1), ban(1, host_group="customers"))

    for document in documents:
        event = parse(json.dumps(document).encode(), (), Receipt()).event
        assert isinstance(event, HostgroupEvent)
        assert event.extra == {}
        assert event.hostgroup_networks[0].network == "203.0.113.0/24"


def test_a_hook_that_fails_is_tried_again(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = subprocess.CompletedProcess(["hook"], 75, b"", b"spool full")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)

    with pytest.raises(RetryLater, match="exit status 75"):
        program.report("hook", {})


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "missing"), subprocess.TimeoutExpired("hook", 60)]
)
def test_a_hook_that_cannot_finish_is_tried_again(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(subprocess, "run", Mock(side_effect=error))

    with pytest.raises(RetryLater):
        program.report("hook", {})
