"""Pins: the ids that a registry gave to our schemas, kept in a file.

`fnm-bus schemas register` writes the file, the relay and all readers read it. A wrong
or foreign id is refused here, when it is pinned, and not when a record is read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from fnm_bus import durable, schema
from fnm_bus.errors import SchemaError

_LARGEST: Final = 2**31 - 1
"""Confluent's framing has four bytes for an id, and registries give positive ones."""
_REMEDY: Final = "run `fnm-bus schemas register`"


class _Subject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: int
    older: tuple[int, ...] = ()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    registry: str
    subjects: dict[str, _Subject]
    schemas: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pins:
    """Ids by subject, and the schema behind each id.

    Attributes:
        registry: address of the registry that gave the ids, without credentials.
        ids: subject → id under which we write.
        older: subject → ids of older versions, which readers may meet.
        schemas: id → schema as JSON text.
    """

    registry: str
    ids: Mapping[str, int]
    older: Mapping[str, tuple[int, ...]]
    schemas: Mapping[int, str]

    def check(self, wanted: Mapping[str, str]) -> None:
        """Refuse pins under which nobody should write.

        Args:
            wanted: topic → full name of the record that stands on it.

        Raises:
            SchemaError: a subject is missing, or its id is of another schema.
        """
        for topic, full_name in wanted.items():
            subject = subject_of(topic)
            number = self.ids.get(subject)
            if number is None:
                raise SchemaError(f"no schema id is pinned for {subject}: {_REMEDY}")
            theirs = schema.fingerprint_of(json.loads(self.schemas[number]))
            if theirs != schema.fingerprint(full_name):
                raise SchemaError(
                    f"id {number} of {subject} is pinned for another schema than this"
                    f" version's {full_name}: {_REMEDY}"
                )

    def write(self, path: Path) -> None:
        """Write the file in one step.

        Raises:
            SchemaError: it cannot be written.
        """
        content = {
            "version": 1,
            "registry": self.registry,
            "subjects": {
                subject: {"id": number, "older": list(self.older.get(subject, ()))}
                for subject, number in self.ids.items()
            },
            "schemas": {str(key): json.loads(it) for key, it in self.schemas.items()},
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            durable.replace(path, json.dumps(content, indent=1).encode(), mode=0o644)
        except OSError as exc:
            raise SchemaError(f"{path}: {exc.strerror}") from exc


def subject_of(topic: str) -> str:
    """Return the subject of *topic*'s values (Confluent's TopicNameStrategy)."""
    return f"{topic}-value"


def read(path: Path) -> Pins:
    """Return the pins in a file.

    Raises:
        SchemaError: it is missing, broken, or holds an id that must not be used.
    """
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as exc:
        raise SchemaError(f"{path}: {exc.strerror}; {_REMEDY}") from exc
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise SchemaError(f"{path}: {exc}; {_REMEDY}") from exc
    schemas = _checked(file, path)
    return Pins(
        file.registry,
        {subject: pin.id for subject, pin in file.subjects.items()},
        {subject: pin.older for subject, pin in file.subjects.items()},
        schemas,
    )


def _checked(file: _File, path: Path) -> dict[int, str]:
    """Return the schemas by id; refuse what must not be used."""
    if file.version != 1:
        raise SchemaError(f"{path}: version {file.version}, wanted 1; {_REMEDY}")
    try:
        schemas = {int(key): json.dumps(it) for key, it in file.schemas.items()}
    except ValueError as exc:
        raise SchemaError(f"{path}: schemas: {exc}; {_REMEDY}") from exc
    for subject, pin in file.subjects.items():
        for number in (pin.id, *pin.older):
            if not 0 < number <= _LARGEST:
                raise SchemaError(f"{path}: {subject}: id {number} is none; {_REMEDY}")
            if number not in schemas:
                raise SchemaError(
                    f"{path}: {subject}: no schema of {number}; {_REMEDY}"
                )
    for number, text in schemas.items():
        if schema.parsed(text).get("name") not in schema.EVENTS:
            raise SchemaError(f"{path}: id {number} is of a foreign schema; {_REMEDY}")
    return schemas
