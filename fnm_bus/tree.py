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
    """Make a spool's directories and its lock, or set their rights right.

    Raises:
        SpoolError: one of them cannot be made, or is something else, such as a link.
    """
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        for name, mode in _MODES.items():
            path = root / name
            if not path.is_symlink() and not path.exists():
                path.mkdir(mode=0o700)
            _give(path, os.O_DIRECTORY, owner, group, mode)
        # Never removed, and never made by anyone else: a lock on another file of the
        # same name would be worth nothing.
        path = root / "lock"
        if not path.is_symlink() and not path.exists():
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        _give(path, 0, owner, group, 0o600)
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


def _give(path: Path, flags: int, owner: int, group: int, mode: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | flags)
    try:
        facts = os.fstat(fd)
        if not flags and not stat.S_ISREG(facts.st_mode):
            raise SpoolError(f"{path}: not a regular file")
        if (facts.st_uid, facts.st_gid) != (owner, group):
            os.fchown(fd, owner, group)
        os.fchmod(fd, mode)  # after fchown, which may clear the setgid bit
    finally:
        os.close(fd)
