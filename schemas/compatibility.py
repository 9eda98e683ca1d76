"""Compare the schemas with those of every release, forwards and backwards.

    python schemas/compatibility.py           exit 1 and name every problem
    python schemas/compatibility.py --keep    keep the schemas as this version's

Old readers must read new records and new readers old ones, without a registry's help.
The rules are stricter than Avro's, because Avro's fingerprint does not cover
(defaults, logical types, bounds) and because readers see a removed or renamed field
as its default, silently. Allowed changes are then read for real, both ways.
"""

import io
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastavro import schemaless_reader, schemaless_writer

from fnm_bus import __version__
from fnm_bus.avro import schema

ROOT = Path(__file__).parents[1]
RELEASED = ROOT / "schemas" / "released"

Schema = dict[str, Any]


def main(arguments: list[str]) -> int:
    """Compare or keep; return the exit status."""
    current = {name: json.loads(schema.text(name)) for name in schema.RECORDS}
    if arguments == ["--keep"]:
        keep(RELEASED / __version__, current)
        return 0
    problems = [line for name in current for line in flaws(current[name])]
    for directory in sorted(RELEASED.iterdir()):
        problems += [
            f"{directory.name}: {problem}"
            for problem in broken(read(directory), current)
        ]
    for line in problems:
        print(line, file=sys.stderr)
    return 1 if problems else 0


