"""The spool's read side."""

import os
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.spool_box import Box, name

from fnm_bus.errors import SpoolError
from fnm_bus.hook import python_hook
from fnm_bus.spool.limits import AdmissionLevel
from fnm_bus.spool.spool import Spool


def test_the_constructor_creates_nothing(tmp_path: Path) -> None:
    Spool(tmp_path / "spool")
    assert not list(tmp_path.iterdir())


def test_a_stored_entry_is_read_unchanged(box: Box) -> None:
    before = datetime.now(UTC).timestamp()
    box.store(name(5), b'{"action": "ban"}\n', "ban", "192.0.2.1")
    entry = box.spool.read(name(5))
    assert entry.name == name(5)
    assert entry.arguments == ("ban", "192.0.2.1")
    assert entry.document == b'{"action": "ban"}\n'
    assert entry.size == Path(entry.path).stat().st_size
    assert entry.stored_at.tzinfo is UTC
    assert -1 < entry.stored_at.timestamp() - before < 60


def test_entries_are_in_the_order_of_the_calls(box: Box) -> None:
    calls = [name(ticks, "f8a4"[ticks % 4]) for ticks in range(50)]
    for entry in reversed(calls):
        box.store(entry)
    assert box.spool.scan() == calls


def test_an_empty_spool_has_no_entries(box: Box) -> None:
    assert box.spool.scan() == []
    assert box.spool.usage() == (0, 0, None)


def test_an_entry_may_be_removed_twice(box: Box) -> None:
    box.store(name(5))
    box.spool.remove(name(5))
    box.spool.remove(name(5))
    assert box.spool.scan() == []
    with pytest.raises(FileNotFoundError):
        box.spool.read(name(5))


def test_a_name_is_not_returned_before_an_earlier_one(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While 8 is read, an earlier call is stored in 0, then a later one in f."""
    first, second, third = name(1, "8"), name(2, "0"), name(3, "f")
    box.store(first)
    right, done = os.listdir, []

    def listdir(path: str) -> list[str]:
        if path.endswith("/8") and not done:
            done.append(path)
            box.store(second)
            box.store(third)
        return right(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert box.spool.scan() == [first]
    assert box.spool.scan() == [first, second, third]


def test_a_scan_waits_for_an_earlier_call(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, early = name(1, "0"), name(2, "f")
    box.store(early)
    right, done = os.listdir, []

    def listdir(path: str) -> list[str]:
        if path.endswith("/1") and not done:
            done.append(path)
            box.store(late)
        return right(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert box.spool.scan() == [late, early]


def test_a_missing_spool_is_an_error(tmp_path: Path) -> None:
    absent = Spool(tmp_path / "absent")
    for act in (
        absent.scan,
        absent.usage,
        absent.remove_orphans,
        absent.foreign_files,
        absent.lock,
    ):
        with pytest.raises(SpoolError, match="absent"):
            act()


@pytest.mark.parametrize("seconds", [-(10**9), 0, 2**40])
def test_a_file_may_have_any_time(box: Box, seconds: int) -> None:
    box.store(name(5))
    os.utime(box.spool.path(name(5)), (seconds, seconds))
    assert box.spool.scan() == [name(5)]
    assert box.spool.read(name(5)).stored_at.year < 10_000
    assert box.spool.usage().oldest is not None


def test_a_name_with_ticks_beyond_the_uptime_is_valid(box: Box) -> None:
    """FastNetMon in a time namespace has another uptime than the relay."""
    ticks = python_hook.uptime_ticks() + 2 * 86_400 * python_hook.TICKS_PER_SECOND
    late = f"{python_hook.boot_id()}-{ticks:012d}-0000007-00000000"
    box.store(late)
    assert box.spool.scan() == [late]
    assert box.spool.usage().files == 1
    assert box.spool.foreign_files() == []


def test_usage_has_entries_bytes_and_the_oldest(box: Box) -> None:
    for ticks in range(3):
        box.store(name(ticks, f"{ticks}"), b"x" * 100)
        os.utime(box.spool.path(name(ticks, f"{ticks}")), (1_000 + ticks,) * 2)
    usage = box.spool.usage()
    size = len(python_hook.encode_entry([], b"x" * 100))
    assert usage == (3, 3 * size, datetime.fromtimestamp(1_000, UTC))


def test_the_marker_has_the_refused_notifications(box: Box) -> None:
    assert box.spool.refusal() is AdmissionLevel.NOTHING
    for level in (
        AdmissionLevel.STATUS,
        AdmissionLevel.ALL,
        AdmissionLevel.ALL,
        AdmissionLevel.NOTHING,
    ):
        box.spool.refuse(level)
        assert box.spool.refusal() is level
    box.spool.refuse(AdmissionLevel.STATUS)
    with pytest.raises(OSError, match="at its limit: status"):
        python_hook.check_room(str(box.root), b"attack_status")


@pytest.mark.parametrize(
    ("text", "means"),
    [
        (b"\xff?", AdmissionLevel.STATUS),
        (b"all", AdmissionLevel.ALL),
        (b"\n", AdmissionLevel.NOTHING),
    ],
)
def test_hook_and_relay_read_any_marker_alike(
    box: Box, text: bytes, means: AdmissionLevel
) -> None:
    (box.root / "full").write_bytes(text)
    assert box.spool.refusal() is means
    for document, refused in (
        (b"attack_status", means is not AdmissionLevel.NOTHING),
        (b"ban", means is AdmissionLevel.ALL),
    ):
        context = pytest.raises(OSError, match="limit") if refused else nullcontext()
        with context:
            python_hook.check_room(str(box.root), document)
    box.spool.refuse(AdmissionLevel.NOTHING)
    assert box.spool.refusal() is AdmissionLevel.NOTHING
