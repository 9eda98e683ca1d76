"""Views for DuckDB, on archives of `fnm-bus tail --avro`."""

from typing import Final

from fnm_bus.kafka.ddl.columns import Column, ColumnType
from fnm_bus.kafka.ddl.text import heading, literal, quoted
from fnm_bus.kafka.ddl.topic_table import TopicTable

PREAMBLE: Final = "INSTALL avro;\nLOAD avro;\n"

_TYPES: Final = {
    "string": "VARCHAR",
    "bytes": "BLOB",
    "boolean": "BOOLEAN",
    "int": "INTEGER",
    "long": "BIGINT",
    "timestamp": "TIMESTAMP",
}


def table(topic: TopicTable) -> str:
    """Return the statement that creates the view of a topic's archive."""
    command = (
        f"  fnm-bus tail {topic.topic} --from-beginning --until-end"
        f" --avro {topic.name}.avro"
    )
    notes = ("Times are UTC. Archive:", command)
    columns = ",\n  ".join(
        f'CAST("{column.name}" AS {_type(column.type)}) AS "{column.name}"'
        for column in topic.columns
    )
    return (
        f"{heading(topic, notes)}"
        f"CREATE OR REPLACE VIEW {topic.name} AS SELECT\n  {columns}\n"
        "FROM (SELECT *, row_number() OVER () AS archive_row FROM"
        f" read_avro({literal(f'{topic.name}.avro')})){_once(topic)};\n"
    )


def _once(topic: TopicTable) -> str:
    """Return the clause that keeps one row of each identity.

    Of an event it keeps the first record, of a compacted topic's key the newest.
    """
    if not topic.identity:
        return ""
    paths = ", ".join(quoted(path) for path in topic.identity)
    order = "DESC" if topic.compacted else "ASC"
    return (
        f"\nQUALIFY row_number() OVER (PARTITION BY {paths}"
        f" ORDER BY archive_row {order}) = 1"
    )


def _type(column: ColumnType) -> str:
    match column.word:
        case "record":
            return f"STRUCT({', '.join(_field(inner) for inner in column.columns)})"
        case "array":
            return f"{_type(column.items[0])}[]"
        case "map":
            return f"MAP(VARCHAR, {_type(column.items[0])})"
    return _TYPES[column.word]


def _field(column: Column) -> str:
    return f'"{column.name}" {_type(column.type)}'
