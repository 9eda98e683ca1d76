"""Other readers of the topics: kcat, fastavro, Confluent's deserializer.

Debian's kcat is built without Avro, so it shows that key, headers and bytes are what
any client gets, and fastavro decodes those bytes by nothing but the schema files.
"""

import json
import shutil
import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Message
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from fastavro import schemaless_reader
from fastavro.schema import load_schema

from fnm_bus.avro import schema
from fnm_bus.avro.codec import Codec
from fnm_bus.avro.examples import example_records
from fnm_bus.avro.registry import Registry
from fnm_bus.event import Event
from fnm_bus.kafka.addressing import Topics
from fnm_bus.kafka.publisher import ONE_SHOT_PRODUCER, KafkaPublisher
from fnm_bus.kafka.record import Record
from fnm_bus.kafka.topic_admin import TopicAdmin
from fnm_bus.kafka.topics import planned_topics
from fnm_bus.relay.pipeline import Pipeline

Names = Callable[[str], str]
Published = tuple[list[tuple[Event, Record]], Topics]
SCHEMAS = Path(__file__).parents[2] / "schemas" / "avro"
EVENTS: list[Event] = [
    event  # type: ignore[misc]  # no dead letters among them
    for full_name in Topics().of_events().values()
    for event in example_records(full_name).values()
]


def publish(kafka: str, names: Names, codec: Callable[[Topics], Codec]) -> Published:
    """Publish every example; return each event with its record."""
    kinds = Topics.__dataclass_fields__
    topics = Topics(**{kind: names(kind) for kind in kinds})
    settings = {"bootstrap.servers": kafka}
    TopicAdmin(settings).create(planned_topics(topics, 3, 1))
    pipeline = Pipeline("fra1", topics, codec(topics))
    publisher = KafkaPublisher(settings, ONE_SHOT_PRODUCER)
    reports: list[object] = []
    published = [(event, pipeline.record(event)) for event in EVENTS]
    for _, record in published:
        publisher.publish(record, reports.append)
    assert publisher.flush(30) == 0
    publisher.close()
    assert reports == [None] * len(EVENTS)
    return published, topics


def consume(kafka: str, topics: list[str], count: int) -> list[Message]:
    consumer = Consumer(
        {
            "bootstrap.servers": kafka,
            "group.id": topics[0],
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe(topics)
    try:
        messages: list[Message] = []
        while len(messages) < count:
            more = consumer.consume(count - len(messages), timeout=20)
            assert more, f"{len(messages)} of {count} arrived"
            messages += more
    finally:
        consumer.close()
    return messages


def plain(value: Any) -> Any:
    """Return a datum of fastavro as plain JSON values."""
    return json.loads(json.dumps(value, default=str))


def expected(event: Event) -> Any:
    """Return an event as any Avro library shows it."""
    full_name = f"fastnetmon.{type(event).__name__}"
    value = Codec().encode(event, "")[10:]
    return plain(schemaless_reader(BytesIO(value), schema.load()[full_name], None))


def test_fastavro_reads_single_objects_with_nothing_but_the_schema_files(
    kafka: str, topic_names: Names
) -> None:
    published, topics = publish(kafka, topic_names, lambda _: Codec())
    by_topic = {
        topic: load_schema(str(SCHEMAS / f"{full_name}.avsc"))
        for topic, full_name in topics.of_events().items()
    }
    messages = consume(kafka, list(by_topic), len(published))
    events = {}
    for message in messages:
        value = message.value()
        assert value[:2] == b"\xc3\x01"
        body = BytesIO(value[10:])
        datum: Any = schemaless_reader(body, by_topic[message.topic()], None)
        assert not body.read()
        events[datum["receipt"]["event_id"], datum["action"]] = plain(datum)
    assert len(events) == len(EVENTS)
    assert events == {
        (event.receipt.event_id, event.action): expected(event)
        for event, _ in published
    }


def test_confluents_deserializer_reads_with_nothing_but_the_registry(
    kafka: str, registry: str, topic_names: Names
) -> None:
    def pinned(topics: Topics) -> Codec:
        return Codec(Registry(registry).register(topics.of_events()))

    published, topics = publish(kafka, topic_names, pinned)
    messages = consume(kafka, list(topics.of_events()), len(published))
    events = {}
    with SchemaRegistryClient({"url": registry, "timeout": 5}) as client:
        deserialize = AvroDeserializer(client)
        for message in messages:
            context = SerializationContext(message.topic(), MessageField.VALUE)
            datum: Any = deserialize(message.value(), context)
            events[datum["receipt"]["event_id"], datum["action"]] = plain(datum)
    assert len(events) == len(EVENTS)
    assert events == {
        (event.receipt.event_id, event.action): expected(event)
        for event, _ in published
    }


def kcat(kafka: str, topic: str, *arguments: str) -> bytes:
    program = shutil.which("kcat") or shutil.which("kafkacat")
    if program is None:
        pytest.skip("kcat is not installed")
    return subprocess.run(
        [program, "-C", "-q", "-e", "-b", kafka, "-t", topic, *arguments],
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout


def test_kcat_shows_key_headers_and_value_as_they_were_sent(
    kafka: str, topic_names: Names
) -> None:
    published, topics = publish(kafka, topic_names, lambda _: Codec())
    for topic in topics.of_events():
        sent = {
            (record.key, tuple(record.headers), record.value)
            for _, record in published
            if record.topic == topic
        }
        # Sizes before the parts: a value may hold any byte.
        shown = kcat(kafka, topic, "-f", "%K %S %h\n%k%s")
        assert set(records(shown)) == sent


def records(shown: bytes) -> list[tuple[bytes, tuple[tuple[str, bytes], ...], bytes]]:
    events = []
    while shown:
        head, _, rest = shown.partition(b"\n")
        key_size, size, headers = head.split(b" ", 2)
        end = int(key_size) + int(size)
        pairs = (header.split("=", 1) for header in headers.decode().split(","))
        events.append(
            (
                rest[: int(key_size)],
                tuple((name, value.encode()) for name, value in pairs),
                rest[int(key_size) : end],
            )
        )
        shown = rest[end:]
    return events
