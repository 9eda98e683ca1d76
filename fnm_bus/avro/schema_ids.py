"""Schema ids: the ids of our schemas in a registry, kept in a file.

`fnm-bus schemas register` writes the file; the relay and all readers read it. A wrong
or foreign id is refused when the file is read, before a record is encoded or decoded.

The file is JSON: `version` is 1; `registry` is the source of the ids; `subjects` has
for each subject the `id` of new records and the ids of `older` versions; `schemas` has
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

MAX_ID: Final = 2**31 - 1
"""Confluent's framing has four bytes for an id; ids of registries are positive."""
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
    """Ids by subject, and the schema of each id.

    Attributes:
        registry: address of the ids' registry, without credentials.
        ids: subject → id of new records.
        older: subject → ids of older versions, which old records may have.
        schemas: id → schema as JSON text.
    """

    registry: str
    ids: Mapping[str, int]
    older: Mapping[str, tuple[int, ...]]
    schemas: Mapping[int, str]

    def writers(self, subject: str) -> Mapping[int, str]:
        """Return id → schema, for every id that records of a subject may have."""
        newest = (self.ids[subject],) if subject in self.ids else ()
        return {
            number: self.schemas[number]
            for number in (*newest, *self.older.get(subject, ()))
        }

    def check(self, records: Mapping[str, str]) -> None:
        """Refuse ids that do not fit this version's schemas.

        Args:
            records: topic → full name of its records.

        Raises:
            SchemaError: a subject is missing, or its id is of another schema.
        """
        for topic, full_name in records.items():
            subject = registry_subject(topic)
            number = self.ids.get(subject)
            if number is None:
                raise SchemaError(f"no schema id is pinned for {subject}: {_REMEDY}")
            if not _equal(json.loads(self.schemas[number]), full_name):
                raise SchemaError(
                    f"id {number} of {subject} is pinned for another schema than this"
                    f" version's {full_name}: {_REMEDY}"
                )

    def write(self, path: Path) -> None:
        """Write the file in one step, with mode 0644.

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
            "schemas": {
                str(number): json.loads(text) for number, text in self.schemas.items()
            },
        }
        try:
            atomic_file.make_parents(path)
            atomic_file.replace(
                path, json.dumps(content, indent=1).encode(), mode=0o644
            )
        except OSError as exc:
            raise SchemaError(f"{path}: {exc.strerror}") from exc


def registry_subject(topic: str) -> str:
    """Return the subject of *topic*'s values (Confluent's TopicNameStrategy)."""
    return f"{topic}-value"


def read(path: Path) -> SchemaIds:
    """Return the schema ids in a file.

    Raises:
        SchemaError: it is missing, damaged, or has an id that must not be used.
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
        {name: subject.id for name, subject in file.subjects.items()},
        {name: subject.older for name, subject in file.subjects.items()},
        {number: json.dumps(avro) for number, avro in file.schemas.items()},
    )


def _check(file: _File) -> None:
    """Refuse a file with an id that must not be used."""
    if file.version != 1:
        raise SchemaError(f"version {file.version}, wanted 1")
    names = {
        number: _record_name(number, avro) for number, avro in file.schemas.items()
    }
    for name, subject in file.subjects.items():
        for number in (subject.id, *subject.older):
            if not 0 < number <= MAX_ID:
                raise SchemaError(f"{name}: id {number}, wanted 1 to {MAX_ID}")
            if number not in names:
                raise SchemaError(f"{name}: the schema of id {number} is missing")
            if names[number] != names[subject.id]:
                raise SchemaError(
                    f"{name}: id {number} is of {names[number]},"
                    f" id {subject.id} of {names[subject.id]}"
                )


def _record_name(number: int, avro: Any) -> str:
    """Return the full name of the record of a schema, of this or an older version."""
    for full_name in schema.RECORDS:
        if avro == json.loads(schema.text(full_name)):
            return full_name
    try:
        parsed: Any = schema.parse(json.dumps(avro))
    except SchemaError as exc:
        raise SchemaError(f"id {number}: {exc}") from exc
    name = parsed.get("name") if isinstance(parsed, dict) else None
    if name not in schema.RECORDS:
        raise SchemaError(f"id {number} is of a foreign schema")
    return str(name)


def _equal(avro: Any, full_name: str) -> bool:
    """Return whether a schema is this version's, except for docs and defaults."""
    # The comparison of the JSON is the usual case, and needs no Avro library.
    return bool(
        avro == json.loads(schema.text(full_name))
        or schema.fingerprint_of(avro) == schema.fingerprint(full_name)
    )
