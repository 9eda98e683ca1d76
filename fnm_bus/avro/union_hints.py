"""Tell fastavro which branch of a union a value is of.

Without a hint fastavro validates a nullable record, field by field, against its schema
before it writes it: that doubles the time of an event. A tuple of full name and value
is its hint (fastavro, "Using the tuple notation to specify which branch of a union").
"""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from fnm_bus.avro import schema

Hint = Callable[[Any], Any]


@cache
def hints(full_name: str) -> Hint:
    """Return what puts the hints into a datum of the record *full_name*, in place."""
    hint = _of(json.loads(schema.text(full_name)), {})
    return hint if hint is not None else _same


def _of(avro: Any, named: dict[str, Hint | None]) -> Hint | None:
    hint: Hint | None = None
    match avro:
        case str():
            hint = named.get(avro)
        case ["null", {"type": "record", "name": name} as record]:
            hint = _nullable(f"{schema.NAMESPACE}.{name}", _of(record, named))
        case ["null", str() as name] if name in named:
            hint = _nullable(f"{schema.NAMESPACE}.{name}", named[name])
        case {"type": "record", "name": name, "fields": fields}:
            parts = [(part["name"], _of(part["type"], named)) for part in fields]
            hint = _record([(key, it) for key, it in parts if it is not None])
            named[name] = hint
        case {"type": "array", "items": items}:
            hint = _array(_of(items, named))
        case {"type": "map", "values": values}:
            hint = _map(_of(values, named))
    return hint


def _nullable(full_name: str, inner: Hint | None) -> Hint:
    def hint(value: Any) -> Any:
        if value is None:
            return None
        return (full_name, value if inner is None else inner(value))

    return hint


def _record(fields: list[tuple[str, Hint]]) -> Hint | None:
    if not fields:
        return None

    def hint(value: Any) -> Any:
        for key, inner in fields:
            part = value[key]
            if part:
                value[key] = inner(part)
        return value

    return hint


def _array(inner: Hint | None) -> Hint | None:
    return None if inner is None else lambda value: [inner(part) for part in value]


def _map(inner: Hint | None) -> Hint | None:
    if inner is None:
        return None
    return lambda value: {key: inner(part) for key, part in value.items()}


def _same(value: Any) -> Any:
    return value
