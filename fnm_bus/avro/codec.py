"""Records to bytes and back: Avro with Confluent's framing, or as single objects.

With schema ids, events, audit records and dead letters get Confluent's framing, which
connectors and stream processors expect. Mitigations, reasons and commands are always
single objects: the end of a block must not depend on a registry.

Confluent's framing is a zero byte and four bytes of schema id (big-endian). A single
object begins with C3 01 and eight bytes of fingerprint (Avro specification, "Single
object encoding"). Readers accept both.
"""

import struct
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from io import BytesIO
from typing import Any, Final, cast

import msgspec
from fastavro import schemaless_reader, schemaless_writer

from fnm_bus.avro import schema
from fnm_bus.avro.schema_ids import SchemaIds, registry_subject
from fnm_bus.avro.union_hints import union_hinter
from fnm_bus.errors import InvalidRecord, SchemaError
from fnm_bus.event import AnyRecord, Audit, DeadLetter, Event
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

Lookup = Callable[[int], str]

_CONFLUENT: Final = struct.Struct(">bI")
_SINGLE: Final = b"\xc3\x01"
_SINGLE_SIZE: Final = 10
_NATIVE: Final = (bytes, datetime)
"""Types that fastavro accepts unchanged."""
_TEXT: Final = tuple(b'{[<" \r\n\t\xef')
"""First bytes of JSON and XML, with or without a byte order mark."""


class Codec:
    """Encodes and decodes records.

    Args:
        schema_ids: with these, events, audit records and dead letters get Confluent's
            framing.
        lookup: returns the schema of any other id, as JSON text. It may raise
            RegistryError, which `decode` passes on, or SchemaError for an unknown id.
            Without it other ids are refused.
    """

    def __init__(
        self, schema_ids: SchemaIds | None = None, lookup: Lookup | None = None
    ) -> None:
        self._schema_ids = schema_ids
        self._lookup = lookup
        self._by_id: dict[int, dict[str, Any]] = {}
        self._optional_ids: dict[str, int | None] = {}

    def encode(self, event: AnyRecord, topic: str) -> bytes:
        """Return the value of *event*'s record on *topic*.

        Raises:
            SchemaError: an event's topic has no schema id.
            InvalidRecord: a value does not fit its schema.
        """
        full_name = f"{schema.NAMESPACE}.{type(event).__name__}"
        out = BytesIO()
        out.write(self._prefix(event, full_name, topic))
        datum = msgspec.to_builtins(event, builtin_types=_NATIVE)
        try:
            schemaless_writer(
                out, schema.load()[full_name], union_hinter(full_name)(datum)
            )
        except (ValueError, TypeError, LookupError, OverflowError) as exc:
            raise InvalidRecord(f"{full_name} does not fit its schema: {exc}") from exc
        return out.getvalue()

    def decode(self, value: bytes | None) -> AnyRecord:
        """Return the event in a record's value, of any framing and version.

        Raises:
            InvalidRecord: the bytes are not a record; the text describes them.
            RegistryError: the registry does not answer the lookup of an id.
        """
        if not value:
            raise InvalidRecord(
                "the value is empty: a tombstone, or of another program than fnm-bus"
            )
        if value.startswith(_SINGLE) and len(value) >= _SINGLE_SIZE:
            writer, start = _by_fingerprint(value[2:_SINGLE_SIZE]), _SINGLE_SIZE
        elif value[0] == 0 and len(value) > _CONFLUENT.size:
            _, number = _CONFLUENT.unpack_from(value)
            writer, start = self._writer_of(number), _CONFLUENT.size
        else:
            raise InvalidRecord(
                "neither Confluent's framing (00, schema id) nor an Avro single object"
                f" (c3 01, fingerprint): {_describe(value)}"
            )
        return _decode(value, start, writer)

    def _prefix(self, record: AnyRecord, full_name: str, topic: str) -> bytes:
        number = None
        if self._schema_ids is not None:
            if isinstance(record, Event):
                number = self._schema_ids.ids.get(registry_subject(topic))
                if number is None:
                    raise SchemaError(
                        f"no schema id is pinned for {registry_subject(topic)}:"
                        " run `fnm-bus schemas register`"
                    )
            elif isinstance(record, Audit | DeadLetter):
                number = self._optional_id(self._schema_ids, full_name, topic)
        if number is None:
            return _SINGLE + schema.fingerprint(full_name)
        return _CONFLUENT.pack(0, number)

    def _optional_id(
        self, schema_ids: SchemaIds, full_name: str, topic: str
    ) -> int | None:
        """Return the schema id, or None with one warning if none fits.

        The framing never prevents an audit record or a dead letter.
        """
        if topic not in self._optional_ids:
            try:
                schema_ids.check({topic: full_name})
                self._optional_ids[topic] = schema_ids.ids[registry_subject(topic)]
            except SchemaError as exc:
                log.warning("schema_ids_unusable", topic=topic, error=exc)
                self._optional_ids[topic] = None
        return self._optional_ids[topic]

    def _writer_of(self, number: int) -> dict[str, Any]:
        writer = self._by_id.get(number)
        if writer is None:
            writer = self._by_id[number] = self._find_writer(number)
        return writer

    def _find_writer(self, number: int) -> dict[str, Any]:
        try:
            if self._schema_ids is not None and number in self._schema_ids.schemas:
                writer = schema.parse(self._schema_ids.schemas[number])
            elif self._lookup is not None:
                writer = schema.parse(self._lookup(number))
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
        # The same object, so that `_decode` needs no schema resolution.
        return reader if writer == reader else writer


def _by_fingerprint(fingerprint: bytes) -> dict[str, Any]:
    writer = _writers().get(fingerprint)
    if writer is None:
        raise InvalidRecord(
            f"written by a schema with the unknown fingerprint {fingerprint.hex()}:"
            " a newer fnm-bus may have it"
        )
    return writer


@cache
def _writers() -> Mapping[bytes, dict[str, Any]]:
    own = {schema.fingerprint(name): avro for name, avro in schema.load().items()}
    return {**schema.released(), **own}


def _describe(value: bytes) -> str:
    head = value[:8].hex(" ")
    if value[0] in _TEXT:
        return f"plain text that begins with {head}"
    return f"{len(value)} bytes that begin with {head}"


def _decode(value: bytes, start: int, writer: dict[str, Any]) -> AnyRecord:
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
        # fastavro reports many faults by internal errors; a damaged record must not
        # stop a reader.
        raise InvalidRecord(f"not a whole {full_name}: {exc!r:.200}") from exc
    if rest := len(value) - source.tell():
        raise InvalidRecord(f"{rest} bytes follow a whole {full_name}")
    return event
