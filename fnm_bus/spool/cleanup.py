"""Files in a spool that are not entries: orphaned temporary files and foreign files.

A temporary file was never accepted: its call did not exit with status 0. The file is
removed, and its name and size are returned for the log and a counter. Its content is
not published: it may be incomplete, and it would arrive an hour late.
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

_MIN_AGE: Final = 3_600.0
"""Age in seconds at which a temporary file without a process is removed.

If containers share the spool, the process may be running in another container, where it
is not visible. A hook runs for a fraction of a second.
"""
_MIN_AGE_UNKNOWN: Final = 86_400.0
"""The same if the name does not identify the process."""
_MAX_FOREIGN: Final = 10_000
"""Foreign files that are listed at a time: each takes half a kilobyte of memory."""


class OrphanedFile(NamedTuple):
    """A removed temporary file of a process that no longer runs.

    Attributes:
        name: name of the entry that was being written.
        size: in bytes.
        age: in seconds.
    """

    name: str
    size: int
    age: float


class ForeignFile(NamedTuple):
    """A file, link or directory in the spool that is not an entry.

    Attributes:
        path: its path.
        reason: why it is not an entry.
    """

    path: Path
    reason: str


def remove_orphans(root: Path) -> list[OrphanedFile]:
    """Remove the temporary files of processes that no longer run; return them.

    Raises:
        SpoolError: the directory cannot be read, or a file cannot be removed.
    """
    boot, now, removed = python_hook.boot_id(), time.time(), []
    try:
        with os.scandir(root / "incoming" / "tmp") as files:
            for file in files:
                if not (
                    is_entry_name(file.name) and file.is_file(follow_symlinks=False)
                ):
                    continue
                try:
                    status = file.stat(follow_symlinks=False)
                except FileNotFoundError:  # stored or removed by its hook
                    continue
                age = now - status.st_mtime
                if _is_orphaned(file.name, boot, age) and python_hook.unlink_quietly(
                    file.path
                ):
                    removed.append(OrphanedFile(file.name, status.st_size, age))
    except OSError as exc:
        raise SpoolError(f"{root}: {exc}") from exc
    return removed


def list_foreign_files(root: Path) -> list[ForeignFile]:
    """Return up to 10,000 files that are neither entries nor temporary files.

    Raises:
        SpoolError: a directory cannot be read.
    """
    try:
        return list(islice(_foreign_files(root / "incoming"), _MAX_FOREIGN))
    except OSError as exc:
        raise SpoolError(f"{root}: {exc}") from exc


def _foreign_files(incoming: Path) -> Iterator[ForeignFile]:
    for digit in ("", *layout.DIGITS):
        directory = incoming / "new" / digit if digit else incoming / "tmp"
        with os.scandir(directory) as files:
            for file in files:
                if reason := _foreign_reason(file, digit):
                    yield ForeignFile(Path(file.path), reason)


def quarantine_foreign(root: Path, foreign: ForeignFile) -> Path:
    """Move *foreign* to `quarantine/foreign` under a new name; return its path.

    Raises:
        SpoolError: it cannot be moved, for example a directory of another user.
    """
    # File systems allow 255 bytes; the name is cut between two characters.
    name = os.fsencode(f"{time.time_ns()}-{foreign.path.name}")[:255]
    target = root / "quarantine" / "foreign" / name.decode("utf-8", "ignore")
    try:
        return foreign.path.rename(target)
    except OSError as exc:
        raise SpoolError(f"{foreign.path}: {exc}") from exc


def _foreign_reason(file: os.DirEntry[str], digit: str) -> str:
    if not is_entry_name(file.name):
        return "not an entry's name"
    if digit and file.name[-1] != digit:
        return "wrong directory"
    if not file.is_file(follow_symlinks=False):
        return f"not a regular file: {_kind(file)}"
    return ""


def _kind(file: os.DirEntry[str]) -> str:
    if file.is_symlink():
        return "link"
    if file.is_dir(follow_symlinks=False):
        return "directory"
    try:
        mode = file.stat(follow_symlinks=False).st_mode
    except FileNotFoundError:
        return "removed meanwhile"
    return "pipe" if stat.S_ISFIFO(mode) else "special file"


def _is_orphaned(name: str, boot: str, age: float) -> bool:
    hidden = python_hook.NO_BOOT_ID
    if boot_of(name).startswith(hidden) or boot.startswith(hidden):
        return age > _MIN_AGE_UNKNOWN
    if age <= _MIN_AGE:
        return False
    if boot_of(name) != boot:
        return True
    try:
        return python_hook.process_start_ticks(pid_of(name)) != ticks_of(name)
    except FileNotFoundError:  # the process does not exist
        return True
    except OSError:  # the process exists, and this user may not read its state
        return False
