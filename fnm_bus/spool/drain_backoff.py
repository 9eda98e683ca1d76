"""Back-off: after a failed drain the next calls do not try again for a while.

Without a back-off each call would wait for its drain timeout as long as Kafka is
unreachable. Times count from the boot, on a clock that does not jump. The hook reads
the same file before it starts a drain (`python_hook.backoff_seconds_left`).
"""

from pathlib import Path
from typing import Final

from fnm_bus.errors import SpoolError
from fnm_bus.hook import python_hook

_FIRST: Final = 1
_LONGEST: Final = 60
"""Seconds without an attempt, after the first failure and at most."""


class Backoff:
    """Counts the consecutive failed drains of a spool.

    Args:
        root: the spool's directory.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = root / "state" / "backoff"

    def seconds_left(self) -> float:
        """Return the seconds until the next drain may be tried; 0.0 for now."""
        return python_hook.backoff_seconds_left(str(self._root))

    def record_failure(self) -> float:
        """Count a failed drain; return the seconds until the next may be tried.

        Raises:
            SpoolError: the file cannot be written.
        """
        failures = self._failures() + 1
        pause = min(_FIRST << min(failures - 1, 16), _LONGEST)
        until = python_hook.uptime_ticks() + pause * python_hook.TICKS_PER_SECOND
        temporary = self._path.with_name(".backoff")
        try:
            # Not synced: its loss costs one attempt.
            temporary.write_text(f"{python_hook.boot_id()} {until} {failures}\n")
            temporary.replace(self._path)
        except OSError as exc:
            raise SpoolError(f"{self._path}: {exc}") from exc
        return float(pause)

    def clear(self) -> None:
        """Reset the count after a successful drain.

        Raises:
            SpoolError: the file cannot be removed.
        """
        try:
            self._path.unlink(missing_ok=True)
        except OSError as exc:
            raise SpoolError(f"{self._path}: {exc}") from exc

    def _failures(self) -> int:
        try:
            boot, _until, failures = self._path.read_text().split()
        except (OSError, ValueError):  # missing or damaged: count from 0
            return 0
        if boot != python_hook.boot_id() or not failures.isdecimal():
            return 0
        return int(failures)
