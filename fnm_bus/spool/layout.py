"""The spool's directories: who may do what in them.

    ROOT                 rwxr-s---  owner, group
    ROOT/full            rw-r-----  made while the spool refuses, by whoever drains
    ROOT/lock            rw-------  only the owner can open it, so only he can hold it
    ROOT/incoming        rwxr-x---
    ROOT/incoming/tmp    rwxrws--T  the group adds; what is there has its maker's owner
    ROOT/incoming/new    rwxr-x---
      .../new/0 .. f     rwxrws--T  likewise
    ROOT/quarantine      rwx------
    ROOT/state           rwx------

FastNetMon's user is in the group. The sticky bit lets it rename and remove its own
files only; the owner of a directory may remove all in it. The setgid bit gives files
the group of the directory, so the owner can read them.
"""

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from fnm_bus.errors import SpoolError

DIGITS: Final = "0123456789abcdef"
_GROUP_ADDS: Final = 0o3770
_MODES: Final = {
    ".": 0o2750,
    "incoming": 0o750,
    "incoming/tmp": _GROUP_ADDS,
    "incoming/new": 0o750,
    **{f"incoming/new/{digit}": _GROUP_ADDS for digit in DIGITS},
    "quarantine": 0o700,
    "quarantine/odd": 0o700,
    "quarantine/untold": 0o700,
    "state": 0o700,
}


def make(root: Path, owner: int, group: int) -> None:
    """Make a spool's directories and its lock, or correct their rights.

    Root calls this on directories of another user, who may replace any of them by a
    link at any moment. So each is opened by its name in the one above, never through a
    link, and what was opened is what is changed.

    Raises:
        SpoolError: one of them cannot be made, or is something else, such as a link.
    """
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        # First, as long as the directory is still that of who put a lock there.
        with _directory(root, ".") as fd:
            _make_lock(root, fd, owner, group)
        for name, mode in _MODES.items():
            with _directory(root, name) as fd:
                _give(fd, owner, group, mode)
    except OSError as exc:
        raise SpoolError(f"cannot set up the spool {root}: {exc}") from exc


def faults(root: Path, owner: int, group: int) -> list[str]:
    """Return what is wrong with a spool's directories, a sentence each.

    Another than the owner or root is not told of those that he may not look at.
    """
    found = []
    for name, mode in {**_MODES, "lock": 0o600}.items():
        path = root / name
        try:
            facts = path.lstat()
        except OSError as exc:
            hidden = isinstance(exc, PermissionError) and os.geteuid() not in {0, owner}
            found += [] if hidden else [f"{path}: {exc.strerror}"]
            continue
        kind = stat.S_ISREG if name == "lock" else stat.S_ISDIR
        if not kind(facts.st_mode):
            found.append(f"{path}: is neither a directory nor the lock, or is a link")
        elif (facts.st_uid, facts.st_gid) != (owner, group):
            found.append(
                f"{path}: belongs to {facts.st_uid}:{facts.st_gid}, not {owner}:{group}"
            )
        elif stat.S_IMODE(facts.st_mode) != mode:
            found.append(f"{path}: mode {stat.S_IMODE(facts.st_mode):o}, not {mode:o}")
    return found


def unreadable(root: Path, owner: int, groups: Collection[int]) -> list[str]:
    """Return the entries that the relay may not read, a path with its rights each.

    Such an entry stays in the spool for good. Access control lists are not looked at.

    Args:
        root: the spool's directory.
        owner: user id of the relay, which drains as the spool's owner.
        groups: that user's group ids.

    Raises:
        SpoolError: the spool cannot be read.
    """
    found = []
    try:
        for digit in DIGITS:
            with os.scandir(root / "incoming/new" / digit) as items:
                for item in items:
                    with suppress(FileNotFoundError):  # the relay has it now
                        facts = item.stat(follow_symlinks=False)
                        if not _may_read(facts, owner, groups):
                            found.append(
                                f"{item.path} ({facts.st_uid}:{facts.st_gid},"
                                f" mode {stat.S_IMODE(facts.st_mode):o})"
                            )
    except OSError as exc:
        raise SpoolError(f"{root}: {exc}") from exc
    return found


def _may_read(facts: os.stat_result, user: int, groups: Collection[int]) -> bool:
    if user in (0, facts.st_uid):
        return user == 0 or bool(facts.st_mode & stat.S_IRUSR)
    if facts.st_gid in groups:
        return bool(facts.st_mode & stat.S_IRGRP)
    return bool(facts.st_mode & stat.S_IROTH)


@contextmanager
def _directory(root: Path, name: str) -> Iterator[int]:
    """Yield a descriptor of a directory of the spool, which is made where missing.

    Raises:
        OSError: it, or a directory above it, is a link or something else.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with ExitStack() as opened:

        def enter(part: str, above: int | None) -> int:
            with suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=above)
            fd = os.open(part, flags, dir_fd=above)
            opened.callback(os.close, fd)
            return fd

        fd = enter(str(root), None)
        for part in Path(name).parts:
            fd = enter(part, fd)
        yield fd


def _make_lock(root: Path, directory: int, owner: int, group: int) -> None:
    # Never removed, and never made by anyone else: a lock on another file of the same
    # name would be worth nothing.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with suppress(FileExistsError):
        new = os.open("lock", flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
        try:
            os.fchown(new, owner, group)
        finally:
            os.close(new)
    fd = os.open("lock", flags, dir_fd=directory)
    try:
        facts = os.fstat(fd)
        # A second name would be that of a file which the owner wants to be his.
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
            raise SpoolError(
                f"{root}/lock: is not a regular file with one name; remove it"
            )
        # He can also have moved a file of root's here, out of a directory of his.
        if facts.st_uid not in {owner, os.fstat(directory).st_uid}:
            raise SpoolError(
                f"{root}/lock: belongs to {facts.st_uid}, not to {owner}; stop the"
                " relay, and remove it"
            )
        _give(fd, owner, group, 0o600)
    finally:
        os.close(fd)


def _give(fd: int, owner: int, group: int, mode: int) -> None:
    facts = os.fstat(fd)
    if (facts.st_uid, facts.st_gid) != (owner, group):
        os.fchown(fd, owner, group)
    os.fchmod(fd, mode)  # after fchown, which may clear the setgid bit
