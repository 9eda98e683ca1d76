"""The tolerant conversion of secondary fields: misfit values go to `extra`.

FastNetMon's JSON objects become the records of `fnm_bus.event`. On the fast path
msgspec converts a whole object and checks types and ranges in C. Objects that msgspec
refuses, and objects with unknown keys, are converted field by field.

Absent, null, "" (for text) and [] (for lists) are one state: None or the empty tuple.
A misfit value is never coerced, cut or wrapped: it goes to `extra`, and its field stays
empty. A misfit member of a list is left out, so later members move up in the event; its
path in `extra` has the index in the document.
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, TypeVar, cast

import msgspec
from msgspec import UNSET, Struct, ValidationError, inspect

from fnm_bus.event.extra import ExtraFields, child_pointer

R = TypeVar("R", bound=Struct)

Reader = Callable[[Any, str, ExtraFields], Any]
"""Converts the value at a path to the field's value, or to UNSET if it does not fit."""


def read_record(
    kind: type[R], value: dict[str, Any], path: str, extra: ExtraFields
) -> R:
    """Convert an object to a record of this kind; misfit values go to *extra*."""
    if _fits_fast_path(kind, value):
        if "" in value.values():
            names = text_fields(kind)
            value = {k: v for k, v in value.items() if v != "" or k not in names}
        try:
            return msgspec.convert(value, kind)
        except ValidationError:
            pass  # msgspec does not name each misfit field
    return _read_field_by_field(kind, value, path, extra)


def read_texts(value: Any, path: str, extra: ExtraFields) -> tuple[str, ...]:
    """Convert a list of texts; other values go to *extra*."""
    if type(value) is list and set(map(type, value)) <= {str}:
        return tuple(value)
    texts = _list_of(_text)(value, path, extra)
    return () if texts is UNSET else cast("tuple[str, ...]", texts)


def _fits_fast_path(kind: type[Struct], value: Mapping[str, Any]) -> bool:
    """Return whether the schemas have all keys, also those of nested objects.

    msgspec would ignore unknown keys, and would keep "" in a nested text.
    """
    if not field_readers(kind).keys() >= value.keys():
        return False
    if dict not in set(map(type, value.values())):
        return True
    kinds = _nested_records(kind)
    return all(
        (nested := kinds.get(name)) is not None
        and not text_fields(nested)
        and _fits_fast_path(nested, member)
        for name, member in value.items()
        if type(member) is dict and member
    )


def _read_field_by_field(
    kind: type[R], value: dict[str, Any], path: str, extra: ExtraFields
) -> R:
    readers = field_readers(kind)
    fields = {}
    for name, member in value.items():
        member_path = child_pointer(path, name)
        reader = readers.get(name)
        if reader is None:
            extra.add_unknown(member_path, member)
        elif (field := reader(member, member_path, extra)) is not UNSET:
            fields[name] = field
    return kind(**fields)


@cache
def field_readers(kind: type[Struct]) -> Mapping[str, Reader]:
    """Return the reader of each field of a record."""
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
def _nested_records(kind: type[Struct]) -> Mapping[str, type[Struct]]:
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
    return _scalar(*_scalar_check(kind))


def _scalar_check(kind: inspect.Type) -> tuple[str, Callable[[Any], bool]]:
    match kind:
        case inspect.StrType():
            return "text", lambda value: type(value) is str
        case inspect.BoolType():
            return "true or false", lambda value: type(value) is bool
        case inspect.IntType(ge=int(least), le=int(most)):
            # bool is a subclass of int in Python, but not in JSON.
            return (
                f"an integer, {least} to {most}",
                lambda value: type(value) is int and least <= value <= most,
            )
    msg = f"no reader for the type of an event's field: {kind}"
    raise TypeError(msg)


def _scalar(expected: str, fits: Callable[[Any], bool]) -> Reader:
    def read(value: Any, path: str, extra: ExtraFields) -> Any:
        if fits(value):
            return value
        extra.add_misfit(path, expected, value)
        return UNSET

    return read


_text = _scalar(*_scalar_check(inspect.StrType()))


def _nullable(inner: Reader, *, empty_text: bool) -> Reader:
    def read(value: Any, path: str, extra: ExtraFields) -> Any:
        if value is None or (empty_text and value == ""):
            return UNSET
        return inner(value, path, extra)

    return read


def _list_of(inner: Reader) -> Reader:
    def convert(value: list[Any], path: str, extra: ExtraFields) -> Any:
        members = (inner(v, f"{path}/{i}", extra) for i, v in enumerate(value))
        return tuple(v for v in members if v is not UNSET)

    return _nullable(_container(list, "a list", convert), empty_text=False)


def _map_of(inner: Reader) -> Reader:
    def convert(value: dict[str, Any], path: str, extra: ExtraFields) -> Any:
        members = {k: inner(v, child_pointer(path, k), extra) for k, v in value.items()}
        return {k: v for k, v in members.items() if v is not UNSET}

    return _nullable(_container(dict, "an object", convert), empty_text=False)


def _record_of(kind: type[Struct]) -> Reader:
    return _container(dict, "an object", partial(read_record, kind))


def _container(kind: type, expected: str, convert: Reader) -> Reader:
    def read(value: Any, path: str, extra: ExtraFields) -> Any:
        if type(value) is kind:
            return convert(value, path, extra)
        extra.add_misfit(path, expected, value)
        return UNSET

    return read
