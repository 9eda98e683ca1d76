"""Values to Avro bytes, by writers that are made once from the schemas.

fastavro does the reading, and is what the tests hold this against, byte for byte. For
writing it spends a microsecond on each nullable field to find the branch of a value,
and an event has ninety of them. Here a value is null when it is None, and what comes
often is taken from a table: an event costs a quarter of the time (measured figures in
docs/decisions/json-and-values.md).

Only what our schemas use is known: a writer of anything else is refused.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from operator import call
from typing import Any, Final

from msgspec.structs import astuple

from fnm_bus import schema
from fnm_bus.errors import SchemaError

Writer = Callable[[Any], bytes]

_NULL: Final = b"\x00"
_SECOND: Final = b"\x02"
"""Before a value that is of the second branch of a union, the first being null."""
_END: Final = b"\x00"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SMALL: Final = 4096
"""Numbers from 0 to it keep their bytes in the table: no traffic, ports, lengths."""
_SHORT: Final = 40
"""Texts of up to so many bytes keep them in the table: words, addresses."""
_KEPT: Final = 1024
"""So many texts are kept before the table begins anew."""
_WRONG: Final = (ValueError, TypeError, LookupError, AttributeError)
"""What a value of another type or range makes a writer raise."""


@cache
def writer(full_name: str) -> Writer:
    """Return what turns a value of a record into Avro's binary encoding.

    It raises ValueError, with the path of the field, for what Avro cannot hold: a
    number of too many bits, text that is not Unicode, a time without a zone.

    Raises:
        SchemaError: there is no such schema, or it uses a type that we do not write.
    """
    return _writer(json.loads(schema.text(full_name)), {})


def _writer(avro: Any, named: dict[str, Writer]) -> Writer:
    made: Writer | None = None
    match avro:
        case str():
            made = _PLAIN.get(avro) or named.get(avro)
        case ["null", str() as name] if name in _NULLABLE:
            made = _NULLABLE[name]
        case ["null", {"type": "record"} | str() as inner]:
            made = _nullable(_writer(inner, named))
        case {"type": "long", "logicalType": "timestamp-micros"}:
            made = _time
        case {"type": "record", "name": name, "fields": fields}:
            made = _record({it["name"]: _writer(it["type"], named) for it in fields})
            named[name] = made
        case {"type": "array", "items": items}:
            made = _array(_writer(items, named))
        case {"type": "map", "values": values}:
            made = _map(_writer(values, named))
    if made is None:
        raise SchemaError(f"no writer for {json.dumps(avro)[:80]}")
    return made


class _Numbers(dict[int | None, bytes]):
    """The bytes of numbers of up to *bits* bits, after *before*."""

    def __init__(self, bits: int, before: bytes = b"") -> None:
        super().__init__()
        self._bits = bits
        self._before = before

    def __missing__(self, value: int | None) -> bytes:
        if value is None:
            return _null(self._before)
        sign = value >> (self._bits - 1)
        if sign not in {0, -1}:
            raise ValueError(f"{value} has more than {self._bits} bits")
        rest = value << 1 ^ sign  # zigzag: small for small negative numbers too
        groups = []
        while rest >= 0x80:  # noqa: PLR2004 - seven bits a byte, the lowest first
            groups.append(rest & 0x7F | 0x80)
            rest >>= 7
        groups.append(rest)
        out = self._before + bytes(groups)
        if 0 <= value < _SMALL:
            self[value] = out
        return out


class _Texts(dict[str | None, bytes]):
    """The bytes of texts, after *before*."""

    def __init__(self, before: bytes = b"") -> None:
        super().__init__()
        self._before = before

    def __missing__(self, value: str | None) -> bytes:
        if value is None:
            return _null(self._before)
        raw = value.encode()
        out = self._before + _LONG[len(raw)] + raw
        if len(raw) <= _SHORT:
            if len(self) >= _KEPT:
                self.clear()
            self[value] = out
        return out


def _null(before: bytes) -> bytes:
    if not before:
        raise TypeError("wanted a value, got None")
    return _NULL


_LONG: Final = _Numbers(64)
_PLAIN: Final[Mapping[str, Writer]] = {
    "boolean": {True: b"\x01", False: b"\x00"}.__getitem__,
    "int": _Numbers(32).__getitem__,
    "long": _LONG.__getitem__,
    "string": _Texts().__getitem__,
    "bytes": lambda value: _LONG[len(value)] + value,
}
_NULLABLE: Final[Mapping[str, Writer]] = {
    "boolean": {None: _NULL, True: b"\x02\x01", False: b"\x02\x00"}.__getitem__,
    "int": _Numbers(32, _SECOND).__getitem__,
    "long": _Numbers(64, _SECOND).__getitem__,
    "string": _Texts(_SECOND).__getitem__,
}


def _time(value: datetime) -> bytes:
    return _LONG[(value - _EPOCH) // _MICROSECOND]


def _nullable(inner: Writer) -> Writer:
    return lambda value: _NULL if value is None else _SECOND + inner(value)


def _array(item: Writer) -> Writer:
    def write(values: Sequence[Any]) -> bytes:
        if not values:
            return _END
        return b"".join((_LONG[len(values)], *map(item, values), _END))

    return write


def _map(item: Writer) -> Writer:
    key = _PLAIN["string"]

    def write(values: Mapping[str, Any]) -> bytes:
        if not values:
            return _END
        pairs = (key(name) + item(value) for name, value in values.items())
        return b"".join((_LONG[len(values)], *pairs, _END))

    return write


def _record(parts: Mapping[str, Writer]) -> Writer:
    writers = tuple(parts.values())

    def write(value: Any) -> bytes:
        try:
            # The fields of a struct stand in the order of the schema's.
            return b"".join(map(call, writers, astuple(value)))
        except _WRONG as exc:
            raise ValueError(_misfit(parts, value) or exc) from exc

    return write


def _misfit(parts: Mapping[str, Writer], value: Any) -> str:
    """Say what is wrong with the first field that does not fit."""
    for name, write in parts.items():
        try:
            write(getattr(value, name))
        except _WRONG as exc:
            return f"{name}: {exc}"
    return ""
