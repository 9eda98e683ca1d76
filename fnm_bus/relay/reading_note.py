"""The names of the entries that are being read, on disk for the next process.

A process that dies while it reads entries cannot report the entry that killed it. The
note contains the few entries that it was reading. It is written once per batch and not
synced: the kernel keeps it when a process dies, and after a power loss no entry is
suspected.
"""

import os
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path

from fnm_bus.errors import SpoolError
from fnm_bus.spool.entry_name import is_entry_name

_MAX_SIZE = 1 << 20
"""Most bytes that are read from the file: the names of 15,000 entries."""


class ReadingNote:
    """A small file, written in place. No file is opened before the first method.

    Args:
        path: the file, `state/reading` of the spool.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def read(self) -> frozenset[str]:
        """Return the names in the note; an empty set if the file does not exist.

        Raises:
            SpoolError: the file exists and is unreadable.
        """
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return frozenset()
        except OSError as exc:
            raise SpoolError(f"{self._path}: {exc}; remove it") from exc
        try:
            text = os.read(fd, _MAX_SIZE).decode("ascii", "replace")
        except OSError as exc:
            raise SpoolError(f"{self._path}: {exc}; remove it") from exc
        finally:
            os.close(fd)
        # An empty line ends the note; later lines are of an earlier, longer note.
        lines = takewhile(bool, text.split("\n"))
        return frozenset(filter(is_entry_name, lines))

    def write(self, names: Iterable[str]) -> None:
        """Replace the note's names.

        Raises:
            SpoolError: the write failed; the file has the old names, or some of both.
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
        """Close the file; the note can be used again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
