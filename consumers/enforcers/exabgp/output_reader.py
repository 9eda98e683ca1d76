"""The thread that reads ExaBGP's output.

ExaBGP blocks if a process does not read. Listings and answers go to a queue, one line
an item. Events of the BGP session may come at any time, and update its state.
"""

import fcntl
import logging
import os
import queue
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from consumers.enforcers.exabgp import neighbor
from consumers.enforcers.exabgp.neighbor import Neighbor
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_F_SETPIPE_SZ: Final = 1031
_PIPE_SIZE: Final = 1 << 20
"""Bytes that ExaBGP can write while this process is stopped: 3,000 events."""
_READ_SIZE: Final = 1 << 16


class OutputReader:
    """Reads ExaBGP's output.

    Attributes:
        lines: the listings and answers; an empty line once ExaBGP has exited.
        exited: set when ExaBGP has exited.
        neighbor: the BGP session, once ExaBGP has reported it.
    """

    def __init__(self, descriptor: int) -> None:
        self.lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.exited = threading.Event()
        self.neighbor: Neighbor | None = None
        self._descriptor = descriptor
        self._thread: threading.Thread | None = None
        self._wake: tuple[int, int] | None = None

    def open(self, on_exit: Callable[[], None] | None = None) -> None:
        """Start the thread, unless it runs.

        Args:
            on_exit: called from the thread when ExaBGP has exited.
        """
        if self._thread is not None:
            return
        with suppress(OSError):  # not a pipe, or above this user's limit
            fcntl.fcntl(self._descriptor, _F_SETPIPE_SZ, _PIPE_SIZE)
        self._wake = os.pipe()
        self._thread = threading.Thread(
            target=self._read, args=(self._wake[0], on_exit), name="exabgp", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End the thread; the descriptor stays open, since the process owns it."""
        if self._thread is None or self._wake is None:
            return
        os.write(self._wake[1], b".")
        self._thread.join()
        for descriptor in self._wake:
            os.close(descriptor)
        self._thread = self._wake = None

    def _read(self, wake: int, on_exit: Callable[[], None] | None) -> None:
        rest, is_answered = b"", False
        while True:
            if wake in select.select([self._descriptor, wake], [], [])[0]:
                return
            try:
                data = os.read(self._descriptor, _READ_SIZE)
            except OSError:
                data = b""
            if not data:
                self.exited.set()
                self.lines.put(b"")
                if on_exit is not None:
                    on_exit()
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                # The answers to an earlier process come before our first one.
                is_answered = is_answered or line.startswith(b"[")
                if line.startswith(b'{ "exabgp"'):
                    self._update(neighbor.parse_event(line))
                elif is_answered and line:
                    if line.startswith(b"["):
                        with suppress(ValueError):
                            self._update(Neighbor(neighbor.parse_listing(line).up))
                    self.lines.put(line)

    def _update(self, latest: Neighbor | None) -> None:
        if latest is None or (self.neighbor and self.neighbor.up == latest.up):
            return
        self.neighbor = latest
        level = logging.INFO if latest.up else logging.WARNING
        reason = latest.reason or None
        log.log(level, "neighbor_up" if latest.up else "neighbor_down", reason=reason)
