"""Back-off: after a drain that failed, the next calls do not try for a while.

An hour without Kafka must not cost each call its deadline. The time is counted on a
clock that does not jump, since the boot; the hook reads the same file before it starts
a drain at all (`fnm_bus.hook.python_hook.pause_left`).
"""

from pathlib import Path
from typing import Final

from fnm_bus.errors import SpoolError
from fnm_bus.hook import python_hook

_FIRST: Final = 1
_LONGEST: Final = 60
"""Seconds without an attempt, after the first failure and at most."""


class Backoff:
    """Counts the drains of a spool that failed one after another.

    Args:
        root: the spool's directory.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = root / "state" / "backoff"

    def pausing(self) -> float:
        """Return the seconds for which no drain is to be tried; 0.0 when one may."""
        return python_hook.backoff_seconds_left(str(self._root))

    def failed(self) -> float:
        """Note a drain that failed; return the seconds until the next may be tried.

        Raises:
            SpoolError: the note cannot be written.
        """
        failures = self._failures() + 1
        pause = min(_FIRST << min(failures - 1, 16), _LONGEST)
        until = python_hook.uptime_ticks() + pause * python_hook.TICKS_PER_SECOND
        temporary = self._path.with_name(".backoff")
        try:
            # Not synced: lost, it costs one attempt.
            temporary.write_text(f"{python_hook.boot_id()} {until} {failures}\n")
            temporary.replace(self._path)
        except OSError as exc:
            raise SpoolError(f"{self._path}: {exc}") from exc
        return float(pause)

    def clear(self) -> None:
        """Forget all failures, after a drain that succeeded.

        Raises:
            SpoolError: the note cannot be removed.
        """
        try:
            self._path.unlink(missing_ok=True)
        except OSError as exc:
            raise SpoolError(f"{self._path}: {exc}") from exc

    def _failures(self) -> int:
        try:
            boot, _until, failures = self._path.read_text().split()
        except (OSError, ValueError):  # none, or no longer readable: begin anew
            return 0
        return (
            int(failures)
            if boot == python_hook.boot_id() and failures.isdecimal()
            else 0
        )
