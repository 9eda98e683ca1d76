"""Spark reads the topics of a real Kafka, each record by its writer's schema."""

from pathlib import Path

from support import java_sql
from support.older_schema import older_value
from support.sql_topics import (
    example_contents,
    new_topics,
    publish,
    publish_values,
    register,
)

from fnm_bus.avro.codec import Codec
from fnm_bus.avro.examples import example_records
from fnm_bus.event import HostEvent
from fnm_bus.kafka.addressing import Topics
from fnm_bus.kafka.ddl.source import Source
from fnm_bus.kafka.ddl.statements import statements as ddl
from fnm_bus.kafka.ddl.topic_table import topic_tables

NAMES = list(Topics.__dataclass_fields__)


def test_every_view_has_every_record_of_every_version(
    tmp_path: Path, kafka: str, registry: str
) -> None:
    topics = new_topics()
    event = example_records("fastnetmon.HostEvent")["ban"]
    assert isinstance(event, HostEvent)
    older = older_value(registry, topics.host, event)
    ids = register(topics, registry)
    contents = example_contents(topics)
    publish(kafka, topics, Codec(ids), contents)
    publish_values(kafka, [(topics.host, b"old", older)])
    writers = {topic: ids.writers(f"{topic}-value") for topic in topics.of_framed()}
    tables = topic_tables(topics, registry=True)
    text = ddl("spark", tables, Source(kafka, registry, writers))
    # All columns: a fault in one of them stops the query.
    queries = "".join(f"SELECT * FROM {name};\n" for name in NAMES)
    old = (
        "SELECT ip, receipt.received_at, attack_details.attack_uuid,"
        " attack_details.outgoing_dropped_pps FROM host WHERE"
        f" receipt.event_id = '{event.receipt.event_id}' ORDER BY `timestamp`;\n"
    )

    *rows, versions = java_sql.spark(tmp_path, text + queries + old)

    assert {name: len(row) for name, row in zip(NAMES, rows, strict=True)} == {
        name: len([0 for topic, _, _ in contents if topic == getattr(topics, name)])
        + (name == "host")
        for name in NAMES
    }
    details = event.attack_details
    assert details is not None
    shown = event.receipt.received_at.strftime("%Y-%m-%d %H:%M:%S.%f")
    assert versions == [
        [event.ip, shown, details.attack_uuid, str(details.outgoing_dropped_pps)],
        [event.ip, shown, details.attack_uuid, "null"],
    ]


def test_without_a_registry_every_view_has_every_record(
    tmp_path: Path, kafka: str
) -> None:
    topics = new_topics()
    contents = example_contents(topics)
    publish(kafka, topics, Codec(), contents)
    text = ddl("spark", topic_tables(topics, registry=False), Source(kafka))
    queries = "".join(f"SELECT * FROM {name};\n" for name in NAMES)

    rows = java_sql.spark(tmp_path, text + queries)

    assert {name: len(row) for name, row in zip(NAMES, rows, strict=True)} == {
        name: len([0 for topic, _, _ in contents if topic == getattr(topics, name)])
        for name in NAMES
    }
