"""Lines of JSON in a file."""

import errno
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from consumers.jsonlines import Lines
from fnm_bus.event import HostEvent, Receipt
from fnm_bus.handling import TryLater
from fnm_bus.reader import Read

AT = datetime(2026, 5, 1, tzinfo=UTC)


def read(offset: int) -> Read:
    event = HostEvent(receipt=Receipt(event_id=str(offset)), action="ban", ip="::1")
    return Read("host", 0, offset, AT, b"::1", (), b"x", event, "")


def offsets(path: Path) -> list[int]:
    return [json.loads(line)["offset"] for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def test_each_event_is_one_line_of_json(path: Path) -> None:
    lines = Lines(path, fsync=True)
    lines.add(read(1))
    lines.add(read(2))
    lines.settle()
    lines.close()
    first = json.loads(path.read_text().splitlines()[0])
    assert first["event"]["action"] == "ban"
    assert first["event"]["receipt"]["event_id"] == "1"
    assert first["key"] == "::1"
    assert offsets(path) == [1, 2]


def test_nothing_is_written_before_it_is_settled(path: Path) -> None:
    lines = Lines(path, fsync=True)
    lines.add(read(1))
    assert not path.exists()


def test_a_file_that_was_moved_away_is_left_alone(path: Path) -> None:
    lines = Lines(path, fsync=False)
    lines.add(read(1))
    lines.settle()
    old = path.rename(path.with_suffix(".1"))
    lines.add(read(2))
    lines.settle()
    lines.close()
    assert offsets(old) == [1]
    assert offsets(path) == [2]


def test_a_line_that_was_cut_off_does_not_spoil_the_next(path: Path) -> None:
    path.write_text('{"offset": 0}\n{"offs')
    lines = Lines(path, fsync=False)
    lines.add(read(1))
    lines.settle()
    lines.close()
    assert json.loads(path.read_text().splitlines()[-1])["offset"] == 1


def test_a_full_disk_waits_and_leaves_no_half_line(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = Lines(path, fsync=False)
    real, calls = os.write, []

    def full(fd: int, data: bytes) -> int:
        calls.append(fd)
        if len(calls) == 1:
            return real(fd, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    lines.add(read(1))
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(TryLater, match="No space left"):
            lines.settle()
    assert path.read_bytes() == b""
    lines.settle()
    lines.close()
    assert offsets(path) == [1]


def test_while_the_disk_is_full_memory_has_a_bound(path: Path) -> None:
    lines = Lines(path / "missing" / "file", fsync=False)
    for number in range(10_000):
        lines.add(read(number))
    with pytest.raises(TryLater, match="wait already"):
        lines.add(read(10_000))
    with pytest.raises(TryLater):
        lines.settle()
