"""Orphaned temporary files, and foreign files."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.spool_box import Box, name

from fnm_bus.errors import SpoolError
from fnm_bus.hook import python_hook


def plant(path: Path, kind: str, target: Path) -> None:
    if kind == "link":
        path.symlink_to(target)
    elif kind == "dangling link":
        path.symlink_to(target / "nowhere")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.write_bytes(b"{}")


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "directory"])
def test_a_planted_link_or_pipe_is_not_read(
    box: Box, tmp_path: Path, kind: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    plant(box.spool.path(name(5)), kind, secret)
    box.store(name(6))
    assert name(6) in box.spool.scan()
    with pytest.raises(SpoolError):
        box.spool.read(name(5))
    (foreign,) = box.spool.foreign_files()
    assert foreign.reason.endswith(kind.removeprefix("dangling "))
    moved = box.spool.quarantine_foreign(foreign)
    assert moved.parent == box.root / "quarantine/foreign"
    assert box.spool.foreign_files() == []
    assert secret.read_bytes() == b"secret"


@pytest.mark.parametrize(
    "place",
    [
        "incoming/new/0/ban.json",
        f"incoming/new/0/{name(5, 'f')}",
        "incoming/tmp/core",
        "incoming/new/3/\udcff",
        "incoming/new/3/" + "x" * 255,
    ],
)
def test_a_foreign_file_is_moved_to_the_quarantine(box: Box, place: str) -> None:
    plant(box.root / place, "file", box.root)
    assert box.spool.scan() == []
    (foreign,) = box.spool.foreign_files()
    assert box.spool.quarantine_foreign(foreign).read_bytes() == b"{}"
    assert box.spool.foreign_files() == []


def temporary(box: Box, entry: str, age: float) -> Path:
    path = box.root / "incoming/tmp" / entry
    path.write_bytes(b"half")
    then = datetime.now(UTC).timestamp() - age
    os.utime(path, (then, then))
    return path


def own(**changes: int) -> str:
    ticks = changes.get("ticks", python_hook.process_start_ticks())
    pid = changes.get("pid", os.getpid())
    return f"{python_hook.boot_id()}-{ticks:012d}-{pid:07d}-00000000"


def dead_pid() -> int:
    """Return a number that Linux gives to no process (PID_MAX_LIMIT is 4194304)."""
    return 4_194_305


def test_the_temporary_file_of_a_running_call_stays(box: Box) -> None:
    path = temporary(box, own(), age=10**6)
    assert box.spool.remove_orphans() == []
    assert path.exists()


def test_the_temporary_file_of_an_ended_call_is_removed(box: Box) -> None:
    entry = own(pid=dead_pid())
    path = temporary(box, entry, age=4_000)
    (left,) = box.spool.remove_orphans()
    assert (left.name, left.size) == (entry, 4)
    assert not path.exists()


def test_a_reused_pid_does_not_keep_a_file(box: Box) -> None:
    temporary(box, own(ticks=python_hook.process_start_ticks() - 1), age=4_000)
    assert len(box.spool.remove_orphans()) == 1


def test_a_file_of_an_earlier_boot_is_removed(box: Box) -> None:
    temporary(box, name(5, pid=os.getpid()), age=4_000)
    assert len(box.spool.remove_orphans()) == 1


def test_a_new_file_without_a_process_stays(box: Box) -> None:
    temporary(box, own(pid=dead_pid()), age=3_000)
    temporary(box, name(5), age=-(10**6))
    assert box.spool.remove_orphans() == []


def test_a_file_of_an_unknown_boot_stays_a_day(box: Box) -> None:
    hidden = python_hook.NO_BOOT_ID + f"{5:012d}" + name(5)[32:]
    path = temporary(box, hidden, age=80_000)
    assert box.spool.remove_orphans() == []
    os.utime(path, (1, 1))
    assert len(box.spool.remove_orphans()) == 1


def test_cleaning_keeps_links_and_foreign_files(box: Box, tmp_path: Path) -> None:
    (box.root / "incoming/tmp" / name(5)).symlink_to(tmp_path)
    (box.root / "incoming/tmp" / "core").write_bytes(b"")
    assert box.spool.remove_orphans() == []
    assert len(list((box.root / "incoming/tmp").iterdir())) == 2


def test_a_temporary_file_is_not_an_entry(box: Box) -> None:
    temporary(box, own(), age=0)
    assert box.spool.scan() == []
    assert box.spool.foreign_files() == []
