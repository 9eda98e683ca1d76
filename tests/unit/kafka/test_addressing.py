from datetime import UTC, datetime, timedelta, timezone
from typing import get_args
from uuid import UUID, uuid5

import msgspec
import pytest

from fnm_bus.avro import schema
from fnm_bus.avro.examples import example_records
from fnm_bus.event import (
    Event,
    FlowSpecAction,
    FlowSpecRule,
    HostEvent,
    HostgroupEvent,
    Receipt,
    StatusEvent,
)
from fnm_bus.kafka.addressing import (
    Topics,
    derived_id,
    event_id,
    headers_for,
    headers_of,
    key_of,
    rule_identity,
    scope_of,
    topic_of,
    traceparent,
)

RECEIPT = Receipt(
    event_id="4c0b1d5c-0000-5000-8000-000000000000",
    received_at=datetime(2026, 11, 22, 10, 30, 0, 123456, UTC),
    sensor="fra1 / edge",
)
HOST = HostEvent(receipt=RECEIPT, action="ban", ip="2001:db8::1")
GROUP = HostgroupEvent(receipt=RECEIPT, action="unban", hostgroup_name="Kunden/Süd")
STATUS = StatusEvent(receipt=RECEIPT, action="attack_status", ip="192.0.2.1")
GROUP_STATUS = StatusEvent(
    receipt=RECEIPT, action="attack_status", hostgroup_name="servers"
)


def test_the_id_of_a_notification_never_changes() -> None:
    # A literal: if this fails, ids published before and after a release differ.
    assert event_id("fra1", "entry") == "c43fee37-da5b-5070-a1e5-e0056e26f805"
    assert UUID(event_id("fra1", "entry")).version == 5


def test_ids_are_those_of_rfc_9562() -> None:
    namespace = UUID("6f9d3f0a-3f0c-5c55-9b0a-6a1d2f7b8c4e")
    assert event_id("Süd", "a-1") == str(uuid5(namespace, "Süd/a-1"))


def test_ids_differ_between_sensors_and_between_entries() -> None:
    assert len({event_id(s, e) for s in ("a", "b") for e in ("x", "y")}) == 4


@pytest.mark.parametrize(
    ("event", "topic", "key", "scope"),
    [
        (HOST, "fastnetmon.host.v1", b"2001:db8::1", "host"),
        (GROUP, "fastnetmon.hostgroup.v1", "Kunden/Süd".encode(), "hostgroup"),
        (STATUS, "fastnetmon.status.v1", b"192.0.2.1", "host"),
        (GROUP_STATUS, "fastnetmon.status.v1", b"servers", "hostgroup"),
    ],
)
def test_every_kind_has_its_topic_and_its_key(
    event: HostEvent, topic: str, key: bytes, scope: str
) -> None:
    assert topic_of(event, Topics()) == topic
    assert key_of(event) == key
    assert scope_of(event) == scope


def test_headers_are_cloudevents_in_binary_mode() -> None:
    assert dict(headers_of(HOST)) == {
        "ce_specversion": b"1.0",
        "ce_id": RECEIPT.event_id.encode(),
        "ce_source": b"/fastnetmon/fra1%20%2F%20edge",
        "ce_type": b"fastnetmon.host.ban",
        "ce_time": b"2026-11-22T10:30:00.123456Z",
        "content-type": b"application/avro",
        "traceparent": b"00-4c0b1d5c000050008000000000000000-8000000000000000-01",
    }


def test_a_partial_block_is_keyed_by_its_address() -> None:
    event = msgspec.structs.replace(HOST, action="partial_block", ip="0.0.0.0")  # noqa: S104 - "no host"
    assert key_of(event) == b"0.0.0.0"


def test_an_unusual_action_gives_a_plain_type() -> None:
    event = msgspec.structs.replace(HOST, action="Ban now!")
    assert dict(headers_of(event))["ce_type"] == b"fastnetmon.host.ban_now_"


def test_a_rule_is_identified_by_its_uuid() -> None:
    assert (
        rule_identity(FlowSpecRule(uuid="3b9c6d60", protocols=("udp",))) == "3b9c6d60"
    )


RULE = FlowSpecRule(
    source_prefix="2001:db8::/32",
    destination_prefix="192.0.2.1/32",
    source_ports=(53, 123),
    protocols=("tcp", "udp"),
    tcp_flags=("ack|syn", "fin"),
    agent_addresses=("2001:db8::1",),
)


def test_a_rule_without_uuid_is_identified_by_its_match() -> None:
    # A literal: stored mitigations depend on it.
    assert rule_identity(RULE) == (
        '{"agent_addresses":["2001:db8::1"],"destination_prefix":"192.0.2.1/32",'
        '"protocols":["tcp","udp"],"source_ports":[53,123],'
        '"source_prefix":"2001:db8::/32","tcp_flags":["ack|syn","fin"]}'
    )


