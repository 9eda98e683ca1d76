"""Watch: wait until something appears in the spool.

inotify(7) through the C library: an entry appears by a rename, which is one event.
Where the kernel's limits leave no inotify instance, the directories' modification
times are looked at every 20 ms instead.
"""

import ctypes
import errno
import os
import select
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_IN_CREATE: Final = 0x100
_IN_MOVED_TO: Final = 0x80
_IN_ONLYDIR: Final = 0x01000000
_MASK: Final = _IN_CREATE | _IN_MOVED_TO | _IN_ONLYDIR
_POLL: Final = 0.02
"""Seconds between two looks without inotify."""
_SETTLED: Final = 50_000_000
"""Nanoseconds after which a modification time cannot stand for a second change."""


class Watch:
    """Says when something appears in directories. Opens nothing before its first use.

    Args:
        directories: in which entries appear.

    Attributes:
        polling: why inotify is not used, or "".
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self.polling = ""
        self._directories = tuple(directories)
        self._woken = False
        self._changed = True
        self._event = self._inotify = -1
        self._times: dict[Path, int] = {}

    def changed(self) -> bool:
        """Return whether anything may have appeared since the last call.

        True the first time, so that what was there before is found.
        """
        self._start()
        self._look()
        changed, self._changed = self._changed, False
        return changed

    def wait(self, seconds: float) -> bool:
        """Wait until `changed` would be true, or `wake`; return whether either was.

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
            self._look()
            left = end - time.monotonic()
            if self._changed or self._woken or left <= 0:
                woken, self._woken = self._woken, False
                return woken or self._changed
            poll.poll(1000 * (min(left, _POLL) if self.polling else left))
            self._clear(self._event)

    def wake(self) -> None:
        """End a `wait`, this one or the next; may be called from a signal handler."""
        self._woken = True
        if self._event >= 0:
            os.eventfd_write(self._event, 1)

    def close(self) -> None:
        """Release what the first use opened; the watch can be used again."""
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
        self.polling = ""
        try:
            self._inotify = _inotify(self._directories)
        except OSError as exc:
            self.polling = f"inotify: {exc}"

    def _look(self) -> None:
        if self._inotify >= 0:
            self._changed |= self._clear(self._inotify)
            return
        for path in self._directories:
            try:
                changed_at = path.stat().st_mtime_ns
            except OSError:  # whoever scans it then finds out what is wrong
                changed_at = -1
            if self._times.get(path) != changed_at:
                self._changed = True
                # The clock of files is coarse: look again when it has moved on.
                settled = abs(time.time_ns() - changed_at) > _SETTLED
                self._times[path] = changed_at if settled else 0

    @staticmethod
    def _clear(fd: int) -> bool:
        some = False
        try:
            while os.read(fd, 65_536):
                some = True
        except BlockingIOError:
            return some
        return some


def _inotify(directories: Sequence[Path]) -> int:
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
