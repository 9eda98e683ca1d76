"""The spool's lock: who holds it drains, and only the spool's owner may."""

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from fnm_bus.errors import SpoolError
from fnm_bus.hook import python_hook


class Lock:
    """A lock that is held; a context manager that releases it.

    The kernel releases it when the process ends, however that comes about.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        """Let others drain; nothing when it is released already."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with suppress(OSError):  # whatever close says, it is closed (close(2))
                os.close(fd)

    def is_at(self, path: Path) -> bool:
        """Return whether the file at *path* is the one that is locked.

        False when the spool was moved away, or another one is in its place: then
        another process may hold the lock of that one.
        """
        try:
            here, there = os.fstat(self._fd), path.stat(follow_symlinks=False)
        except OSError:
            return False
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def take(path: Path) -> Lock | None:
    """Return the lock, held by this process, or None when another one holds it.

    A hook that starts a drain hands its lock over (`python_hook.LOCK_FD`); the first
    call takes that one.

    Raises:
        SpoolError: there is no lock file, or this process is not its owner's.
    """
    fd = _handed_over(path)
    if fd is None:
        fd = _open(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError as exc:
        os.close(fd)
        raise SpoolError(f"{path}: {exc}") from exc
    return Lock(fd)


def held(path: Path) -> bool:
    """Return whether some process holds the lock.

    Raises:
        SpoolError: there is no lock file, or this process may not open it.
    """
    try:
        fd = _open_for(os.O_RDONLY, path)
    except OSError as exc:
        raise SpoolError(f"{path}: {exc}") from exc
    try:
        _check_regular(fd, path)
        # Shared, and gone at once: a relay that starts now tries again.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _open(path: Path) -> int:
    # Without O_CREAT: a lock file is made once, at set-up, and never removed, so that
    # no two processes can hold the locks of two files of one name.
    try:
        fd = _open_for(os.O_RDWR, path)
    except FileNotFoundError as exc:
        raise SpoolError(f"{path}: missing; set the spool up first") from exc
    except OSError as exc:
        raise SpoolError(f"{path}: {exc}; only the spool's owner drains") from exc
    try:
        owner = _check_regular(fd, path).st_uid
    except SpoolError:
        os.close(fd)
        raise
    if owner != os.geteuid():
        os.close(fd)
        raise SpoolError(
            f"{path}: belongs to uid {owner}, this is {os.geteuid()}: only the spool's"
            " owner drains"
        )
    return fd


def _check_regular(fd: int, path: Path) -> os.stat_result:
    """Return what fstat(2) returns of a lock.

    Raises:
        SpoolError: it is no regular file, so nobody's lock.
    """
    try:
        facts = os.fstat(fd)
    except OSError as exc:
        raise SpoolError(f"{path}: {exc}") from exc
    if not stat.S_ISREG(facts.st_mode):
        raise SpoolError(f"{path}: is not a regular file; remove it, set the spool up")
    return facts


def _open_for(access: int, path: Path) -> int:
    # O_NONBLOCK: a named pipe in the lock's place is not waited for.
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, access | flags)
    except OSError as exc:
        if exc.errno != errno.EROFS:
            raise
        # Enough for the lock, but not on NFS (flock(2)); the fallback spool is drained.
        return _open_for(os.O_RDONLY, path)


def _handed_over(path: Path) -> int | None:
    text = os.environ.get(python_hook.LOCK_FD, "")
    if not text.isdecimal():
        return None
    fd = int(text)
    try:
        mine, wanted = os.fstat(fd), path.stat()
    except OSError:  # not ours, or of another spool: open it as everybody does
        return None
    if (mine.st_dev, mine.st_ino) != (wanted.st_dev, wanted.st_ino):
        return None
    del os.environ[python_hook.LOCK_FD]
    os.set_inheritable(fd, False)  # noqa: FBT003 - its only signature
    return fd
