"""A guard against a process that hangs, for where no service manager watches it."""

import faulthandler
from time import monotonic
from typing import Final

_LONGEST: Final = 60.0
"""Seconds; twice systemd's WatchdogSec=, which acts first where there is one."""


class HangGuard:
    """Ends the process, with its stack on stderr, when no sign of life comes.

    It acts even when code in C never lets another thread of Python run.

    Args:
        seconds: the longest time between two signs of life.
    """

    def __init__(self, seconds: float = _LONGEST) -> None:
        self._seconds = seconds
        self._next = 0.0

    def alive(self) -> None:
        """Note a sign of life; the first one starts the guard."""
        now = monotonic()
        if now >= self._next:
            faulthandler.dump_traceback_later(self._seconds, exit=True)
            self._next = now + self._seconds / 60

    def close(self) -> None:
        """Stop guarding, until the next sign of life."""
        faulthandler.cancel_dump_traceback_later()
        self._next = 0.0
