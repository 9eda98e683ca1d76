"""End a process that hangs, where no service manager watches it."""

import faulthandler
from time import monotonic
from typing import Final

_TIMEOUT: Final = 60.0
"""Seconds; twice systemd's WatchdogSec=, so that systemd acts first."""


class HangGuard:
    """Ends the process, with its stack on stderr, unless `reset` is called in time.

    The guard works even if code in C blocks all threads of Python.

    Args:
        seconds: the longest time between two calls of `reset`.
    """

    def __init__(self, seconds: float = _TIMEOUT) -> None:
        self._seconds = seconds
        self._next_reset = 0.0

    def reset(self) -> None:
        """Start the timeout again; the first call starts the guard."""
        now = monotonic()
        if now >= self._next_reset:
            faulthandler.dump_traceback_later(self._seconds, exit=True)
            self._next_reset = now + self._seconds / 60

    def close(self) -> None:
        """Stop the guard until the next `reset`."""
        faulthandler.cancel_dump_traceback_later()
        self._next_reset = 0.0