def keep(directory: Path, schemas: dict[str, Schema]) -> None:
    """Write the schemas, self-contained, as those of a release."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, whole in schemas.items():
        text = json.dumps(whole, indent=1, ensure_ascii=False)
        (directory / f"{name}.avsc").write_text(text + "\n", encoding="utf-8")


def read(directory: Path) -> dict[str, Schema]:
    """Return the schemas of one release by full name."""
    return {
        file.name.removesuffix(".avsc"): json.loads(file.read_text("utf-8"))
        for file in sorted(directory.glob("*.avsc"))
    }


def broken(old: dict[str, Schema], new: dict[str, Schema]) -> Iterator[str]:
    """Yield each incompatibility of two releases."""
    for name, was in old.items():
        if name not in new:
            yield f"{name}: removed; its readers would wait for ever"
            continue
        changes = list(differences(was, new[name]))
        # The rules give clearer messages than a failed read, so they come first.
        yield from changes or unreadable(was, new[name])


def flaws(whole: Schema) -> Iterator[str]:
    """Yield each flaw that no schema may have."""
    for name, record in records(whole).items():
        if not record.get("doc"):
            yield f"{name}: no doc"
        for field in record["fields"]:
            where = f"{name}.{field['name']}"
            if "default" not in field:
                yield f"{where}: no default"
            elif lacking := incomplete(field["type"], field["default"], whole):
                yield f"{where}: its default lacks {', '.join(lacking)}"
            if not field.get("doc"):
                yield f"{where}: no doc"
            if "aliases" in field:
                yield f"{where}: an alias; not every reader follows them"
            yield from (f"{where}: {flaw}" for flaw in union_flaws(field))


def incomplete(avro: Any, default: Any, whole: Schema) -> list[str]:
    """Return which fields a record's default does not name, with dots between them.

    Avro's C++ library, so ClickHouse, reads no schema with such a default.
    """
    record = avro
    if isinstance(avro, str):
        declared = (named for named in records(whole).values() if named["name"] == avro)
        record = next(declared, avro)
    match record, default:
        case {"type": "record", "fields": fields}, dict():
            lacking = [
                field["name"] for field in fields if field["name"] not in default
            ]
            for field in fields:
                name = field["name"]
                if name in default:
                    within = incomplete(field["type"], default[name], whole)
                    lacking += [f"{name}.{inner}" for inner in within]
            return lacking
        case {"items": inner}, list():
            return [
                name for value in default for name in incomplete(inner, value, whole)
            ]
        case {"values": inner}, dict():
            values = default.values()
            return [
                name for value in values for name in incomplete(inner, value, whole)
            ]
        case [first, *_], _:  # of a union a default is of the first branch
            return incomplete(first, default, whole)
    return []


def union_flaws(field: Schema) -> Iterator[str]:
    """Yield each flaw of a field: slow to write, or not readable by all."""
    match field["type"]:
        case ["null", str() | {"type": "record"} | {"logicalType": _}]:
            if field.get("default") is not None:
                yield "a nullable field's default is null"
        case list():
            # A tuple in a union means (branch, value) to fastavro, so an array's
            # tuple of values would be taken for that.
            yield "a union is null and one primitive or record"


def differences(old: Schema, new: Schema) -> Iterator[str]:
    """Yield how two versions of a record differ in a way no release may."""
    was, now = records(old), records(new)
    for name in was:
        if name not in now:
            yield f"{name}: removed or renamed"
            continue
        before = {f["name"]: f for f in was[name]["fields"]}
        after = {f["name"]: f for f in now[name]["fields"]}
        for key, field in before.items():
            where = f"{name}.{key}"
            if key not in after:
                yield f"{where}: removed or renamed; readers would see its default"
            else:
                yield from changes(where, field, after[key])
        for key, field in after.items():
            if key not in before:
                yield from additions(f"{name}.{key}", field)


def changes(where: str, old: Schema, new: Schema) -> Iterator[str]:
    """Yield each forbidden change of a field."""
    was, now = names_only(old["type"]), names_only(new["type"])
    if was != now:
        yield f"{where}: type {json.dumps(was)} became {json.dumps(now)}"
    for key in ("default", "maximum"):
        # Not covered by the fingerprint: one id, two meanings.
        if old.get(key) != new.get(key):
            yield f"{where}: {key} {old.get(key)!r} became {new.get(key)!r}"


def additions(where: str, field: Schema) -> Iterator[str]:
    """Yield each flaw of a new field for readers of old records."""
    match field["type"]:
        case "bytes" | {"logicalType": _}:
            yield f"{where}: new and not nullable; fastavro gives its default as JSON"


def unreadable(old: Schema, new: Schema) -> Iterator[str]:
    """Yield where reading for real fails or changes a value, in either direction."""
    for writer, reader, way in ((old, new, "backwards"), (new, old, "forwards")):
        for datum in (minimal(writer, writer), filled(writer, writer)):
            try:
                got = transcode(datum, writer, reader)
            except Exception as exc:  # noqa: BLE001 - every failure is the finding
                yield f"{writer['name']}: {way}: {type(exc).__name__}: {exc}"
                continue
            if common(got, datum) != common(datum, got):
                yield f"{writer['name']}: {way}: read other values than written"


def transcode(datum: Any, writer: Schema, reader: Schema) -> Any:
    """Return *datum* as a reader of another version sees it."""
    buffer = io.BytesIO()
    schemaless_writer(buffer, schema.parse(json.dumps(writer)), datum)
    buffer.seek(0)
    return schemaless_reader(
        buffer, schema.parse(json.dumps(writer)), schema.parse(json.dumps(reader))
    )


def common(value: Any, other: Any) -> Any:
    """Return *value* without the fields that *other* does not have."""
    match value, other:
        case dict(), dict():
            return {k: common(value[k], other[k]) for k in value if k in other}
        case list(), list():
            return [common(a, b) for a, b in zip(value, other, strict=True)]
    return value


def minimal(avro: Any, whole: Schema) -> Any:
    """Return a datum in which everything is absent that can be."""
    return sample(avro, whole, full=False)


def filled(avro: Any, whole: Schema) -> Any:
    """Return a datum in which everything is present, lists with one value."""
    return sample(avro, whole, full=True)


def sample(avro: Any, whole: Schema, *, full: bool) -> Any:
    """Return a datum of an Avro type."""
    match avro:
        case ["null", inner]:
            return sample(inner, whole, full=full) if full else None
        case {"type": "record"}:
            return {
                f["name"]: sample(f["type"], whole, full=full) for f in avro["fields"]
            }
        case {"type": "array", "items": inner}:
            return [sample(inner, whole, full=full)] if full else []
        case {"type": "map", "values": inner}:
            return {"/a": sample(inner, whole, full=full)} if full else {}
        case {"logicalType": "timestamp-micros"}:
            return datetime(2026, 11, 22, 3, 14, 7, 118204, tzinfo=UTC)
    simple = {"string": "é", "bytes": b"\xff", "boolean": True, "int": 7, "long": 2**40}
    return (
        simple[avro] if avro in simple else sample(named(avro, whole), whole, full=full)
    )


def named(name: str, whole: Schema) -> Schema:
    """Return the record of a short name."""
    return next(r for r in records(whole).values() if r["name"] == name)


def records(avro: Any) -> dict[str, Schema]:
    """Return every record declared inside a schema, by full name."""
    match avro:
        case {"type": "record"}:
            declared = {f"{schema.NAMESPACE}.{avro['name']}": avro}
            for field in avro["fields"]:
                declared |= records(field["type"])
            return declared
        case list():
            return {name: r for part in avro for name, r in records(part).items()}
        case {"items": inner} | {"values": inner}:
            return records(inner)
    return {}


def names_only(avro: Any) -> Any:
    """Return a type with records by their names, so that each is compared once."""
    match avro:
        case {"type": "record", "name": name}:
            return name
        case list():
            return [names_only(part) for part in avro]
        case {"items": inner}:
            return {**avro, "items": names_only(inner)}
        case {"values": inner}:
            return {**avro, "values": names_only(inner)}
    return avro


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
