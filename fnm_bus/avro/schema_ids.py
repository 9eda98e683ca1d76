"""Pins: the ids that a registry gave to our schemas, kept in a file.

`fnm-bus schemas register` writes the file, the relay and all readers read it. A wrong
or foreign id is refused here, when it is pinned, and not when a record is read.

The file is JSON: `version` is 1; `registry` is where the ids are from; `subjects` has
for each subject the `id` to write under and those of `older` versions; `schemas` has
the schema of each id.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from fnm_bus import atomic_file
from fnm_bus.avro import schema
from fnm_bus.errors import SchemaError

LARGEST: Final = 2**31 - 1
"""Confluent's framing has four bytes for an id, and registries give positive ones."""
_REMEDY: Final = "run `fnm-bus schemas register`"


class _Subject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: int
    older: tuple[int, ...] = ()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    registry: str
    subjects: dict[str, _Subject]
    schemas: dict[int, Any]


@dataclass(frozen=True, slots=True)
class SchemaIds:
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
            if not _equal(json.loads(self.schemas[number]), full_name):
                raise SchemaError(
                    f"id {number} of {subject} is pinned for another schema than this"
                    f" version's {full_name}: {_REMEDY}"
                )

    def write(self, path: Path) -> None:
        """Write the file in one step, for all to read.

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
            atomic_file.replace(
                path, json.dumps(content, indent=1).encode(), mode=0o644
            )
        except OSError as exc:
            raise SchemaError(f"{path}: {exc.strerror}") from exc


def subject_of(topic: str) -> str:
    """Return the subject of *topic*'s values (Confluent's TopicNameStrategy)."""
    return f"{topic}-value"


def read(path: Path) -> SchemaIds:
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
    try:
        _check(file)
    except SchemaError as exc:
        raise SchemaError(f"{path}: {exc}; {_REMEDY}") from exc
    return SchemaIds(
        file.registry,
        {subject: pin.id for subject, pin in file.subjects.items()},
        {subject: pin.older for subject, pin in file.subjects.items()},
        {number: json.dumps(it) for number, it in file.schemas.items()},
    )


def _check(file: _File) -> None:
    """Refuse what must not be used."""
    if file.version != 1:
        raise SchemaError(f"version {file.version}, wanted 1")
    names = {number: _name(number, it) for number, it in file.schemas.items()}
    for subject, pin in file.subjects.items():
        for number in (pin.id, *pin.older):
            if not 0 < number <= LARGEST:
                raise SchemaError(f"{subject}: id {number}, wanted 1 to {LARGEST}")
            if number not in names:
                raise SchemaError(f"{subject}: the schema of id {number} is missing")
            if names[number] != names[pin.id]:
                raise SchemaError(
                    f"{subject}: id {number} is of {names[number]},"
                    f" id {pin.id} of {names[pin.id]}"
                )


def _name(number: int, avro: Any) -> str:
    """Return the full name of one of our records, of this version or an older one."""
    for full_name in schema.RECORDS:
        if avro == json.loads(schema.text(full_name)):
            return full_name
    try:
        parsed: Any = schema.parsed(json.dumps(avro))
    except SchemaError as exc:
        raise SchemaError(f"id {number}: {exc}") from exc
    name = parsed.get("name") if isinstance(parsed, dict) else None
    if name not in schema.RECORDS:
        raise SchemaError(f"id {number} is of a foreign schema")
    return str(name)


def _equal(avro: Any, full_name: str) -> bool:
    """Return whether a schema is this version's, but for docs and defaults."""
    # The comparison of texts is the usual case, and needs no Avro library.
    return bool(
        avro == json.loads(schema.text(full_name))
        or schema.fingerprint_of(avro) == schema.fingerprint(full_name)
    )
