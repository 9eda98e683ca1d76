"""The sixteen directories of entries: `incoming/new/0` to `f`."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from fnm_bus.errors import SpoolError
from fnm_bus.spool import layout
from fnm_bus.spool.entry_name import is_entry_name

_SETTLED: Final = 50_000_000
"""Nanoseconds; the clock of files ticks every 1 to 10 ms."""


class Listing(NamedTuple):
    """The entries in one directory.

    Attributes:
        changed_at: modification time of the directory (ns) before it was read.
        settled: whether a later change will have another modification time; the clock
            of files is coarse.
        names: names of the entries.
    """

    changed_at: int
    settled: bool
    names: list[str]


class EntryDirectories:
    """The directories of entries in a spool; skips unreadable ones.

    Args:
        root: the spool's directory.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._new = f"{root}/incoming/new"
        self._error = ""

    def paths(self) -> list[Path]:
        """Return the directories."""
        return [Path(self._new, digit) for digit in layout.DIGITS]

    def directory_of(self, name: str) -> str:
        """Return the directory of the entry *name*."""
        return f"{self._new}/{name[-1]}"

    def check_readable(self) -> None:
        """Report a directory that the last `for_each` or `read` could not read.

        Raises:
            SpoolError: a directory could not be read.
        """
        if self._error:
            raise SpoolError(self._error)

    def for_each(self, work: Callable[[str, str], None]) -> None:
        """Call *work* with the digit and path of each directory.

        Raises:
            SpoolError: it failed for all of them.
        """
        errors: list[OSError] = []
        for digit in layout.DIGITS:
            try:
                work(digit, f"{self._new}/{digit}")
            except OSError as exc:
                errors.append(exc)
        self._error = f"{self._root}: {errors[0]}" if errors else ""
        if len(errors) == len(layout.DIGITS):
            self.check_readable()

    def read(self, previous: Mapping[str, Listing]) -> dict[str, Listing]:
        """Return the listings by digit; unchanged ones are those of *previous*.

        Raises:
            SpoolError: no directory can be read.
        """
        listings: dict[str, Listing] = {}

        def add(digit: str, path: str) -> None:
            listings[digit] = _read(digit, path, previous.get(digit))

        self.for_each(add)
        return listings


def _read(digit: str, path: str, previous: Listing | None) -> Listing:
    changed_at = os.stat(path).st_mtime_ns  # noqa: PTH116 - strings are faster
    if previous and previous.settled and previous.changed_at == changed_at:
        return previous
    settled = time.time_ns() - changed_at > _SETTLED
    names = os.listdir(path)  # noqa: PTH208 - strings are faster
    return Listing(
        changed_at,
        settled,
        [name for name in names if name[-1] == digit and is_entry_name(name)],
    )
