"""The tolerant reading of secondary fields: typed where they fit, aside where not.

FastNetMon's JSON objects become the records of `fnm_bus.event`. The quick way hands a
whole object to msgspec, which checks every type and range in C; only when that
refuses, or when there is a key we do not know, is the object read field by field.

Absent, null, "" (for text) and [] (for lists) are one state: None or the empty tuple.
A value that does not fit is never coerced, cut or wrapped: it goes aside, and its
field stays empty. A member of a list that does not fit is left out, so later members
move up in the event; the path in `extra` is the member's place in the document.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar, cast

import msgspec
from msgspec import UNSET, Struct, ValidationError, inspect

from fnm_bus.event.extra import ExtraFields, step

R = TypeVar("R", bound=Struct)

Reader = Callable[[Any, str, ExtraFields], Any]
"""Takes a value and its path; returns what the field gets, or UNSET for nothing."""


def record(kind: type[R], value: dict[str, Any], path: str, aside: ExtraFields) -> R:
    """Read an object into a record of this kind, setting aside what does not fit."""
    if _quick(kind, value):
        if "" in value.values():
            texts = text_fields(kind)
            value = {k: v for k, v in value.items() if v != "" or k not in texts}
        try:
            return msgspec.convert(value, kind)
        except ValidationError:
            # Which field it was, and what it held, the slow way finds out.
            return _field_by_field(kind, value, path, aside)
    return _field_by_field(kind, value, path, aside)


def texts(value: Any, path: str, aside: ExtraFields) -> tuple[str, ...]:
    """Read a list of texts, setting aside what is none."""
    if type(value) is list and set(map(type, value)) <= {str}:
        return tuple(value)
    kept = _list_of(_text)(value, path, aside)
    return () if kept is UNSET else cast("tuple[str, ...]", kept)


def _quick(kind: type[Struct], value: Mapping[str, Any]) -> bool:
    """Tell whether every field is known, also in the objects inside.

    msgspec would pass over the unknown ones, and would keep "" in a text inside.
    """
    if not readers(kind).keys() >= value.keys():
        return False
    if dict not in set(map(type, value.values())):
        return True
    inside = _records_inside(kind)
    return all(
        (sub := inside.get(name)) is not None
        and not text_fields(sub)
        and _quick(sub, inner)
        for name, inner in value.items()
        if type(inner) is dict and inner
    )


def _field_by_field(
    kind: type[R], value: dict[str, Any], path: str, aside: ExtraFields
) -> R:
    known = readers(kind)
    kept = {}
    for name, got in value.items():
        here = step(path, name)
        reader = known.get(name)
        if reader is None:
            aside.unknown(here, got)
        elif (taken := reader(got, here, aside)) is not UNSET:
            kept[name] = taken
    return kind(**kept)


@cache
def readers(kind: type[Struct]) -> Mapping[str, Reader]:
    """Return how to read each field of a record."""
    info = cast("inspect.StructType", inspect.type_info(kind))
    return {f.name: _reader(f.type) for f in info.fields}


@cache
def text_fields(kind: type[Struct]) -> frozenset[str]:
    """Return the names of a record's nullable texts, where "" means absent."""
    info = cast("inspect.StructType", inspect.type_info(kind))
    return frozenset(
        f.name
        for f in info.fields
        if isinstance(f.type, inspect.UnionType)
        and any(isinstance(t, inspect.StrType) for t in f.type.types)
    )


@cache
def _records_inside(kind: type[Struct]) -> Mapping[str, type[Struct]]:
    info = cast("inspect.StructType", inspect.type_info(kind))
    return {
        f.name: t.cls
        for f in info.fields
        if isinstance(f.type, inspect.UnionType)
        for t in f.type.types
        if isinstance(t, inspect.StructType)
    }


def _reader(kind: inspect.Type) -> Reader:
    match kind:
        case inspect.UnionType(types=types):
            (inner,) = (t for t in types if not isinstance(t, inspect.NoneType))
            return _nullable(_reader(inner), empty_text=type(inner) is inspect.StrType)
        case inspect.VarTupleType(item_type=item):
            return _list_of(_reader(item))
        case inspect.DictType(value_type=item):
            return _map_of(_reader(item))
        case inspect.StructType(cls=cls):
            return _record_of(cls)
    return _scalar(*_plain(kind))


def _plain(kind: inspect.Type) -> tuple[str, Callable[[Any], bool]]:
    match kind:
        case inspect.StrType():
            return "text", lambda value: type(value) is str
        case inspect.BoolType():
            return "true or false", lambda value: type(value) is bool
        case inspect.IntType(ge=int(least), le=int(most)):
            # bool is a kind of int in Python, but not in JSON.
            return (
                f"an integer, {least} to {most}",
                lambda value: type(value) is int and least <= value <= most,
            )
    msg = f"an event has a field of a type that no reader knows: {kind}"
    raise TypeError(msg)


def _scalar(wanted: str, fits: Callable[[Any], bool]) -> Reader:
    def read(value: Any, path: str, aside: ExtraFields) -> Any:
        if fits(value):
            return value
        aside.drifted(path, wanted, value)
        return UNSET

    return read


_text = _scalar(*_plain(inspect.StrType()))


def _nullable(inner: Reader, *, empty_text: bool) -> Reader:
    def read(value: Any, path: str, aside: ExtraFields) -> Any:
        if value is None or (empty_text and value == ""):
            return UNSET
        return inner(value, path, aside)

    return read


def _list_of(inner: Reader) -> Reader:
    def read(value: Any, path: str, aside: ExtraFields) -> Any:
        if value is None:
            return UNSET
        if type(value) is not list:
            aside.drifted(path, "a list", value)
            return UNSET
        taken = (inner(v, f"{path}/{i}", aside) for i, v in enumerate(value))
        return tuple(v for v in taken if v is not UNSET)

    return read


def _map_of(inner: Reader) -> Reader:
    def read(value: Any, path: str, aside: ExtraFields) -> Any:
        if value is None:
            return UNSET
        if type(value) is not dict:
            aside.drifted(path, "an object", value)
            return UNSET
        taken = {k: inner(v, step(path, k), aside) for k, v in value.items()}
        return {k: v for k, v in taken.items() if v is not UNSET}

    return read


def _record_of(kind: type[Struct]) -> Reader:
    def read(value: Any, path: str, aside: ExtraFields) -> Any:
        if type(value) is dict:
            return record(kind, value, path, aside)
        aside.drifted(path, "an object", value)
        return UNSET

    return read
