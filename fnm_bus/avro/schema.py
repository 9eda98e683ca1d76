"""The Avro schemas of what stands on the topics, and their examples.

The schemas are files, one per named type, `<full name>.avsc`: package data in an
installed wheel, `schemas/avro` beside the package in a checkout. Nothing is read
before it is asked for, and then once.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import msgspec

from fnm_bus.errors import SchemaError
from fnm_bus.event import AnyRecord, types

NAMESPACE = "fastnetmon"

STRUCTS: Mapping[str, type[msgspec.Struct]] = MappingProxyType(
    {
        f"{NAMESPACE}.{name}": value
        for name, value in vars(types).items()
        if isinstance(value, type)
        and issubclass(value, msgspec.Struct)
        and value is not msgspec.Struct
    }
)
"""Full name → the type of its values, for every named type."""

RECORDS: tuple[str, ...] = tuple(
    f"{NAMESPACE}.{name}"
    for name in (
        *("HostEvent", "HostgroupEvent", "StatusEvent"),
        *("Reason", "Mitigation", "Command", "Audit", "DeadLetter"),
    )
)
"""Full names of the records that stand on a topic, in the order of the flow."""


class Notification(NamedTuple):
    """One example of a call by FastNetMon, and the event it becomes.

    Attributes:
        name: what it shows; the name of the example's event, unique.
        arguments: what the call carries besides the program.
        document: what it has on stdin; empty when nothing.
        full_name: full name of the event's type.
        event: what it becomes, with a receipt of the example's own.
    """

    name: str
    arguments: tuple[str, ...]
    document: bytes
    full_name: str
    event: AnyRecord


@cache
def text(full_name: str) -> str:
    """Return a schema as self-contained JSON, with docs, on one line.

    Each named type stands whole where it is used first and by its name after that,
    since Apicurio's Confluent API refuses references in its compatibility check.

    Raises:
        SchemaError: there is no such schema, or a type it uses.
    """
    return json.dumps(_inlined(full_name, set()), ensure_ascii=False)


@cache
def load() -> Mapping[str, dict[str, Any]]:
    """Return the parsed fastavro schema of every record in RECORDS, self-contained."""
    return MappingProxyType({name: parsed(text(name)) for name in RECORDS})


@cache
def fingerprint(full_name: str) -> bytes:
    """Return the 8 bytes that name a schema in Avro's single-object encoding.

    CRC-64-AVRO of the parsing canonical form, little-endian. It does not cover
    defaults, docs, logical types and bounds: schemas/compatibility.py does.

    Raises:
        SchemaError: there is no such schema.
    """
    return fingerprint_of(json.loads(text(full_name)))


@cache
def released() -> Mapping[bytes, dict[str, Any]]:
    """Return the schemas of all releases, parsed, by their fingerprint.

    A writer of an older release can be read by these without a registry.

    Raises:
        SchemaError: the installation lacks them.
    """
    try:
        texts = [
            file.read_text("utf-8")
            for version in _data("released").iterdir()
            for file in version.iterdir()
        ]
    except OSError as exc:
        raise SchemaError(f"no schemas of the releases: {exc}") from exc
    return MappingProxyType({fingerprint_of(json.loads(t)): parsed(t) for t in texts})


def parsed(schema: str) -> dict[str, Any]:
    """Return a self-contained schema as fastavro reads and writes by it.

    Raises:
        SchemaError: the text is not a schema.
    """
    # Imported here: fastavro takes longer to import than the rest together.
    from fastavro.schema import SchemaParseException, parse_schema  # noqa: PLC0415 - ^

    try:
        return cast("dict[str, Any]", parse_schema(json.loads(schema)))
    except (
        AttributeError,
        KeyError,
        RecursionError,
        TypeError,
        ValueError,
        SchemaParseException,
    ) as exc:
        # fastavro says much of what is wrong by failing somewhere inside.
        raise SchemaError(f"not an Avro schema: {exc!r}") from exc


def fingerprint_of(schema: dict[str, Any] | str) -> bytes:
    """Return CRC-64-AVRO of a schema, in the order of a single-object header."""
    from fastavro.schema import (  # noqa: PLC0415 - as in parsed()
        fingerprint as digest,
    )
    from fastavro.schema import to_parsing_canonical_form  # noqa: PLC0415 - as above

    return bytes.fromhex(digest(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


def examples(full_name: str) -> Mapping[str, AnyRecord]:
    """Return the examples of a record by name.

    An example is JSON as `msgspec.json` writes it: times by RFC 3339, bytes in
    Base64, and fields left out that have their default.
    """
    kind = cast("type[AnyRecord]", STRUCTS[full_name])
    return {
        file.name.removesuffix(".json"): msgspec.json.decode(
            file.read_bytes(), type=kind
        )
        for file in sorted(
            (_data("avro") / "examples" / full_name).iterdir(), key=lambda f: f.name
        )
    }


def notifications() -> tuple[Notification, ...]:
    """Return the example calls in the order of the attack that they tell of."""
    directory = _data("avro") / "examples" / "notifications"
    calls = json.loads((directory / "index.json").read_text("utf-8"))
    return tuple(
        Notification(
            name=call["event"],
            arguments=tuple(call["arguments"]),
            document=(
                (directory / call["document"]).read_bytes() if call["document"] else b""
            ),
            full_name=call["type"],
            event=examples(call["type"])[call["event"]],
        )
        for call in calls
    )


def _data(name: str) -> Traversable:
    """Return a directory of schemas, of the wheel or of the checkout."""
    packaged = resources.files("fnm_bus") / "schemas" / name
    if packaged.is_dir():
        return packaged
    return Path(__file__).parents[2] / "schemas" / name


@cache
def _declared(full_name: str) -> dict[str, Any]:
    try:
        file = _data("avro") / f"{full_name}.avsc"
        return cast("dict[str, Any]", json.loads(file.read_text("utf-8")))
    except (OSError, ValueError) as exc:
        raise SchemaError(f"no schema {full_name}: {exc}") from exc


def _inlined(full_name: str, seen: set[str]) -> dict[str, Any]:
    """Return one declaration with every type that is not in *seen* yet put in."""
    seen.add(full_name)
    schema = _declared(full_name)
    fields = [{**f, "type": _whole(f["type"], seen)} for f in schema["fields"]]
    return {**schema, "fields": fields}


def _whole(avro: Any, seen: set[str]) -> Any:
    match avro:
        case str() if (name := f"{NAMESPACE}.{avro}") in STRUCTS:
            return avro if name in seen else _inlined(name, seen)
        case list():
            return [_whole(part, seen) for part in avro]
        case {"items": items}:
            return {**avro, "items": _whole(items, seen)}
        case {"values": values}:
            return {**avro, "values": _whole(values, seen)}
    return avro