@pytest.mark.parametrize(
    "change",
    [
        {"source_ports": (123, 53)},
        {"source_ports": (53, 123, 53)},
        {"protocols": ("UDP", "tcp")},
        {"tcp_flags": ("fin", "syn|ack")},
        {"destination_prefix": "192.0.2.1"},
        {"source_prefix": "2001:0DB8:0::1/32"},
        {"agent_addresses": ("2001:db8:0:0::1",)},
        {"action_type": "discard"},
        {"action": FlowSpecAction(rate=5)},
        {"ipv4_nexthops": ("192.0.2.9",)},
        {"uuid": ""},
    ],
    ids=str,
)
def test_a_match_in_another_spelling_identifies_the_same_rule(
    change: dict[str, object],
) -> None:
    assert rule_identity(msgspec.structs.replace(RULE, **change)) == rule_identity(RULE)


@pytest.mark.parametrize(
    "change",
    [
        {"destination_prefix": "192.0.2.2/32"},
        {"destination_prefix": "192.0.2.0/24"},
        {"destination_prefix": "no prefix"},
        {"destination_prefix": None},
        {"source_ports": (53,)},
        {"source_ports": (), "destination_ports": (53, 123)},
        {"ttls": (64,)},
        {"fragmentation_flags": ("is-fragment",)},
        {"source_asns": (64500,)},
    ],
    ids=str,
)
def test_another_match_identifies_another_rule(change: dict[str, object]) -> None:
    assert rule_identity(msgspec.structs.replace(RULE, **change)) != rule_identity(RULE)


AT = datetime(2026, 11, 29, 3, 14, 7, 118204, tzinfo=UTC)
OTHERS = [
    name
    for name in schema.RECORDS
    if name not in {f"fastnetmon.{kind.__name__}" for kind in get_args(Event)}
]


@pytest.mark.parametrize("name", OTHERS)
def test_every_record_has_the_headers_of_a_cloud_event(name: str) -> None:
    record = next(iter(example_records(name).values()))
    headers = dict(headers_for(record, "mitigator", "7", AT))
    headers.pop("traceparent", None)
    assert headers == {
        "ce_specversion": b"1.0",
        "ce_id": b"7",
        "ce_source": b"/fnm-bus/mitigator",
        "ce_type": name.lower().encode(),
        "ce_time": b"2026-11-29T03:14:07.118204Z",
        "content-type": b"application/avro",
    }


@pytest.mark.parametrize(
    ("name", "field"),
    [("Reason", "event_id"), ("Audit", "event_id"), ("Command", "command_id")],
)
def test_a_record_of_one_cause_joins_the_trace_of_that_cause(
    name: str, field: str
) -> None:
    for record in example_records(f"fastnetmon.{name}").values():
        headers = dict(headers_for(record, "mitigator", "7", AT))
        cause = getattr(record, field)
        expected = traceparent(cause) if cause else None
        assert headers.get("traceparent") == expected
    assert any(
        getattr(record, field)
        for record in example_records(f"fastnetmon.{name}").values()
    )


@pytest.mark.parametrize("name", ["Mitigation", "DeadLetter"])
def test_a_record_of_many_causes_or_none_has_no_trace(name: str) -> None:
    for record in example_records(f"fastnetmon.{name}").values():
        assert "traceparent" not in dict(headers_for(record, "mitigator", "7", AT))


@pytest.mark.parametrize(
    "odd",
    [
        "",
        "entry",
        "4C0B1D5C-0000-5000-8000-000000000000",
        "00000000-0000-0000-0000-000000000000",
        "4c0b1d5c-0000-5000-0000-000000000000",
        "4c0b1d5c-0000-5000-8000-00000000000\u0663",
        "4c0b1d5c-0000-5000-8000-000000000000\n",
    ],
)
def test_an_odd_id_gives_no_trace(odd: str) -> None:
    assert traceparent(odd) is None


def test_an_event_has_its_own_headers_for_every_source() -> None:
    event = next(iter(example_records("fastnetmon.HostEvent").values()))
    assert isinstance(event, HostEvent)
    assert headers_for(event, "relay", "7", AT) == headers_of(event)


def test_the_source_is_a_uri_and_the_time_is_utc() -> None:
    record = next(iter(example_records("fastnetmon.Command").values()))
    zone = timezone(timedelta(hours=2))
    there = dict(headers_for(record, "a b/ä", "7", AT.astimezone(zone)))
    assert there["ce_source"] == b"/fnm-bus/a%20b%2F%C3%A4"
    assert there["ce_time"] == b"2026-11-29T03:14:07.118204Z"
    without_zone = headers_for(record, "x", "7", AT.replace(tzinfo=None))
    assert dict(without_zone)["ce_time"] == there["ce_time"]


def test_an_id_depends_on_its_parts_and_their_order() -> None:
    assert derived_id("a", "b", 1) == derived_id("a", "b", 1)
    assert derived_id("a", "b") != derived_id("b", "a")
    assert derived_id("a/b") != derived_id("a", "b")
    assert derived_id("a", "1") != derived_id("a", 1)


def test_every_event_topic_has_a_schema() -> None:
    assert set(Topics().of_events().values()) == {
        f"fastnetmon.{kind.__name__}" for kind in get_args(Event)
    }
    assert set(Topics().of_events().values()) <= set(schema.RECORDS)
