"""The note of the entries that are being read, for the process that comes after.

A process that dies while it reads entries cannot report which one killed it. The note
names the few that it was reading. It is written once per batch and not synced: the
kernel keeps it when a process dies, and after a loss of power nothing is suspected.
"""

import os
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path

from fnm_bus.errors import SpoolError
from fnm_bus.spool.entry_name import is_entry_name

_MOST = 1 << 20
"""Bytes of the file that are read: the names of 15,000 entries."""


class ReadingNote:
    """A small file, written in place. Nothing is opened before the first method.

    Args:
        path: the file, `state/reading` of the spool.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def read(self) -> frozenset[str]:
        """Return the names in the note; none where there is no note.

        Raises:
            SpoolError: the note exists and cannot be read.
        """
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return frozenset()
        except OSError as exc:
            raise SpoolError(f"{self._path}: {exc}; remove it") from exc
        try:
            text = os.read(fd, _MOST).decode("ascii", "replace")
        except OSError as exc:
            raise SpoolError(f"{self._path}: {exc}; remove it") from exc
        finally:
            os.close(fd)
        # An empty line ends it: what follows is of an earlier, longer note.
        lines = takewhile(bool, text.split("\n"))
        return frozenset(filter(is_entry_name, lines))

    def write(self, names: Iterable[str]) -> None:
        """Replace the note's names.

        Raises:
            SpoolError: it cannot be written; the old names, or some of both, are in it.
        """
        data = "".join(f"{name}\n" for name in names).encode() + b"\n"
        try:
            if self._fd < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                self._fd = os.open(self._path, flags, 0o600)
            os.pwrite(self._fd, data, 0)
        except OSError as exc:
            raise SpoolError(f"{self._path}: {exc}") from exc

    def close(self) -> None:
        """Release the file; the note can be used again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
