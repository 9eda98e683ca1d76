"""The Avro schemas of the records.

The schemas are files, one per named type, `<full name>.avsc`: package data in an
installed wheel, `schemas/avro` beside the package in a checkout. Each file is read at
its first use and then cached.
"""

import json
import sys
from collections.abc import Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import msgspec

from fnm_bus.errors import SchemaError
from fnm_bus.event import types

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
"""Full names of the records on the topics, in the order of the flow."""


@cache
def text(full_name: str) -> str:
    """Return a schema as self-contained JSON, with docs, on one line.

    A named type is declared at its first use and referenced by name after that, since
    the compatibility check of Apicurio's Confluent API refuses references to other
    schemas.

    Raises:
        SchemaError: the schema, or a type in it, does not exist.
    """
    return json.dumps(_inline(full_name, set()), ensure_ascii=False)


@cache
def load() -> Mapping[str, dict[str, Any]]:
    """Return the parsed, self-contained schema of every record in RECORDS."""
    return MappingProxyType({name: parse(text(name)) for name in RECORDS})


@cache
def fingerprint(full_name: str) -> bytes:
    """Return the 8 bytes that identify a schema in Avro's single-object encoding.

    CRC-64-AVRO of the parsing canonical form, little-endian. It does not cover
    defaults, docs, logical types and bounds: schemas/compatibility.py does.

    Raises:
        SchemaError: the schema does not exist.
    """
    return fingerprint_of(json.loads(text(full_name)))


@cache
def released() -> Mapping[bytes, dict[str, Any]]:
    """Return the parsed schemas of all releases, by their fingerprint.

    With these, records of an older release can be decoded without a registry.

    Raises:
        SchemaError: the installation has no such schemas.
    """
    try:
        texts = [
            file.read_text("utf-8")
            for version in data_directory("released").iterdir()
            for file in version.iterdir()
        ]
    except OSError as exc:
        raise SchemaError(f"no schemas of the releases: {exc}") from exc
    return MappingProxyType({fingerprint_of(json.loads(t)): parse(t) for t in texts})


def parse(schema: str) -> dict[str, Any]:
    """Return a self-contained schema in the form that fastavro uses.

    Raises:
        SchemaError: the text is not a schema.
    """
    # fastavro takes longer to import than all other modules together.
    from fastavro.schema import SchemaParseException, parse_schema  # noqa: PLC0415 - ^

    try:
        return cast("dict[str, Any]", _interned(parse_schema(json.loads(schema))))
    except (
        AttributeError,
        KeyError,
        RecursionError,
        TypeError,
        ValueError,
        SchemaParseException,
    ) as exc:
        # fastavro reports many faults by internal errors.
        raise SchemaError(f"not an Avro schema: {exc!r}") from exc


def _interned(schema: Any) -> Any:
    """Return a copy of a schema in which equal texts are one object.

    fastavro compares them with its own texts and with a datum's keys, which are
    interned, too. The comparison of an object with itself reads no characters.
    """
    match schema:
        case str():
            return sys.intern(schema)
        case list():
            return [_interned(member) for member in schema]
        case dict():
            return {sys.intern(key): _interned(value) for key, value in schema.items()}
    return schema


def fingerprint_of(schema: dict[str, Any] | str) -> bytes:
    """Return CRC-64-AVRO of a schema, in the byte order of a single-object header."""
    from fastavro.schema import (  # noqa: PLC0415 - as in parse()
        fingerprint as digest,
    )
    from fastavro.schema import to_parsing_canonical_form  # noqa: PLC0415 - as above

    return bytes.fromhex(digest(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


def data_directory(name: str) -> Traversable:
    """Return a directory of schema files, in the wheel or in the checkout."""
    packaged = resources.files("fnm_bus") / "schemas" / name
    if packaged.is_dir():
        return packaged
    return Path(__file__).parents[2] / "schemas" / name


@cache
def _read_declaration(full_name: str) -> dict[str, Any]:
    try:
        file = data_directory("avro") / f"{full_name}.avsc"
        return cast("dict[str, Any]", json.loads(file.read_text("utf-8")))
    except (OSError, ValueError) as exc:
        raise SchemaError(f"no schema {full_name}: {exc}") from exc


def _inline(full_name: str, seen: set[str]) -> dict[str, Any]:
    """Return a declaration; types that are not in *seen* are declared in place."""
    seen.add(full_name)
    schema = _read_declaration(full_name)
    fields = [
        {**field, "type": _inline_type(field["type"], seen)}
        for field in schema["fields"]
    ]
    return {**schema, "fields": fields}


def _inline_type(avro: Any, seen: set[str]) -> Any:
    match avro:
        case str() if (name := f"{NAMESPACE}.{avro}") in STRUCTS:
            return avro if name in seen else _inline(name, seen)
        case list():
            return [_inline_type(branch, seen) for branch in avro]
        case {"items": items}:
            return {**avro, "items": _inline_type(items, seen)}
        case {"values": values}:
            return {**avro, "values": _inline_type(values, seen)}
    return avro
