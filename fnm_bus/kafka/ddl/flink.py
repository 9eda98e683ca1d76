"""Tables for Flink SQL."""

from typing import Final

from fnm_bus.kafka.ddl.columns import Column, ColumnType
from fnm_bus.kafka.ddl.source import Source
from fnm_bus.kafka.ddl.text import heading, literal
from fnm_bus.kafka.ddl.topic_table import Path, TopicTable

_TYPES: Final = {
    "string": "STRING",
    "bytes": "BYTES",
    "boolean": "BOOLEAN",
    "int": "INT",
    "long": "BIGINT",
    # Flink's Avro formats read every timestamp as milliseconds: the year would be
    # wrong, without an error.
    "timestamp": "BIGINT",
}

_SINGLE_OBJECT: Final = (
    "`single_object` BIGINT NOT NULL",
    "`fingerprint` DOUBLE NOT NULL",
)
"""The header of a single object in Avro's own types: two bytes are a varint, eight
bytes are a double. So Flink's format `avro`, which has no header, can read it."""

_FRAMED_NOTES: Final = (
    "Flink takes each record's schema from the registry, by its id.",
)
_SINGLE_NOTES: Final = (
    "The values are Avro single objects. The first two columns are their header.",
    "Flink reads them only if the writer's schema is this one: print the tables again",
    "after an upgrade of fnm-bus.",
)


def table(topic: TopicTable, source: Source) -> str:
    """Return the statement that creates the table of a topic."""
    columns = [
        f"{_name(column.name)} {_type(column.type, exact=not topic.framed)}"
        for column in topic.columns
    ]
    if not topic.framed:
        columns[:0] = _SINGLE_OBJECT
    if topic.compacted:
        columns[:0] = ["`record_key` STRING NOT NULL"]
        columns += [_event_time(topic.time), "PRIMARY KEY (`record_key`) NOT ENFORCED"]
    else:
        columns += [
            _event_time(topic.time),
            "WATERMARK FOR `event_time` AS `event_time` - INTERVAL '30' SECOND",
        ]
    body = ",\n  ".join(columns)
    options = ",\n  ".join(
        f"{literal(key)} = {literal(value)}"
        for key, value in _options(topic, source).items()
    )
    notes = _FRAMED_NOTES if topic.framed else _SINGLE_NOTES
    return (
        f"{heading(topic, notes)}"
        f"CREATE TABLE {_name(topic.name)} (\n  {body}\n) WITH (\n  {options}\n);\n"
    )


def _options(topic: TopicTable, source: Source) -> dict[str, str]:
    options = {
        "connector": "kafka",
        "topic": topic.topic,
        "properties.bootstrap.servers": source.servers,
        # The mitigator writes in transactions.
        "properties.isolation.level": "read_committed",
    }
    if topic.compacted:
        options |= {
            "connector": "upsert-kafka",
            "key.format": "raw",
            "value.fields-include": "EXCEPT_KEY",
        }
    else:
        options["scan.startup.mode"] = "earliest-offset"
    if not topic.framed:
        return {**options, "value.format": "avro"}
    return {
        **options,
        "value.format": "avro-confluent",
        "value.avro-confluent.url": source.registry_url or "",
    }


def _event_time(path: Path) -> str:
    micros = ".".join(_name(name) for name in path)
    return f"`event_time` AS TO_TIMESTAMP_LTZ({micros} / 1000, 3)"


def _type(column: ColumnType, *, exact: bool) -> str:
    """Return a type.

    Args:
        column: the type.
        exact: whether only nullable types may be null. Without a schema of the writer
            this decides how bytes are read. With one, a type that is always nullable
            also reads records of an older version, which lack a field.
    """
    match column.word:
        case "record":
            fields = [_field(inner, exact=exact) for inner in column.columns]
            text = f"ROW<{', '.join(fields)}>"
        case "array":
            text = f"ARRAY<{_type(column.items[0], exact=exact)}>"
        case "map":
            key = _type(ColumnType("string"), exact=exact)
            text = f"MAP<{key}, {_type(column.items[0], exact=exact)}>"
        case word:
            text = _TYPES[word]
    return f"{text} NOT NULL" if exact and not column.nullable else text


def _field(column: Column, *, exact: bool) -> str:
    return f"{_name(column.name)} {_type(column.type, exact=exact)}"


def _name(name: str) -> str:
    return f"`{name}`"
