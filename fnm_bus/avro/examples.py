"""Examples of the records, and of FastNetMon's calls: files beside the schemas."""

import json
from collections.abc import Mapping
from typing import NamedTuple, cast

import msgspec

from fnm_bus.avro.schema import STRUCTS, data_directory
from fnm_bus.event import AnyRecord


class ExampleCall(NamedTuple):
    """An example of a call by FastNetMon, and its event.

    Attributes:
        name: unique name of the example; the name of its event.
        arguments: arguments of the call, without the program.
        document: the bytes on stdin, which may be empty.
        full_name: full name of the event's type.
        event: the event, with a receipt of the example's own.
    """

    name: str
    arguments: tuple[str, ...]
    document: bytes
    full_name: str
    event: AnyRecord


def example_records(full_name: str) -> Mapping[str, AnyRecord]:
    """Return the examples of a record by name.

    The files are JSON as `msgspec.json` writes it: times by RFC 3339, bytes in Base64,
    without the fields that have their default.
    """
    kind = cast("type[AnyRecord]", STRUCTS[full_name])
    return {
        file.name.removesuffix(".json"): msgspec.json.decode(
            file.read_bytes(), type=kind
        )
        for file in sorted(
            (data_directory("avro") / "examples" / full_name).iterdir(),
            key=lambda file: file.name,
        )
    }


def example_calls() -> tuple[ExampleCall, ...]:
    """Return the example calls in the order of their attack."""
    directory = data_directory("avro") / "examples" / "notifications"
    calls = json.loads((directory / "index.json").read_text("utf-8"))
    return tuple(
        ExampleCall(
            name=call["event"],
            arguments=tuple(call["arguments"]),
            document=(
                (directory / call["document"]).read_bytes() if call["document"] else b""
            ),
            full_name=call["type"],
            event=example_records(call["type"])[call["event"]],
        )
        for call in calls
    )
