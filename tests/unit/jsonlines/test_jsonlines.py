"""AppendFile of JSON in a file."""

import json
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest

from consumers.jsonlines import LINES, AppendFile, line_of, main
from consumers.settings import FullSettings, JsonlinesSettings
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
    """Let the kernel refuse data as on a full disk; it accepts the part that fits."""
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
def file(path: Path) -> Iterator[AppendFile]:
    appender = AppendFile(path, fsync=True)
    yield appender
    appender.close()


def put(file: AppendFile, *numbers: int) -> None:
    for number in numbers:
        file.add(line(number))
    file.settle()


def test_event_is_one_line_of_json(file: AppendFile, path: Path) -> None:
    put(file, 1, 2)
    first = json.loads(path.read_text().splitlines()[0])
    assert list(first) == ["topic", "partition", "offset", "timestamp", "key", "event"]
    assert first["event"]["action"] == "ban"
    assert first["event"]["receipt"]["event_id"] == "1"
    assert (first["key"], first["timestamp"]) == ("::1", "2026-05-01T00:00:00+00:00")
    assert offsets(path) == [1, 2]


def test_every_format_of_the_settings_has_its_line() -> None:
    formats = get_args(JsonlinesSettings.model_fields["format"].annotation)
    assert formats == tuple(LINES)


def test_tombstone_is_a_line_without_event() -> None:
    tombstone = ConsumedRecord("mitigation", 0, 1, AT, b"k", (), None, None, "empty")
    assert json.loads(line_of(tombstone))["event"] is None


def test_audit_record_has_code_and_checks() -> None:
    check = Check(name="own", verdict="refused", code="not_own")
    audit = Audit(by="mitigator", action="refused", code="not_own", checks=(check,))
    document = json.loads(
        line_of(ConsumedRecord("audit", 0, 1, AT, b"k", (), b"x", audit, ""))
    )
    assert document["event"]["code"] == "not_own"
    assert document["event"]["checks"][0]["code"] == "not_own"


def test_event_with_line_breaks_is_one_line() -> None:
    event = HostEvent(receipt=Receipt(), action="a\nb\u2028\x00", ip="::1")
    line = line_of(ConsumedRecord("host", 0, 1, AT, b"\xff\n", (), b"x", event, ""))
    assert line.count(b"\n") == 1
    assert json.loads(line)["event"]["action"] == "a\nb\u2028\x00"


def test_lines_wait_until_settle(file: AppendFile, path: Path) -> None:
    file.add(line(1))
    assert not path.exists()


def test_new_file_is_private_to_owner_and_group(file: AppendFile, path: Path) -> None:
    put(file, 1)
    assert stat.S_IMODE(path.stat().st_mode) & 0o137 == 0


def test_moved_file_gets_no_more_lines(file: AppendFile, path: Path) -> None:
    put(file, 1)
    old = path.rename(path.with_suffix(".1"))
    put(file, 2)
    assert offsets(old) == [1]
    assert offsets(path) == [2]


def test_removed_file_is_created_again(file: AppendFile, path: Path) -> None:
    put(file, 1)
    path.unlink()
    put(file, 2)
    assert offsets(path) == [2]


def test_truncated_file_gets_next_lines(file: AppendFile, path: Path) -> None:
    put(file, 1)
    os.truncate(path, 0)
    put(file, 2)
    assert offsets(path) == [2]


def test_incomplete_line_does_not_spoil_the_next(file: AppendFile, path: Path) -> None:
    path.write_text('{"offset": 0}\n{"offs')
    put(file, 1)
    assert path.read_text().splitlines()[:2] == ['{"offset": 0}', '{"offs']
    assert json.loads(path.read_text().splitlines()[2])["offset"] == 1


def test_full_disk_makes_lines_wait(file: AppendFile, path: Path) -> None:
    put(file, 1)
    size = path.stat().st_size + len(line(2)) + 10
    file.add(line(2))
    file.add(line(3))
    with no_file_longer_than(size):
        for _ in range(2):
            with pytest.raises(RetryLater, match=r"events\.jsonl: File too large"):
                file.settle()
    file.settle()
    assert offsets(path) == [1, 2, 3]


def test_file_moved_within_a_line_gets_whole_lines(
    file: AppendFile, path: Path
) -> None:
    file.add(line(1))
    with no_file_longer_than(10), pytest.raises(RetryLater):
        file.settle()
    path.rename(path.with_suffix(".1"))
    file.settle()
    assert offsets(path) == [1]


def test_full_device_is_retried() -> None:
    appender = AppendFile(Path("/dev/full"), fsync=True)
    with pytest.raises(RetryLater, match="/dev/full: No space left on device"):
        put(appender, 1)
    appender.close()


def test_waiting_lines_have_a_bound(path: Path) -> None:
    appender = AppendFile(path / "missing" / "file", fsync=False)
    large = bytes(1 << 20)
    for _ in range(64):
        appender.add(large)
    for _ in range(2):
        with pytest.raises(RetryLater, match="No such file or directory"):
            appender.add(large)


def test_large_line_is_written(file: AppendFile, path: Path) -> None:
    for _ in range(2):
        file.add(bytes(65 << 20) + b"\n")
        file.settle()
    assert path.stat().st_size == 2 * ((65 << 20) + 1)


def test_stdout_without_reader_aborts(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        with pytest.raises(AbortConsumer, match="stdout: no reader"):
            put(AppendFile(None, fsync=True), 1)


def test_stdout_continues_after_a_partial_write(
    monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    with path.open("wb") as file:
        monkeypatch.setattr("sys.stdout", file)
        appender = AppendFile(None, fsync=True)
        with no_file_longer_than(len(line(1)) + 10), pytest.raises(RetryLater):
            put(appender, 1, 2)
        appender.settle()
    assert offsets(path) == [1, 2]


def test_missing_directory_is_a_configuration_error(path: Path) -> None:
    table = {"jsonlines": {"path": path / "missing" / "file"}}
    settings = FullSettings.model_validate({"sensor": "fra1", "consumers": table})
    with pytest.raises(ConfigError, match=r"\[consumers.jsonlines\] path: .*: No such"):
        main(settings)
