"""Topics with every example, and an older schema, for readers of other projects."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from fastavro import schemaless_reader, schemaless_writer

from fnm_bus.avro import schema
from fnm_bus.avro.codec import Codec
from fnm_bus.avro.examples import example_records
from fnm_bus.avro.registry import Registry
from fnm_bus.avro.schema_ids import registry_subject
from fnm_bus.event import (
    AnyRecord,
    Command,
    DeadLetter,
    HostEvent,
    HostgroupEvent,
    StatusEvent,
)
from fnm_bus.kafka.addressing import Topics, headers_for, key_of
from fnm_bus.kafka.publisher import ONE_SHOT_PRODUCER, KafkaPublisher
from fnm_bus.kafka.record import Record
from fnm_bus.kafka.topic_admin import TopicAdmin
from fnm_bus.kafka.topics import planned_topics

AT = datetime(2026, 11, 22, 3, 14, 7, 118204, tzinfo=UTC)
_LEFT_OUT = {"HostEvent": "alert_scope", "AttackDetails": "protocol_version"}
"""Fields that the older schema does not have, from the middle of their records."""
_LARGE = 2**62 + 1
"""A sequence that no floating-point number has."""
_KINDS = {
    "HostEvent": "host",
    "HostgroupEvent": "hostgroup",
    "StatusEvent": "status",
}


class Sent(NamedTuple):
    """One record on Kafka.

    Attributes:
        record: topic, key, value and headers.
        full_name: the record's type.
        datum: the value as Avro gives it by the schema of its writer.
        resolved: the same by the current schema.
    """

    record: Record
    full_name: str
    datum: dict[str, Any]
    resolved: dict[str, Any]

    @property
    def record_id(self) -> str:
        """The header ce_id, which no other record has."""
        return dict(self.record.headers)["ce_id"].decode()


class ReaderTopics(NamedTuple):
    """Topics that are complete.

    Attributes:
        kafka: address of the broker.
        registry: base address of the registry's Confluent API.
        topics: their names.
        sent: every record on them.
    """

    kafka: str
    registry: str
    topics: Topics
    sent: tuple[Sent, ...]

    def arguments(self, sent: Sequence[Sent]) -> list[str]:
        """Return the arguments of a program that reads the topics of *sent*."""
        topics = {entry.record.topic for entry in sent}
        return [self.kafka, self.registry, *sorted(topics)]

    def framed(self) -> tuple[Sent, ...]:
        """Return the records with Confluent's framing."""
        return tuple(s for s in self.sent if s.record.value[:1] == b"\0")

    def single(self) -> tuple[Sent, ...]:
        """Return the records that are single objects."""
        return tuple(s for s in self.sent if s.record.value[:2] == b"\xc3\x01")


def publish_examples(kafka: str, registry: str) -> ReaderTopics:
    """Publish every example of every record, and the host events by an older schema."""
    prefix = f"test-{uuid4().hex[:12]}"
    topics = Topics(**{kind.name: f"{prefix}.{kind.name}" for kind in fields(Topics)})
    settings = {"bootstrap.servers": kafka}
    TopicAdmin(settings).create(planned_topics(topics, 3, 1))
    old_text = _older_schema()
    with SchemaRegistryClient({"url": registry, "timeout": 30}) as client:
        subject = registry_subject(topics.host)
        old_id = client.register_schema(subject, Schema(old_text, "AVRO"))
    codec = Codec(Registry(registry, timeout=30).register(topics.of_framed()))
    sent = (
        *_current(topics, codec),
        *_older(topics.host, old_id, schema.parse(old_text)),
    )
    publisher = KafkaPublisher(settings, ONE_SHOT_PRODUCER)
    reports: list[object] = []
    for entry in sent:
        publisher.publish(entry.record, reports.append)
    assert publisher.flush(60) == 0
    publisher.close()
    assert reports == [None] * len(sent)
    return ReaderTopics(kafka, registry, topics, sent)


def _current(topics: Topics, codec: Codec) -> Iterator[Sent]:
    for full_name in schema.RECORDS:
        name = full_name.removeprefix("fastnetmon.")
        topic = getattr(topics, _KINDS.get(name, name.lower()))
        for example, event in example_records(full_name).items():
            headers = headers_for(event, "mitigator", f"{name}-{example}", AT)
            key = _key(event, example)
            value = codec.encode(event, topic)
            datum = _read(value, schema.load()[full_name])
            yield Sent(Record(topic, key, value, headers), full_name, datum, datum)


def _key(event: AnyRecord, example: str) -> bytes | None:
    """Return an event's key, None for a record that may lack one, else any key."""
    match event:
        case HostEvent() | HostgroupEvent() | StatusEvent():
            return key_of(event)
        case DeadLetter() | Command(key=None):
            return None
    return example.encode()


def _older(topic: str, number: int, old: dict[str, Any]) -> Iterator[Sent]:
    full_name = "fastnetmon.HostEvent"
    current = schema.load()[full_name]
    for event in example_records(full_name).values():
        assert isinstance(event, HostEvent)
        receipt = msgspec.structs.replace(
            event.receipt, event_id=str(uuid4()), sequence=_LARGE
        )
        older = msgspec.structs.replace(event, receipt=receipt)
        datum = _without(msgspec.to_builtins(older, builtin_types=(bytes, datetime)))
        out = BytesIO()
        out.write(b"\0" + number.to_bytes(4, "big"))
        schemaless_writer(out, old, datum)
        value = out.getvalue()
        headers = headers_for(older, "", "", AT)
        yield Sent(
            Record(topic, key_of(older), value, headers),
            full_name,
            _read(value, old),
            _read(value, old, current),
        )


def _read(value: bytes, writer: Any, reader: Any = None) -> dict[str, Any]:
    start = 5 if value[0] == 0 else 10
    datum: Any = schemaless_reader(BytesIO(value[start:]), writer, reader)
    return dict(datum)


def _without(datum: dict[str, Any]) -> dict[str, Any]:
    datum.pop(_LEFT_OUT["HostEvent"])
    if datum["attack_details"] is not None:
        datum["attack_details"].pop(_LEFT_OUT["AttackDetails"])
    return datum


def _older_schema() -> str:
    """Return the schema of host events without two fields of today's."""

    def walk(node: Any) -> Any:
        if isinstance(node, list):
            return [walk(item) for item in node]
        if not isinstance(node, dict):
            return node
        result = {name: walk(value) for name, value in node.items()}
        left_out = _LEFT_OUT.get(str(node.get("name")))
        if left_out and "fields" in result:
            result["fields"] = [f for f in result["fields"] if f["name"] != left_out]
        return result

    return json.dumps(walk(json.loads(schema.text("fastnetmon.HostEvent"))))
