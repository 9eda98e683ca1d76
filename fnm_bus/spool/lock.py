"""The spool's lock: its holder drains; only the spool's owner may take it."""

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
    """A held lock; a context manager that releases it.

    The kernel releases the lock when the process ends, even if it is killed.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        """Release the lock; do nothing if it is released already."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with suppress(OSError):  # close(2) closes the descriptor even if it fails
                os.close(fd)

    def is_at(self, path: Path) -> bool:
        """Return whether the file at *path* is the locked one.

        False if the spool was moved or replaced. Another process may then hold the lock
        of the new one.
        """
        try:
            return _same_file(os.fstat(self._fd), path.stat(follow_symlinks=False))
        except OSError:
            return False

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
    """Take the lock; return None if another process holds it.

    The first call in a drain that a hook started takes over the hook's lock
    (`python_hook.LOCK_FD`).

    Raises:
        SpoolError: the lock file is missing, or belongs to another user.
    """
    fd = _inherited(path)
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


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock.

    Raises:
        SpoolError: the lock file is missing, or this process may not open it.
    """
    try:
        fd = _open_for(os.O_RDONLY, path)
    except OSError as exc:
        raise SpoolError(f"{path}: {exc}") from exc
    try:
        _check_regular(fd, path)
        # Released at once; a relay that starts at this moment tries again.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _open(path: Path) -> int:
    # Without O_CREAT: two processes could hold the locks of two files of this name.
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
            f"{path}: belongs to uid {owner}, this is {os.geteuid()}; only the spool's"
            " owner drains"
        )
    return fd


def _check_regular(fd: int, path: Path) -> os.stat_result:
    """Return the lock file's status.

    Raises:
        SpoolError: it is not a regular file.
    """
    try:
        status = os.fstat(fd)
    except OSError as exc:
        raise SpoolError(f"{path}: {exc}") from exc
    if not stat.S_ISREG(status.st_mode):
        raise SpoolError(f"{path}: is not a regular file; remove it, set the spool up")
    return status


def _open_for(access: int, path: Path) -> int:
    # O_NONBLOCK: opening a planted pipe would block.
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, access | flags)
    except OSError as exc:
        if exc.errno != errno.EROFS:
            raise
        # Read-only file system: enough for flock(2), except on NFS.
        return _open_for(os.O_RDONLY, path)


def _inherited(path: Path) -> int | None:
    text = os.environ.get(python_hook.LOCK_FD, "")
    if not text.isdecimal():
        return None
    fd = int(text)
    try:
        if not _same_file(os.fstat(fd), path.stat()):
            return None
    except OSError:  # a closed descriptor, or another spool
        return None
    del os.environ[python_hook.LOCK_FD]
    os.set_inheritable(fd, False)  # noqa: FBT003 - its only signature
    return fd


def _same_file(first: os.stat_result, second: os.stat_result) -> bool:
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
