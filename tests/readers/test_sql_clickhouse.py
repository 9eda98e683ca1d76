"""ClickHouse's code reads topics and archives, and answers examples/sql.

chdb runs ClickHouse without a server, so the engine Kafka has no thread that reads. The
test puts the values of a topic into the place of the queue: ClickHouse decodes them by
the schemas of a real registry, and passes them through the view.
"""

import re
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from uuid import uuid4

import pytest
from support.ddl_tables import FRAMED, SOURCE, TOPICS
from support.noc_scenario import ANSWERS, records
from support.older_schema import older_value
from support.sql_questions import comparable, execute, questions, statements

from fnm_bus.avro.archive import Archive
from fnm_bus.avro.codec import Codec
from fnm_bus.avro.examples import example_records
from fnm_bus.avro.registry import Registry
from fnm_bus.event import AnyRecord, HostEvent
from fnm_bus.kafka.ddl.statements import statements as ddl
from fnm_bus.kafka.ddl.topic_table import TopicTable

Events = dict[str, list[AnyRecord]]
QUEUE = re.compile(r"CREATE TABLE (\w+)_queue \(\n(.*)\n\) ENGINE = Kafka", re.DOTALL)


def filled(directory: Path, registry: str, events: Events) -> list[str]:
    """Store the records in files; return the statements that make and fill tables."""
    for name, table in FRAMED.items():
        if not table.framed:
            with Archive(directory / f"{name}.avro", table.full_name) as file:
                for event in events[name]:
                    file.add(event)
    source = replace(SOURCE, registry_url=registry)
    texts = [f"SET format_avro_schema_registry_url = '{registry}'"]
    queues = {}
    for text in statements(ddl("clickhouse", FRAMED.values(), source)):
        queue = QUEUE.search(text)
        if queue is None:
            texts.append(text)
        else:
            name, columns = queue.groups()
            queues[name] = columns
            # Not among the columns of `*`, as in a table of the engine Kafka.
            virtual = (
                "_partition UInt64 MATERIALIZED 0, _offset UInt64 MATERIALIZED rand64()"
            )
            texts.append(
                f"CREATE TABLE {name}_queue ({columns}, {virtual}) ENGINE = Null"
            )
    codec = Codec(Registry(registry).register(TOPICS.of_framed()))
    for name, columns in queues.items():
        values = [codec.encode(event, FRAMED[name].topic) for event in events[name]]
        (directory / f"{name}.values").write_bytes(b"".join(values))
        structure = columns.replace("'", "\\'")
        texts.append(
            f"INSERT INTO {name}_queue SELECT *"
            f" FROM file('{name}.values', 'AvroConfluent', '{structure}')"
        )
    return texts


def test_every_table_has_each_record_once(tmp_path: Path, registry: str) -> None:
    events = {
        name: list(example_records(table.full_name).values()) * 2
        for name, table in FRAMED.items()
    }
    texts = filled(tmp_path, registry, events)
    counts = [f"SELECT count() FROM {name} FINAL" for name in FRAMED]

    rows = execute("clickhouse", [*texts, *counts], tmp_path)[len(texts) :]

    assert {name: int(row[0][0]) for name, row in zip(FRAMED, rows, strict=True)} == {
        name: identities(table) for name, table in FRAMED.items()
    }


def identities(table: TopicTable) -> int:
    """Return the number of rows for the examples of a table, each delivered twice."""
    examples = list(example_records(table.full_name).values())
    if not table.identity:
        return 2 * len(examples)
    values = attrgetter(*(".".join(path) for path in table.identity))
    return len({values(example) for example in examples})


def test_values_are_those_of_the_event(tmp_path: Path, registry: str) -> None:
    events: Events = {name: [] for name in FRAMED}
    events["host"] = [example_records("fastnetmon.HostEvent")["ban-ipv6"]]
    texts = filled(tmp_path, registry, events)
    query = (
        "SELECT receipt.event_id, receipt.received_at, ip, attack_details.host_group,"
        " attack_details.total_incoming_pps, length(packet_dump_detailed),"
        " packet_dump_detailed[1].source_ip FROM host FINAL"
    )

    rows = execute("clickhouse", [*texts, query], tmp_path)[-1]

    assert rows == [
        [
            "8a1685e1-18e2-5185-abfd-e0f0101eceda",
            "2026-11-22 03:14:08.004402",
            "2001:db8:113::25",
            "customers",
            "720000",
            "4",
            events["host"][0].packet_dump_detailed[0].source_ip,
        ]
    ]


def test_a_record_that_lacks_a_field_of_a_tuple_is_refused(
    tmp_path: Path, registry: str
) -> None:
    topic = f"{uuid4().hex}.host"
    event = example_records("fastnetmon.HostEvent")["ban"]
    assert isinstance(event, HostEvent)
    (tmp_path / "older.values").write_bytes(older_value(registry, topic, event))
    events: Events = {name: [] for name in FRAMED}
    texts = filled(tmp_path, registry, events)
    insert = "INSERT INTO host SELECT * FROM file('older.values', 'AvroConfluent')"

    rows = execute("clickhouse", [*texts, f"?{insert}"], tmp_path)[-1]

    assert "number of leaves in record doesn't match" in rows[0][0]


def test_the_queue_is_a_table_that_clickhouse_accepts(tmp_path: Path) -> None:
    # It stores the table, and then reports that no thread can read from Kafka.
    table = {"host": FRAMED["host"]}
    (queue, *_) = statements(ddl("clickhouse", table.values(), SOURCE))

    rows = execute("clickhouse", [f"?{queue}", "SHOW TABLES"], tmp_path)

    assert rows[0] == [
        ["Code: 49. DB::Exception: Shutdown was called. (LOGICAL_ERROR)"]
    ]
    assert rows[1] == [["host_queue"]]


@pytest.fixture(scope="module")
def answers(
    tmp_path_factory: pytest.TempPathFactory, registry: str
) -> dict[str, list[tuple[str, ...]]]:
    directory = tmp_path_factory.mktemp("clickhouse")
    events: Events = {name: [] for name in FRAMED}
    for topic, _, event in records(TOPICS):
        (name,) = (name for name, table in FRAMED.items() if table.topic == topic)
        events[name].append(event)
    texts = filled(directory, registry, events)
    asked = questions("clickhouse")
    queries = [question.statement for question in asked]
    rows = execute("clickhouse", [*texts, *queries], directory)[len(texts) :]
    return {
        question.name: comparable(answer)
        for question, answer in zip(asked, rows, strict=True)
    }


@pytest.mark.parametrize("name", ANSWERS)
def test_a_question_has_its_answer(
    answers: dict[str, list[tuple[str, ...]]], name: str
) -> None:
    assert answers[name] == ANSWERS[name]
