"""Hints for fastavro: the branch of a union that a value belongs to.

Without a hint fastavro validates each field of a nullable record against its schema
before it writes the record, which doubles the time of an event. A hint is a tuple of
full name and value (fastavro, "Using the tuple notation to specify which branch of a
union").
"""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from fnm_bus.avro import schema

Hint = Callable[[Any], Any]


@cache
def union_hinter(full_name: str) -> Hint:
    """Return the function that adds the hints to a datum of *full_name*, in place."""
    hint = _hint_for(json.loads(schema.text(full_name)), {})
    return hint if hint is not None else _unchanged


def _hint_for(avro: Any, named: dict[str, Hint | None]) -> Hint | None:
    hint: Hint | None = None
    match avro:
        case str():
            hint = named.get(avro)
        case ["null", {"type": "record", "name": name} as record]:
            hint = _nullable(f"{schema.NAMESPACE}.{name}", _hint_for(record, named))
        case ["null", str() as name] if name in named:
            hint = _nullable(f"{schema.NAMESPACE}.{name}", named[name])
        case {"type": "record", "name": name, "fields": fields}:
            hints = [(f["name"], _hint_for(f["type"], named)) for f in fields]
            hint = _record([(key, inner) for key, inner in hints if inner is not None])
            named[name] = hint
        case {"type": "array", "items": items}:
            hint = _array(_hint_for(items, named))
        case {"type": "map", "values": values}:
            hint = _map(_hint_for(values, named))
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
            member = value[key]
            if member:
                value[key] = inner(member)
        return value

    return hint


def _array(inner: Hint | None) -> Hint | None:
    return None if inner is None else lambda value: [inner(item) for item in value]


def _map(inner: Hint | None) -> Hint | None:
    if inner is None:
        return None
    return lambda value: {key: inner(item) for key, item in value.items()}


def _unchanged(value: Any) -> Any:
    return value
