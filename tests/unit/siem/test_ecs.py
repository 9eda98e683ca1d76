"""Lines in the Elastic Common Schema."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from consumers.siem.ecs import ecs_line
from fnm_bus.avro import schema
from fnm_bus.avro.examples import example_records
from fnm_bus.event import AnyRecord, AttackDetails, HostEvent, Receipt
from fnm_bus.kafka.reader import ConsumedRecord

AT = datetime(2026, 11, 22, 3, 14, 7, 118204, tzinfo=UTC)
RECEIPT = Receipt(
    event_id="e60db861-6ae4-5fbf-830a-4c5ea962bf21", received_at=AT, sensor="fra1"
)


def line(event: AnyRecord | None) -> bytes:
    return ecs_line(ConsumedRecord("host", 3, 17, AT, b"::1", (), b"x", event, ""))


def test_ban_is_an_alert_with_the_fields_of_ecs() -> None:
    details = AttackDetails(
        attack_uuid="u",
        attack_detection_threshold_direction="incoming",
        attack_protocol="UDP",
        host_group="customers",
        total_incoming_pps=0,
        total_incoming_traffic_bits=8_000,
    )
    event = HostEvent(
        receipt=RECEIPT, action="ban", ip="203.0.113.25", attack_details=details
    )
    assert json.loads(line(event)) == {
        "@timestamp": "2026-11-22T03:14:07.118204Z",
        "ecs": {"version": "8.11.0"},
        "message": "fra1: ban of 203.0.113.25",
        "event": {
            "id": "e60db861-6ae4-5fbf-830a-4c5ea962bf21",
            "kind": "alert",
            "category": ["network"],
            "type": ["start", "denied"],
            "action": "ban",
            "severity": 8,
            "module": "fastnetmon",
            "dataset": "fastnetmon.host",
            "provider": "fastnetmon",
        },
        "observer": {"name": "fra1"},
        "destination": {"ip": "203.0.113.25", "address": "203.0.113.25"},
        "related": {"ip": ["203.0.113.25"]},
        "network": {"direction": "inbound", "transport": "udp"},
        "trace": {"id": "e60db8616ae45fbf830a4c5ea962bf21"},
        "fastnetmon": {
            "attack_uuid": "u",
            "hostgroup": "customers",
            "pps": 0,
            "bits": 8_000,
        },
        "kafka": {"topic": "host", "partition": 3, "offset": 17, "key": "::1"},
    }


def test_outgoing_attack_has_the_host_as_source() -> None:
    details = AttackDetails(attack_detection_threshold_direction="outgoing")
    event = HostEvent(receipt=RECEIPT, ip="2001:db8::1", attack_details=details)
    document = json.loads(line(event))
    assert document["source"]["ip"] == "2001:db8::1"
    assert "destination" not in document


@pytest.mark.parametrize("full_name", schema.RECORDS)
def test_every_example_is_one_line_of_ecs(full_name: str) -> None:
    for event in example_records(full_name).values():
        text = line(event)
        assert text.count(b"\n") == 1
        document: dict[str, Any] = json.loads(text)
        assert {"@timestamp", "ecs", "event", "kafka"} <= document.keys()


def test_dead_letter_is_a_fault_of_the_pipeline() -> None:
    letter = next(iter(example_records("fastnetmon.DeadLetter").values()))
    assert json.loads(line(letter))["event"]["kind"] == "pipeline_error"


def test_failure_of_an_enforcer_is_an_outcome() -> None:
    [audit] = [
        record
        for record in example_records("fastnetmon.Audit").values()
        if record.action == "in-force"  # type: ignore[union-attr]
    ]
    assert json.loads(line(audit))["event"]["outcome"] == "success"


def test_time_has_a_fraction_in_each_line() -> None:
    event = HostEvent(receipt=Receipt(received_at=AT.replace(microsecond=0)), ip="::1")
    assert json.loads(line(event))["@timestamp"] == "2026-11-22T03:14:07.000000Z"


def test_tombstone_names_its_key() -> None:
    document = json.loads(line(None))
    assert document["event"]["dataset"] == "fastnetmon.tombstone"
    assert document["kafka"]["key"] == "::1"


def test_line_breaks_of_a_sensor_stay_in_the_line() -> None:
    event = HostEvent(receipt=Receipt(sensor="a\nb\x1b"), action="ban", ip="::1")
    text = line(event)
    assert text.count(b"\n") == 1
    assert json.loads(text)["observer"]["name"] == "a\nb\x1b"
