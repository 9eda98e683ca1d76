"""Lines of JSON in a file."""

import json
import os
import resource
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from consumers.jsonlines import line_of
from consumers.lines import Lines
from fnm_bus.consume.handler import AbortConsumer, RetryLater
from fnm_bus.errors import ConfigError
from fnm_bus.event import Audit, Check, HostEvent, Receipt
from fnm_bus.kafka.reader import ConsumedRecord

AT = datetime(2026, 5, 1, tzinfo=UTC)


def line(offset: int) -> bytes:
    event = HostEvent(receipt=Receipt(event_id=str(offset)), action="ban", ip="::1")
    return line_of(ConsumedRecord("host", 0, offset, AT, b"::1", (), b"x", event, ""))


def offsets(path: Path) -> list[int]:
    return [json.loads(line)["offset"] for line in path.read_text().splitlines()]


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """Let the kernel refuse what a full disk would; it takes what fits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture
def lines(path: Path) -> Iterator[Lines]:
    it = Lines(path, fsync=True)
    yield it
    it.close()


def put(lines: Lines, *numbers: int) -> None:
    for number in numbers:
        lines.add(line(number))
    lines.settle()


def test_each_event_is_one_line_of_json(lines: Lines, path: Path) -> None:
    put(lines, 1, 2)
    first = json.loads(path.read_text().splitlines()[0])
    assert list(first) == [
        "topic",
        "partition",
        "offset",
        "timestamp",
        "key",
        "event",
    ]
    assert first["event"]["action"] == "ban"
    assert first["event"]["receipt"]["event_id"] == "1"
    assert (first["key"], first["timestamp"]) == ("::1", "2026-05-01T00:00:00+00:00")
    assert offsets(path) == [1, 2]


def test_a_tombstone_is_a_line_without_an_event() -> None:
    tombstone = ConsumedRecord("mitigation", 0, 1, AT, b"k", (), None, None, "empty")
    assert json.loads(line_of(tombstone))["event"] is None


def test_an_audit_record_is_a_line_with_code_and_checks() -> None:
    check = Check(name="own", verdict="refused", code="not_own")
    audit = Audit(by="mitigator", action="refused", code="not_own", checks=(check,))
    document = json.loads(
        line_of(ConsumedRecord("audit", 0, 1, AT, b"k", (), b"x", audit, ""))
    )
    assert document["event"]["code"] == "not_own"
    assert document["event"]["checks"][0]["code"] == "not_own"


def test_whatever_an_event_holds_it_is_one_line() -> None:
    event = HostEvent(receipt=Receipt(), action="a\nb\u2028\x00", ip="::1")
    found = line_of(ConsumedRecord("host", 0, 1, AT, b"\xff\n", (), b"x", event, ""))
    assert found.count(b"\n") == 1
    assert json.loads(found)["event"]["action"] == "a\nb\u2028\x00"


def test_nothing_is_written_before_it_is_settled(lines: Lines, path: Path) -> None:
    lines.add(line(1))
    assert not path.exists()


def test_only_its_owner_and_group_may_read_a_new_file(lines: Lines, path: Path) -> None:
    put(lines, 1)
    assert stat.S_IMODE(path.stat().st_mode) & 0o137 == 0


def test_a_file_that_was_moved_away_is_left_alone(lines: Lines, path: Path) -> None:
    put(lines, 1)
    old = path.rename(path.with_suffix(".1"))
    put(lines, 2)
    assert offsets(old) == [1]
    assert offsets(path) == [2]


def test_a_file_that_was_removed_is_made_again(lines: Lines, path: Path) -> None:
    put(lines, 1)
    path.unlink()
    put(lines, 2)
    assert offsets(path) == [2]


def test_a_file_that_was_copied_and_cut_goes_on(lines: Lines, path: Path) -> None:
    put(lines, 1)
    os.truncate(path, 0)
    put(lines, 2)
    assert offsets(path) == [2]


def test_a_line_that_was_cut_off_does_not_spoil_the_next(
    lines: Lines, path: Path
) -> None:
    path.write_text('{"offset": 0}\n{"offs')
    put(lines, 1)
    assert path.read_text().splitlines()[:2] == ['{"offset": 0}', '{"offs']
    assert json.loads(path.read_text().splitlines()[2])["offset"] == 1


def test_what_does_not_fit_waits_and_leaves_no_half_line(
    lines: Lines, path: Path
) -> None:
    put(lines, 1)
    before = path.read_bytes()
    lines.add(line(2))
    lines.add(line(3))
    with no_file_longer_than(len(before) + len(line(2)) + 10):
        for _ in range(2):
            with pytest.raises(RetryLater, match=r"events\.jsonl: File too large"):
                lines.settle()
    assert path.read_bytes() == before
    lines.settle()
    assert offsets(path) == [1, 2, 3]


def test_a_half_line_of_another_is_ended_even_if_that_did_not_fit_at_first(
    lines: Lines, path: Path
) -> None:
    path.write_text("half")
    lines.add(line(1))
    with no_file_longer_than(4), pytest.raises(RetryLater):
        lines.settle()
    lines.settle()
    assert path.read_bytes() == b"half\n" + line(1)


def test_a_full_device_waits() -> None:
    it = Lines(Path("/dev/full"), fsync=True)
    with pytest.raises(RetryLater, match="/dev/full: No space left on device"):
        put(it, 1)
    it.close()


def test_while_nothing_can_be_written_memory_has_a_bound(path: Path) -> None:
    it = Lines(path / "missing" / "file", fsync=False)
    for number in range(10_000):
        it.add(line(number))
    for _ in range(2):
        with pytest.raises(RetryLater, match="No such file or directory"):
            it.add(line(10_000))


def test_while_nothing_can_be_written_the_bytes_have_a_bound(path: Path) -> None:
    it = Lines(path / "missing" / "file", fsync=False)
    large = bytes(1 << 20)
    for _ in range(64):
        it.add(large)
    for _ in range(2):
        with pytest.raises(RetryLater, match="No such file or directory"):
            it.add(large)


def test_one_large_line_is_written(lines: Lines, path: Path) -> None:
    for _ in range(2):
        lines.add(bytes(65 << 20) + b"\n")
        lines.settle()
    assert path.stat().st_size == 2 * ((65 << 20) + 1)


def test_more_lines_than_may_wait_are_written_at_once(lines: Lines, path: Path) -> None:
    for number in range(10_001):
        lines.add(line(number))
    lines.settle()
    assert offsets(path) == list(range(10_001))


def test_two_writers_do_not_mix_their_lines(path: Path) -> None:
    def write(start: int) -> None:
        it = Lines(path, fsync=False)
        for number in range(start, start + 200):
            put(it, number)
        it.close()

    threads = [threading.Thread(target=write, args=(it,)) for it in (0, 1000)]
    for it in threads:
        it.start()
    for it in threads:
        it.join()
    assert sorted(offsets(path)) == [*range(200), *range(1000, 1200)]


def test_a_file_that_cannot_be_opened_is_told_before_anything_is_read(
    path: Path,
) -> None:
    with pytest.raises(
        ConfigError, match=r"\[consumers.jsonlines\] path: .*: No such file"
    ):
        Lines(path / "missing" / "file", fsync=False).open()


def test_stdout_without_a_reader_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        with pytest.raises(AbortConsumer, match="stdout: nobody reads it any more"):
            put(Lines(None, fsync=True), 1)


def test_stdout_goes_on_where_it_stopped(
    monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    with path.open("wb") as file:
        monkeypatch.setattr("sys.stdout", file)
        it = Lines(None, fsync=True)
        with no_file_longer_than(len(line(1)) + 10), pytest.raises(RetryLater):
            put(it, 1, 2)
        it.settle()
    assert offsets(path) == [1, 2]
