"""Views for Spark SQL, with `from_avro` of the package spark-avro."""

import json
from collections.abc import Iterator
from typing import Any, Final

from fnm_bus.avro import schema
from fnm_bus.errors import SchemaError
from fnm_bus.kafka.ddl.source import Source
from fnm_bus.kafka.ddl.text import escaped_literal, heading
from fnm_bus.kafka.ddl.topic_table import TopicTable

_UNUSED: Final = frozenset({"doc", "maximum"})
"""Attributes that do not change how bytes are read."""

_NOTES: Final = (
    "Each part reads the records of one writer's schema. A fixed schema returns null",
    "for each record of another version, without an error. Records without a part:",
)


def table(topic: TopicTable, source: Source) -> str:
    """Return the statements that create the views of a topic.

    Raises:
        SchemaError: the topic's values have schema ids, and none is pinned.
    """
    reader = escaped_literal(_compact(schema.text(topic.full_name)))
    parts = list(_parts(topic, source))
    headers = ", ".join(f"X'{header.hex()}'" for header, _ in parts)
    size = len(parts[0][0])
    strange = (
        f"  SELECT hex(substring(value, 1, {size})), count(*) FROM {topic.name}_records"
        f" WHERE substring(value, 1, {size}) NOT IN ({headers}) GROUP BY 1"
    )
    union = "\nUNION ALL\n".join(
        "SELECT record.*, `partition`, `offset`, `timestamp` FROM (SELECT *,"
        f" from_avro(substring(value, {size + 1}), {escaped_literal(_compact(writer))},"
        f" map('mode', 'FAILFAST', 'avroSchema', {reader})) AS record"
        f" FROM {topic.name}_records"
        f" WHERE substring(value, 1, {size}) = X'{header.hex()}')"
        for header, writer in parts
    )
    return (
        f"{heading(topic, (*_NOTES, strange))}"
        f"CREATE OR REPLACE TEMPORARY VIEW {topic.name}_records USING kafka OPTIONS (\n"
        f"  'kafka.bootstrap.servers' {escaped_literal(source.servers)},\n"
        "  'kafka.isolation.level' 'read_committed',\n"
        f"  'subscribe' {escaped_literal(topic.topic)},\n"
        "  'startingOffsets' 'earliest'\n);\n"
        f"CREATE OR REPLACE TEMPORARY VIEW {topic.name} AS\n{union};\n"
    )


def _parts(topic: TopicTable, source: Source) -> Iterator[tuple[bytes, str]]:
    """Yield the header of the values and the writer's schema, for each schema."""
    if not topic.framed:
        for fingerprint, writer in schema.writers_of(topic.full_name).items():
            yield b"\xc3\x01" + fingerprint, writer
        return
    writers = source.writers.get(topic.topic)
    if not writers:
        raise SchemaError(
            f"no schema id is pinned for {topic.topic}: run `fnm-bus schemas register`"
        )
    for number, writer in writers.items():
        yield b"\0" + number.to_bytes(4, "big"), writer


def _compact(text: str) -> str:
    return json.dumps(_without_unused(json.loads(text)), separators=(",", ":"))


def _without_unused(avro: Any) -> Any:
    match avro:
        case dict():
            return {
                key: value if key == "default" else _without_unused(value)
                for key, value in avro.items()
                if key not in _UNUSED
            }
        case list():
            return [_without_unused(item) for item in avro]
    return avro
