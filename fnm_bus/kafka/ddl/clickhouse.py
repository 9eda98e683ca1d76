"""Tables for ClickHouse."""

from typing import Final

from fnm_bus.kafka.ddl.columns import Column, ColumnType
from fnm_bus.kafka.ddl.source import Source
from fnm_bus.kafka.ddl.text import escaped_literal, heading, quoted
from fnm_bus.kafka.ddl.topic_table import TopicTable

_TYPES: Final = {
    "string": "String",
    "bytes": "String",
    "boolean": "Bool",
    "int": "Int32",
    "long": "Int64",
    "timestamp": "DateTime64(6, 'UTC')",
}
_COMPOSITE: Final = frozenset({"record", "array", "map"})

_POSITION: Final = ("kafka_partition", "kafka_offset")
"""Columns that identify a record whose fields do not."""

_QUEUE_NOTES: Final = (
    "The queue reads the topic, the view copies each record into the table.",
    "Rows that were delivered twice are merged later: SELECT … FINAL has each once.",
    "A record of another version that lacks a field of a tuple stops the queue.",
    "A null record is a tuple of defaults.",
)
_ARCHIVE_NOTES: Final = (
    "The values are Avro single objects, for which ClickHouse has no format. Archive:",
)


def table(topic: TopicTable, source: Source) -> str:
    """Return the statements that create and fill the tables of a topic."""
    columns = [_field(column) for column in topic.columns]
    if not topic.framed:
        archive = escaped_literal(f"{topic.name}.avro")
        command = (
            f"  fnm-bus tail {topic.topic} --from-beginning --until-end"
            f" --avro {topic.name}.avro"
        )
        return (
            f"{heading(topic, (*_ARCHIVE_NOTES, command))}{_storage(topic, columns)}"
            f"INSERT INTO {topic.name} SELECT * FROM file({archive}, 'Avro');\n"
        )
    settings = {
        "kafka_broker_list": escaped_literal(source.servers),
        "kafka_topic_list": escaped_literal(topic.topic),
        "kafka_group_name": escaped_literal(f"clickhouse-{topic.name}"),
        "kafka_format": "'AvroConfluent'",
        "format_avro_schema_registry_url": escaped_literal(source.registry_url or ""),
        "input_format_avro_allow_missing_fields": "1",
    }
    assignments = _lines([f"{key} = {value}" for key, value in settings.items()])
    queue = (
        f"CREATE TABLE {topic.name}_queue (\n  {_lines(columns)}\n)"
        f" ENGINE = Kafka SETTINGS\n  {assignments};\n"
    )
    selected = "*"
    if not topic.identity:
        columns += [f"{name} UInt64" for name in _POSITION]
        selected = "*, _partition AS kafka_partition, _offset AS kafka_offset"
    return (
        f"{heading(topic, _QUEUE_NOTES)}{queue}{_storage(topic, columns)}"
        f"CREATE MATERIALIZED VIEW {topic.name}_view TO {topic.name} AS"
        f" SELECT {selected} FROM {topic.name}_queue;\n"
    )


def _storage(topic: TopicTable, columns: list[str]) -> str:
    """Return the table that keeps one row of each identity, the last one inserted."""
    paths = [quoted(path) for path in topic.identity] or _POSITION
    partition = (
        ""
        if topic.compacted  # the rows of one key must meet in one partition
        else f"PARTITION BY toYYYYMM({quoted(topic.time)}) "
    )
    return (
        f"CREATE TABLE {topic.name} (\n  {_lines(columns)}\n)"
        f" ENGINE = ReplacingMergeTree {partition}ORDER BY ({', '.join(paths)});\n"
    )


def _lines(parts: list[str]) -> str:
    return ",\n  ".join(parts)


def _field(column: Column) -> str:
    return f'"{column.name}" {_type(column.type)}'


def _type(column: ColumnType) -> str:
    match column.word:
        case "record":
            # ClickHouse requires every field of the record, in any order.
            text = f"Tuple({', '.join(_field(inner) for inner in column.columns)})"
        case "array":
            text = f"Array({_type(column.items[0])})"
        case "map":
            text = f"Map(String, {_type(column.items[0])})"
        case word:
            text = _TYPES[word]
    nullable = column.nullable and column.word not in _COMPOSITE
    return f"Nullable({text})" if nullable else text
