from dataclasses import fields

import pytest

from fnm_bus.avro import schema
from fnm_bus.kafka.addressing import Topics
from fnm_bus.kafka.ddl.columns import Column
from fnm_bus.kafka.ddl.topic_table import Path, TopicTable, topic_tables

TABLES = topic_tables(Topics(host="acme.host"), registry=True)


def column_at(columns: tuple[Column, ...], path: Path) -> Column:
    """Return the column at a path; raise KeyError if the path names no column."""
    first, *rest = path
    column = {column.name: column for column in columns}[first]
    return column_at(column.type.columns, tuple(rest)) if rest else column


def test_every_topic_and_every_record_has_a_table() -> None:
    assert [table.name for table in TABLES] == [field.name for field in fields(Topics)]
    assert tuple(table.full_name for table in TABLES) == schema.RECORDS


def test_a_table_names_the_configured_topic() -> None:
    assert TABLES[0].topic == "acme.host"
    assert TABLES[0].framed


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_record_has_a_time(table: TopicTable) -> None:
    assert column_at(table.columns, table.time).type.word == "timestamp"


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_an_identity_is_never_null(table: TopicTable) -> None:
    assert not any(
        column_at(table.columns, path).type.nullable for path in table.identity
    )
    assert table.identity or table.name in {"audit", "deadletter"}


def test_the_compacted_topics_are_those_of_the_plan() -> None:
    compacted = {table.name for table in TABLES if table.compacted}

    assert compacted == {"reason", "mitigation"}


def test_decisions_are_single_objects_even_with_a_registry() -> None:
    single = {table.name for table in TABLES if not table.framed}

    assert single == {"reason", "mitigation", "command"}


def test_without_a_registry_every_record_is_a_single_object() -> None:
    assert not any(table.framed for table in topic_tables(Topics(), registry=False))
