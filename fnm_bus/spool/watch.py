"""Watch: wait for new entries in the spool.

Uses inotify(7) through the C library: an entry appears by a rename, which is one event.
If the kernel's limits leave no inotify instance, the modification times of the
directories are read every 20 ms instead.
"""

import ctypes
import errno
import os
import select
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_IN_CREATE: Final = 0x100
_IN_MOVED_TO: Final = 0x80
_IN_ONLYDIR: Final = 0x01000000
_MASK: Final = _IN_CREATE | _IN_MOVED_TO | _IN_ONLYDIR
_POLL: Final = 0.02
"""Seconds between two reads of the modification times, without inotify."""
_SETTLED: Final = 50_000_000
"""Nanoseconds after which a second change gets another modification time."""


class Watch:
    """Waits for new files in directories. Opens nothing before its first use.

    Args:
        directories: directories of entries.

    Attributes:
        inotify_error: why inotify is not used, or "".
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self.inotify_error = ""
        self._directories = tuple(directories)
        self._woken = False
        self._changed = True
        self._event = self._inotify = -1
        self._times: dict[Path, int] = {}

    def has_changed(self) -> bool:
        """Return whether a file may have appeared since the last call.

        The first call returns True, for the files that exist already.
        """
        self._start()
        self._update()
        changed, self._changed = self._changed, False
        return changed

    def wait(self, seconds: float) -> bool:
        """Wait for a change or for `wake`; return False after a timeout.

        Args:
            seconds: the longest time to wait.
        """
        self._start()
        end = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._event, select.POLLIN)
        if self._inotify >= 0:
            poll.register(self._inotify, select.POLLIN)
        while True:
            self._update()
            seconds_left = end - time.monotonic()
            if self._changed or self._woken or seconds_left <= 0:
                woken, self._woken = self._woken, False
                return woken or self._changed
            if self.inotify_error:
                seconds_left = min(seconds_left, _POLL)
            poll.poll(1000 * seconds_left)
            self._read_all(self._event)

    def wake(self) -> None:
        """End the current or the next `wait`; may be called from a signal handler."""
        self._woken = True
        if self._event >= 0:
            os.eventfd_write(self._event, 1)

    def close(self) -> None:
        """Close the descriptors; the watch can be used again."""
        for fd in (self._event, self._inotify):
            if fd >= 0:
                os.close(fd)
        self._event = self._inotify = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self) -> None:
        if self._event >= 0:
            return
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._changed = True
        self.inotify_error = ""
        try:
            self._inotify = _open_inotify(self._directories)
        except OSError as exc:
            self.inotify_error = f"inotify: {exc}"

    def _update(self) -> None:
        if self._inotify >= 0:
            self._changed |= self._read_all(self._inotify)
            return
        for path in self._directories:
            try:
                changed_at = path.stat().st_mtime_ns
            except OSError:  # the scan reports the error
                changed_at = -1
            if self._times.get(path) != changed_at:
                self._changed = True
                # Times of files are coarse: read it again when it is older.
                settled = abs(time.time_ns() - changed_at) > _SETTLED
                self._times[path] = changed_at if settled else 0

    @staticmethod
    def _read_all(fd: int) -> bool:
        """Read all pending events; return whether there were any."""
        any_event = False
        with suppress(BlockingIOError):
            while os.read(fd, 65_536):
                any_event = True
        return any_event


def _open_inotify(directories: Sequence[Path]) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    if fd < 0:
        raise _error()
    for path in directories:
        if libc.inotify_add_watch(fd, os.fsencode(path), _MASK) < 0:
            error = _error(path)
            os.close(fd)
            raise error
    return fd


def _error(path: Path | None = None) -> OSError:
    number = ctypes.get_errno()
    text = os.strerror(number)
    if number == errno.ENOSPC:
        text = "the limit fs.inotify.max_user_watches is reached"
    return OSError(number, text, str(path) if path else None)
