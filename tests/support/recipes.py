"""The programs of docs/recipes.md, and their output."""

import ast
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Timer
from typing import Any

from support.reader_topics import Sent

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
_SECONDS = 120
_BLOCK = re.compile(r"^```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NAME = re.compile(r"[\w-]+\.(?:py|mjs|go|java|xml)\b")
_EPOCH = datetime.fromtimestamp(0, UTC)


def programs() -> Mapping[str, str]:
    """Return the programs by the file name in their first line."""
    blocks = _BLOCK.findall(PAGE.read_text("utf-8"))
    names = [_NAME.search(block.split("\n", 1)[0]) for block in blocks]
    return {
        name[0]: block
        for name, block in zip(names, blocks, strict=True)
        if name is not None
    }


def packages(name: str) -> tuple[str, ...]:
    """Return the packages that a program's first line installs, with their versions."""
    first = programs()[name].split("\n", 1)[0]
    return tuple(word for word in first.split() if re.search(r".@v?\d", word))


def write(name: str, directory: Path) -> Path:
    """Write a program of the page into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(programs()[name], "utf-8")
    return path


def lines_of(
    command: Sequence[str | Path], count: int, **options: Any
) -> list[dict[str, Any]]:
    """Run a program until it has printed *count* records; return them.

    The options are those of subprocess. A program that ends or is silent too long fails
    the test with the end of its standard error.
    """
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, **options
        ) as process,
    ):
        timer = Timer(_SECONDS, process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            records = []
            for line in process.stdout:
                records.append(json.loads(line))
                if len(records) == count:
                    break
        finally:
            timer.cancel()
            process.kill()
        errors.seek(0)
        assert len(records) == count, (
            f"{len(records)} of {count} records:\n{errors.read()[-3000:]}"
        )
    return records


def assert_equal(
    records: list[dict[str, Any]],
    sent: Sequence[Sent],
    as_bytes: Callable[[Any], bytes],
    *,
    resolved: bool = False,
) -> None:
    """Compare a program's records with the sent ones, field by field.

    Args:
        records: objects with topic, key, headers and value.
        sent: the records on Kafka.
        as_bytes: bytes as the program's language prints them.
        resolved: whether the program reads by the current schema, not the writer's.
    """
    by_id = {record["headers"]["ce_id"]: record for record in records}
    assert len(by_id) == len(records)
    assert by_id.keys() == {entry.record_id for entry in sent}
    for entry in sent:
        record = by_id[entry.record_id]
        assert record["topic"] == entry.record.topic
        # Node leaves out an absent key, Go prints "", the others null.
        assert (record.get("key") or "") == (entry.record.key or b"").decode()
        assert record["headers"] == {
            name: value.decode() for name, value in entry.record.headers
        }
        expected = entry.resolved if resolved else entry.datum
        assert _read_as(expected, record["value"], as_bytes) == expected


def _read_as(expected: Any, value: Any, as_bytes: Callable[[Any], bytes]) -> Any:
    """Return a printed value in the type of the expected one."""
    if isinstance(value, dict) and len(value) == 1 and _is_branch(next(iter(value))):
        [value] = value.values()  # a union as a map with its type
    match expected:
        case datetime():
            result: Any = _time(value)
        case int() if not isinstance(expected, bool):
            result = int(value)
        case bytes():
            result = as_bytes(value)
        case dict() if isinstance(value, dict):
            result = {
                name: _read_as(expected.get(name), item, as_bytes)
                for name, item in value.items()
            }
        case list() if isinstance(value, list) and len(value) == len(expected):
            pairs = zip(expected, value, strict=True)
            result = [_read_as(wanted, item, as_bytes) for wanted, item in pairs]
        case _:
            result = value
    return result


def _is_branch(name: str) -> bool:
    return name.startswith("fastnetmon.")


def _time(value: Any) -> datetime:
    """Return a time that is printed as text, or as microseconds."""
    text = str(value)
    if text.lstrip("-").isdigit():
        return _EPOCH + timedelta(microseconds=int(text))
    return datetime.fromisoformat(text)


def python_bytes(value: Any) -> bytes:
    """Return bytes that Python printed as `str(value)`."""
    literal: bytes = ast.literal_eval(value)
    return literal
