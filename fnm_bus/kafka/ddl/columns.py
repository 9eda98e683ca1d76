"""The columns of a record, from its Avro schema."""

import json
from dataclasses import dataclass, replace
from typing import Any, Final

from fnm_bus.avro import schema
from fnm_bus.errors import SchemaError

_PRIMITIVES: Final = frozenset({"string", "bytes", "boolean", "int", "long"})


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A type that every engine can express.

    Attributes:
        word: a primitive type of Avro, "timestamp" (microseconds since 1970, UTC),
            "record", "array" or "map" (its keys are text).
        nullable: whether null is a value.
        columns: the fields of a record.
        items: the type of an array's items or of a map's values, alone in a tuple.
    """

    word: str
    nullable: bool = False
    columns: tuple["Column", ...] = ()
    items: tuple["ColumnType", ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """A field of a record.

    Attributes:
        name: the field's name.
        type: its type.
    """

    name: str
    type: ColumnType


def columns_of(full_name: str) -> tuple[Column, ...]:
    """Return the columns of a record, in the order of its schema.

    Raises:
        SchemaError: the schema does not exist, or has a type that is unknown here.
    """
    return _type_of(json.loads(schema.text(full_name)), {}).columns


def _type_of(avro: Any, records: dict[str, ColumnType]) -> ColumnType:
    """Return a type; *records* collects the named types for their later uses."""
    match avro:
        case str() if avro in _PRIMITIVES:
            return ColumnType(avro)
        case str() if avro in records:
            return records[avro]
        case ["null", branch]:
            return replace(_type_of(branch, records), nullable=True)
        case {"type": "long", "logicalType": "timestamp-micros"}:
            return ColumnType("timestamp")
        case {"type": "array", "items": inner} | {"type": "map", "values": inner}:
            return ColumnType(avro["type"], items=(_type_of(inner, records),))
        case {"type": "record", "name": name, "fields": fields}:
            columns = tuple(
                Column(field["name"], _type_of(field["type"], records))
                for field in fields
            )
            records[name] = ColumnType("record", columns=columns)
            return records[name]
    raise SchemaError(f"no column type for {avro!r}")
