"""The spool's directories, with their modes and owners.

    ROOT                 rwxr-s---  owner, group
    ROOT/full            rw-r-----  exists while the spool refuses entries
    ROOT/lock            rw-------  only the owner can open and hold it
    ROOT/incoming        rwxr-x---
    ROOT/incoming/tmp    rwxrws--T  the group adds files, which belong to their creator
    ROOT/incoming/new    rwxr-x---
      .../new/0 .. f     rwxrws--T  the group adds files, which belong to their creator
    ROOT/quarantine      rwx------
    ROOT/state           rwx------

FastNetMon's user is in the group. Because of the sticky bit it can rename and remove
its own files only; the owner of a directory can remove every file in it. The setgid bit
gives files the group of the directory, so that the owner can read them.
"""

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from fnm_bus import atomic_file
from fnm_bus.errors import SpoolError

DIGITS: Final = "0123456789abcdef"
_GROUP_WRITABLE: Final = 0o3770
_MODES: Final = {
    ".": 0o2750,
    "incoming": 0o750,
    "incoming/tmp": _GROUP_WRITABLE,
    "incoming/new": 0o750,
    **{f"incoming/new/{digit}": _GROUP_WRITABLE for digit in DIGITS},
    "quarantine": 0o700,
    "quarantine/foreign": 0o700,
    "quarantine/unpublished": 0o700,
    "state": 0o700,
}


def make(root: Path, owner: int, group: int) -> None:
    """Create a spool's directories and its lock, or correct their modes and owners.

    Root calls this on directories of another user, who may replace any of them by a
    link at any moment. Each directory is therefore opened by its name in its parent,
    without following links, and changed through its descriptor.

    Raises:
        SpoolError: one of them cannot be created, or is another file type, such as a
            link.
    """
    try:
        atomic_file.make_parents(root)
        # The lock first, before the owner of its directory changes.
        with _open_directory(root, ".") as fd:
            _make_lock(root, fd, owner, group)
        for name, mode in _MODES.items():
            with _open_directory(root, name) as fd:
                _set_rights(fd, owner, group, mode)
    except OSError as exc:
        raise SpoolError(f"cannot set up the spool {root}: {exc}") from exc


def find_faults(root: Path, owner: int, group: int) -> list[str]:
    """Return the faults of a spool's directories, one text each.

    For users except the owner and root, directories that they may not read are skipped.
    """
    faults = []
    for name, mode in {**_MODES, "lock": 0o600}.items():
        path = root / name
        try:
            status = path.lstat()
        except OSError as exc:
            hidden = isinstance(exc, PermissionError) and os.geteuid() not in {0, owner}
            faults += [] if hidden else [f"{path}: {exc.strerror}"]
            continue
        is_expected = stat.S_ISREG if name == "lock" else stat.S_ISDIR
        if not is_expected(status.st_mode):
            faults.append(f"{path}: is neither a directory nor the lock, or is a link")
        elif (status.st_uid, status.st_gid) != (owner, group):
            faults.append(
                f"{path}: belongs to {status.st_uid}:{status.st_gid},"
                f" not {owner}:{group}"
            )
        elif stat.S_IMODE(status.st_mode) != mode:
            faults.append(
                f"{path}: mode {stat.S_IMODE(status.st_mode):o}, not {mode:o}"
            )
    return faults


def find_unreadable_entries(
    root: Path, owner: int, groups: Collection[int]
) -> list[str]:
    """Return the entries that the relay may not read, each as path, owner and mode.

    The relay never publishes such an entry. Access control lists are not evaluated.

    Args:
        root: the spool's directory.
        owner: user id of the relay, which drains as the spool's owner.
        groups: that user's group ids.

    Raises:
        SpoolError: the spool cannot be read.
    """
    unreadable = []
    try:
        for digit in DIGITS:
            with os.scandir(root / "incoming/new" / digit) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):  # published meanwhile
                        status = entry.stat(follow_symlinks=False)
                        if not _may_read(status, owner, groups):
                            unreadable.append(
                                f"{entry.path} ({status.st_uid}:{status.st_gid},"
                                f" mode {stat.S_IMODE(status.st_mode):o})"
                            )
    except OSError as exc:
        raise SpoolError(f"{root}: {exc}") from exc
    return unreadable


def _may_read(status: os.stat_result, user: int, groups: Collection[int]) -> bool:
    if user in (0, status.st_uid):
        return user == 0 or bool(status.st_mode & stat.S_IRUSR)
    if status.st_gid in groups:
        return bool(status.st_mode & stat.S_IRGRP)
    return bool(status.st_mode & stat.S_IROTH)


@contextmanager
def _open_directory(root: Path, name: str) -> Iterator[int]:
    """Yield a descriptor of a directory of the spool; create it if it is missing.

    Raises:
        OSError: it, or one of its parents, is a link or another file type.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with ExitStack() as stack:

        def open_child(part: str, parent: int | None) -> int:
            with suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=parent)
            fd = os.open(part, flags, dir_fd=parent)
            stack.callback(os.close, fd)
            return fd

        fd = open_child(str(root), None)
        for part in Path(name).parts:
            fd = open_child(part, fd)
        yield fd


def _make_lock(root: Path, directory: int, owner: int, group: int) -> None:
    # Never removed: two processes could hold the locks of two files of this name.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with suppress(FileExistsError):
        new = os.open("lock", flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
        try:
            os.fchown(new, owner, group)
        finally:
            os.close(new)
    fd = os.open("lock", flags, dir_fd=directory)
    try:
        status = os.fstat(fd)
        # With a hard link, the owner could get the rights to another user's file.
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise SpoolError(
                f"{root}/lock: is not a regular file with one name; remove it"
            )
        # The owner could also move a file of root here from another directory.
        if status.st_uid not in {owner, os.fstat(directory).st_uid}:
            raise SpoolError(
                f"{root}/lock: belongs to {status.st_uid}, not to {owner}; stop the"
                " relay, and remove it"
            )
        _set_rights(fd, owner, group, 0o600)
    finally:
        os.close(fd)


def _set_rights(fd: int, owner: int, group: int, mode: int) -> None:
    status = os.fstat(fd)
    if (status.st_uid, status.st_gid) != (owner, group):
        os.fchown(fd, owner, group)
    os.fchmod(fd, mode)  # after fchown, which may clear the setgid bit
