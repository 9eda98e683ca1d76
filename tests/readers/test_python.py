"""Python: Confluent's deserializer, the CloudEvents SDK, and no registry."""

import os
import sys
from datetime import datetime
from pathlib import Path

import pytest
from support import fetch, recipes
from support.reader_topics import ReaderTopics

SCHEMAS = Path(__file__).parents[2] / "schemas" / "avro"


@pytest.fixture(scope="module")
def sdk() -> Path:
    """The directory of the CloudEvents SDK."""
    try:
        return fetch.cloudevents()
    except fetch.Unavailable as exc:
        pytest.skip(str(exc))


def test_confluents_deserializer_reads_every_framed_record(
    reader_topics: ReaderTopics, tmp_path: Path
) -> None:
    program = recipes.write("confluent_reader.py", tmp_path)
    sent = reader_topics.framed()
    arguments = reader_topics.arguments(sent)
    records = recipes.lines_of([sys.executable, program, *arguments], len(sent))
    recipes.assert_equal(records, sent, recipes.python_bytes)


def test_single_objects_need_nothing_but_the_schema_files(
    reader_topics: ReaderTopics, tmp_path: Path
) -> None:
    program = recipes.write("single_objects.py", tmp_path)
    sent = reader_topics.single()
    brokers, _, *topics = reader_topics.arguments(sent)
    command = [sys.executable, program, brokers, SCHEMAS, *topics]
    records = recipes.lines_of(command, len(sent))
    recipes.assert_equal(records, sent, recipes.python_bytes)


def test_cloudevents_sdk_reads_attributes_and_data(
    reader_topics: ReaderTopics, sdk: Path, tmp_path: Path
) -> None:
    program = recipes.write("cloudevents_reader.py", tmp_path)
    sent = reader_topics.framed()
    environment = {**os.environ, "PYTHONPATH": str(sdk)}
    command = [sys.executable, program, *reader_topics.arguments(sent)]
    events = recipes.lines_of(command, len(sent), env=environment)
    topics = {entry.record_id: entry.record.topic for entry in sent}
    records = [
        {
            "topic": topics[event["id"]],
            "key": event["partitionkey"],
            "headers": {
                "ce_specversion": "1.0",
                "ce_id": event["id"],
                "ce_source": event["source"],
                "ce_type": event["type"],
                "ce_time": datetime.fromisoformat(event["time"])
                .isoformat()
                .replace("+00:00", "Z"),
                "content-type": "application/avro",
                **(
                    {"traceparent": event["traceparent"]}
                    if event["traceparent"]
                    else {}
                ),
            },
            "value": event["data"],
        }
        for event in events
    ]
    recipes.assert_equal(records, sent, recipes.python_bytes)
