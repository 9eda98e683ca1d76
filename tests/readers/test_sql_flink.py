"""Flink reads the topics of a real Kafka, and answers the questions of examples/sql."""

import re
from pathlib import Path

import pytest
from support import java_sql
from support.noc_scenario import ANSWERS, records
from support.older_schema import older_value
from support.sql_questions import EXAMPLES, comparable, questions
from support.sql_topics import (
    Records,
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


def tables(topics: Topics, kafka: str, registry: str | None) -> str:
    """Return the tables, which end where the topics end now."""
    made = topic_tables(topics, registry=registry is not None)
    bounds = [
        f"ALTER TABLE `{table.name}` SET ('scan.bounded.mode' = 'latest-offset');\n"
        for table in made
    ]
    return ddl("flink", made, Source(kafka, registry)) + "\n" + "".join(bounds)


@pytest.mark.parametrize("framing", ["registry", "single objects"])
def test_every_table_has_every_record(
    tmp_path: Path, kafka: str, registry: str, framing: str
) -> None:
    topics = new_topics()
    contents = example_contents(topics)
    if framing == "registry":
        publish(kafka, topics, Codec(register(topics, registry)), contents)
        text = tables(topics, kafka, registry)
    else:
        publish(kafka, topics, Codec(), contents)
        text = tables(topics, kafka, None)
    names = list(Topics.__dataclass_fields__)
    # All columns: a fault in one of them stops the query.
    queries = "".join(f"SELECT * FROM `{name}`;\n" for name in names)
    times = "SELECT receipt.event_id, receipt.received_at, event_time, ip FROM host;\n"

    *rows, shown = java_sql.flink(tmp_path, text + queries + times)

    assert {name: len(row) for name, row in zip(names, rows, strict=True)} == {
        name: rows_of(getattr(topics, name), name, contents) for name in names
    }
    hosts = [event for _, _, event in contents if isinstance(event, HostEvent)]
    assert {(row[0], row[1], row[2][:23], row[3]) for row in shown} == {
        (
            event.receipt.event_id,
            str(round(event.receipt.received_at.timestamp() * 1_000_000)),
            event.receipt.received_at.isoformat(timespec="milliseconds")[:23],
            event.ip,
        )
        for event in hosts
    }


def rows_of(topic: str, name: str, contents: Records) -> int:
    """Return the number of rows: of keys in a compacted topic, else of records."""
    keys = [key for place, key, _ in contents if place == topic]
    return len(set(keys)) if name in {"reason", "mitigation"} else len(keys)


def test_a_record_of_an_older_version_has_null_for_its_missing_fields(
    tmp_path: Path, kafka: str, registry: str
) -> None:
    topics = new_topics()
    event = example_records("fastnetmon.HostEvent")["ban"]
    assert isinstance(event, HostEvent)
    older = older_value(registry, topics.host, event)
    contents: Records = [(topics.host, b"new", event)]
    publish(kafka, topics, Codec(register(topics, registry)), contents)
    publish_values(kafka, [(topics.host, b"old", older)])
    query = (
        "SELECT ip, attack_details.attack_uuid,"
        " attack_details.outgoing_dropped_pps IS NULL, extra IS NULL FROM host;\n"
    )

    (rows,) = java_sql.flink(tmp_path, tables(topics, kafka, registry) + query)

    uuid = event.attack_details.attack_uuid if event.attack_details else None
    assert rows == [
        [event.ip, uuid, "false", "false"],
        [event.ip, uuid, "true", "true"],
    ]


@pytest.fixture(scope="module")
def answers(
    tmp_path_factory: pytest.TempPathFactory, kafka: str, registry: str
) -> dict[str, list[tuple[str, ...]]]:
    topics = new_topics()
    publish(kafka, topics, Codec(register(topics, registry)), list(records(topics)))
    text = tables(topics, kafka, registry) + (EXAMPLES / "flink.sql").read_text()
    rows = java_sql.flink(tmp_path_factory.mktemp("flink"), text)
    asked = [
        question for question in questions("flink") if is_query(question.statement)
    ]
    return {
        question.name: comparable(answer)
        for question, answer in zip(asked, rows, strict=True)
    }


def is_query(statement: str) -> bool:
    return re.sub(r"(?m)^--.*\n?", "", statement).startswith("SELECT")


@pytest.mark.parametrize("name", ANSWERS)
def test_a_question_has_its_answer(
    answers: dict[str, list[tuple[str, ...]]], name: str
) -> None:
    # The rows of a changing table have no order.
    assert sorted(answers[name]) == sorted(ANSWERS[name])
