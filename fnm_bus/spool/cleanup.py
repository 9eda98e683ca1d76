"""Sweep: what is in a spool and is no entry, left by dead hooks or put by strangers.

A temporary file was never accepted: its call was not told that all is well. It is
removed, and its name and size are returned for the log and a counter, which is the
trace that FastNetMon said something then. It is not published: it may be half of a
document, and it would come an hour late.
"""

import os
import stat
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from fnm_bus.errors import SpoolError
from fnm_bus.hook import python_hook
from fnm_bus.spool import layout
from fnm_bus.spool.entry_name import boot_of, is_entry_name, pid_of, ticks_of

_AGE: Final = 3_600.0
"""Seconds after which a temporary file may be removed, if its process is gone.

Where containers share the spool a living process may be in another one, where it
cannot be seen. A hook lives for a fraction of a second.
"""
_AGE_UNKNOWN: Final = 86_400.0
"""The same where the name cannot tell which process it was."""
_MOST: Final = 10_000
"""Foreign files that are looked at together: each takes half a kilobyte of memory."""


class OrphanedFile(NamedTuple):
    """A temporary file that was removed.

    Attributes:
        name: of the entry it would have become.
        size: in bytes.
        age: in seconds.
    """

    name: str
    size: int
    age: float


class ForeignFile(NamedTuple):
    """Something that is no entry.

    Attributes:
        path: where it is.
        reason: why it is none.
    """

    path: Path
    reason: str


def clean(root: Path) -> list[OrphanedFile]:
    """Remove temporary files of dead processes; return what was removed.

    Raises:
        SpoolError: the directory cannot be read, or a file not be removed.
    """
    boot, now, removed = python_hook.boot_id(), time.time(), []
    try:
        with os.scandir(root / "incoming" / "tmp") as items:
            for item in items:
                if not is_entry_name(item.name) or not item.is_file(
                    follow_symlinks=False
                ):
                    continue
                try:
                    facts = item.stat(follow_symlinks=False)
                except FileNotFoundError:  # stored or given up in this moment
                    continue
                age = now - facts.st_mtime
                if _dead(item.name, boot, age) and python_hook.unlink_quietly(
                    item.path
                ):
                    removed.append(OrphanedFile(item.name, facts.st_size, age))
    except OSError as exc:
        raise SpoolError(f"{root}: {exc}") from exc
    return removed


def odd(root: Path) -> list[ForeignFile]:
    """Return what is no entry and no file on its way to become one, 10,000 at most.

    Raises:
        SpoolError: a directory cannot be read.
    """
    try:
        return list(islice(_odd(root / "incoming"), _MOST))
    except OSError as exc:
        raise SpoolError(f"{root}: {exc}") from exc


def _odd(incoming: Path) -> Iterator[ForeignFile]:
    for digit in ("", *layout.DIGITS):
        directory = incoming / "new" / digit if digit else incoming / "tmp"
        with os.scandir(directory) as items:
            for item in items:
                if reason := _oddity(item, digit):
                    yield ForeignFile(Path(item.path), reason)


def set_aside(root: Path, odd: ForeignFile) -> Path:
    """Move *odd* to `quarantine/odd` under a name that is free; return its path.

    Raises:
        SpoolError: it cannot be moved; directories of others cannot.
    """
    # 255 bytes is the most that a file system takes; a name is cut between characters.
    name = os.fsencode(f"{time.time_ns()}-{odd.path.name}")[:255]
    target = root / "quarantine" / "odd" / name.decode("utf-8", "ignore")
    try:
        return odd.path.rename(target)
    except OSError as exc:
        raise SpoolError(f"{odd.path}: {exc}") from exc


def _oddity(item: os.DirEntry[str], digit: str) -> str:
    if not is_entry_name(item.name):
        return "its name is not an entry's"
    if digit and item.name[-1] != digit:
        return "it belongs into another directory"
    if not item.is_file(follow_symlinks=False):
        return f"it is no regular file but a {_kind(item)}"
    return ""


def _kind(item: os.DirEntry[str]) -> str:
    if item.is_symlink():
        return "link"
    if item.is_dir(follow_symlinks=False):
        return "directory"
    try:
        mode = item.stat(follow_symlinks=False).st_mode
    except FileNotFoundError:
        return "thing that is gone"
    return "pipe" if stat.S_ISFIFO(mode) else "special file"


def _dead(name: str, boot: str, age: float) -> bool:
    if boot_of(name).startswith(python_hook.NO_BOOT_ID) or boot.startswith(
        python_hook.NO_BOOT_ID
    ):
        return age > _AGE_UNKNOWN
    if age <= _AGE:
        return False
    if boot_of(name) != boot:
        return True
    try:
        return python_hook.process_start_ticks(pid_of(name)) != ticks_of(name)
    except FileNotFoundError:  # no such process
        return True
    except OSError:  # there is one, and it is not for us to look at
        return False
