"""Records to bytes and back: Avro with Confluent's framing, or as single objects.

With pinned ids, events, audit records and dead letters get Confluent's framing, which
connectors and stream processors expect. What ends a block (mitigations, reasons,
commands) is always a single object: it must not depend on a registry.

Confluent's framing is a zero byte and four bytes of schema id (big-endian); a single
object begins with C3 01 and eight bytes of fingerprint (Avro specification, "Single
object encoding"). Readers accept both.
"""

import logging
import struct
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from io import BytesIO
from typing import Any, Final, cast

import msgspec
from fastavro import schemaless_reader, schemaless_writer

from fnm_bus.avro import schema
from fnm_bus.avro.schema_ids import SchemaIds, subject_of
from fnm_bus.avro.union_hints import hints
from fnm_bus.errors import InvalidRecord, SchemaError
from fnm_bus.event import AnyRecord, Audit, DeadLetter, Event

log = logging.getLogger(__name__)

Lookup = Callable[[int], str]

_CONFLUENT: Final = struct.Struct(">bI")
_SINGLE: Final = b"\xc3\x01"
_SINGLE_SIZE: Final = 10
_NATIVE: Final = (bytes, datetime)
"""What fastavro takes as it is."""
_TEXT: Final = tuple(b'{[<" \r\n\t\xef')
"""First bytes of JSON and XML, with a byte order mark or without."""


class Codec:
    """Encodes and decodes records.

    Args:
        pins: schema ids; with them events, audit records and dead letters get
            Confluent's framing.
        lookup: returns the schema of an id that is not pinned, as JSON text. It may
            raise RegistryError, which `decode` lets through, or SchemaError when there
            is none. Without it such ids are refused.
    """

    def __init__(
        self, pins: SchemaIds | None = None, lookup: Lookup | None = None
    ) -> None:
        self._pins = pins
        self._lookup = lookup
        self._by_id: dict[int, dict[str, Any]] = {}
        self._optional: dict[str, int | None] = {}

    def encode(self, event: AnyRecord, topic: str) -> bytes:
        """Return the value of *event*'s record on *topic*.

        Raises:
            SchemaError: no id is pinned for an event's topic.
            InvalidRecord: a value does not fit its schema.
        """
        full_name = f"{schema.NAMESPACE}.{type(event).__name__}"
        out = BytesIO()
        out.write(self._prefix(event, full_name, topic))
        datum = msgspec.to_builtins(event, builtin_types=_NATIVE)
        try:
            schemaless_writer(out, schema.load()[full_name], hints(full_name)(datum))
        except (ValueError, TypeError, LookupError, OverflowError) as exc:
            raise InvalidRecord(f"{full_name} does not fit its schema: {exc}") from exc
        return out.getvalue()

    def decode(self, value: bytes | None) -> AnyRecord:
        """Return the event in a record's value, whichever framing and version it has.

        Raises:
            InvalidRecord: the bytes are no event; the text says what was found.
            RegistryError: the id is not pinned and the registry does not answer.
        """
        if not value:
            raise InvalidRecord(
                "the value is empty: a tombstone, or of another program than fnm-bus"
            )
        if value.startswith(_SINGLE) and len(value) >= _SINGLE_SIZE:
            writer, start = _by_fingerprint(value[2:_SINGLE_SIZE]), _SINGLE_SIZE
        elif value[0] == 0 and len(value) > _CONFLUENT.size:
            _, number = _CONFLUENT.unpack_from(value)
            writer, start = self._by_number(number), _CONFLUENT.size
        else:
            raise InvalidRecord(
                "neither Confluent's framing (00, schema id) nor an Avro single object"
                f" (c3 01, fingerprint): {_described(value)}"
            )
        return _read(value, start, writer)

    def _prefix(self, record: AnyRecord, full_name: str, topic: str) -> bytes:
        number = None
        if self._pins is not None:
            if isinstance(record, Event):
                number = self._pins.ids.get(subject_of(topic))
                if number is None:
                    raise SchemaError(
                        f"no schema id is pinned for {subject_of(topic)}:"
                        " run `fnm-bus schemas register`"
                    )
            elif isinstance(record, Audit | DeadLetter):
                number = self._optional_number(self._pins, full_name, topic)
        if number is None:
            return _SINGLE + schema.fingerprint(full_name)
        return _CONFLUENT.pack(0, number)

    def _optional_number(
        self, pins: SchemaIds, full_name: str, topic: str
    ) -> int | None:
        """Return the pinned id; None, with one warning, where there is none that fits.

        An audit record or a dead letter is never held back because of its framing.
        """
        if topic not in self._optional:
            try:
                pins.check({topic: full_name})
                self._optional[topic] = pins.ids[subject_of(topic)]
            except SchemaError as exc:
                log.warning("records of %s are Avro single objects: %s", topic, exc)
                self._optional[topic] = None
        return self._optional[topic]

    def _by_number(self, number: int) -> dict[str, Any]:
        writer = self._by_id.get(number)
        if writer is None:
            writer = self._by_id[number] = self._found(number)
        return writer

    def _found(self, number: int) -> dict[str, Any]:
        try:
            if self._pins is not None and number in self._pins.schemas:
                writer = schema.parsed(self._pins.schemas[number])
            elif self._lookup is not None:
                writer = schema.parsed(self._lookup(number))
            else:
                raise InvalidRecord(
                    f"written under schema id {number}, which is not pinned:"
                    " run `fnm-bus schemas register`"
                )
        except SchemaError as exc:
            raise InvalidRecord(f"written under schema id {number}: {exc}") from exc
        # A union or a plain type is a list or a string.
        full_name = writer.get("name") if isinstance(writer, dict) else None
        if full_name not in schema.RECORDS:
            raise InvalidRecord(
                f"written under schema id {number}, which is"
                f" {full_name or 'no record'} and none of {', '.join(schema.RECORDS)}"
            )
        reader = schema.load()[full_name]
        # The same object tells `_read` that nothing is to be resolved.
        return reader if writer == reader else writer


def _by_fingerprint(fingerprint: bytes) -> dict[str, Any]:
    writer = _writers().get(fingerprint)
    if writer is None:
        raise InvalidRecord(
            f"written by a schema with the unknown fingerprint {fingerprint.hex()}:"
            " a newer fnm-bus may know it"
        )
    return writer


@cache
def _writers() -> Mapping[bytes, dict[str, Any]]:
    own = {schema.fingerprint(name): it for name, it in schema.load().items()}
    return {**schema.released(), **own}


def _described(value: bytes) -> str:
    head = value[:8].hex(" ")
    if value[0] in _TEXT:
        return f"it looks like plain text, it begins with {head}"
    return f"{len(value)} bytes that begin with {head}"


def _read(value: bytes, start: int, writer: dict[str, Any]) -> AnyRecord:
    full_name = writer["name"]
    reader = schema.load()[full_name]
    source = BytesIO(value)
    source.seek(start)
    try:
        datum = schemaless_reader(source, writer, None if writer is reader else reader)
        event = cast(
            "AnyRecord", msgspec.convert(datum, type=schema.STRUCTS[full_name])
        )
    except MemoryError:
        raise
    except Exception as exc:
        # fastavro says much of what is wrong by failing somewhere inside; whatever a
        # broken record raises, it is that record's fault and stops no reader.
        raise InvalidRecord(f"not a whole {full_name}: {exc!r:.200}") from exc
    if rest := len(value) - source.tell():
        raise InvalidRecord(f"{rest} bytes follow a whole {full_name}")
    return event
