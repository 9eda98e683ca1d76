"""Lines: what is appended to a file or to stdout, whole and on disk, or kept.

The file may be moved away or cut by a log rotation, and several programs may append to
it. A batch is written under a lock, and all of it or nothing: what does not fit on the
disk is taken back, for half a line is worse than none.
"""

import fcntl
import os
import stat
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from fnm_bus import atomic_file
from fnm_bus.consume.handler import AbortConsumer, RetryLater
from fnm_bus.errors import ConfigError

_MOST: Final = 10_000
_MOST_BYTES: Final = 64 << 20
"""Lines, and their bytes, that may wait to be written."""
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class Lines:
    """Appends lines.

    Args:
        path: the file; None is stdout.
        fsync: whether `settle` waits until they are on disk.
    """

    def __init__(self, path: Path | None, *, fsync: bool) -> None:
        self._path = path
        self._name = "stdout" if path is None else str(path)
        self._fsync = fsync
        self._fd: int | None = None
        self._waiting: deque[bytes] = deque()
        self._bytes = 0

    def open(self) -> None:
        """Open the file; `settle` would do it, too.

        Raises:
            ConfigError: it cannot be opened.
        """
        if self._path is not None:
            try:
                self._opened(self._path)
            except OSError as exc:
                raise ConfigError(
                    f"[consumers.jsonlines] path: {self._path}: {exc.strerror}"
                ) from exc

    def add(self, line: bytes) -> None:
        """Take one line, its end included; it is written at the next `settle`.

        Raises:
            TryLater: too many wait, because they cannot be written; not taken.
            GiveUp: nobody reads stdout any more.
        """
        if len(self._waiting) >= _MOST or self._bytes >= _MOST_BYTES:
            self.settle()
        self._waiting.append(line)
        self._bytes += len(line)

    def settle(self) -> None:
        """Write what waits.

        Raises:
            TryLater: it cannot be written; everything is kept.
            GiveUp: nobody reads stdout any more.
        """
        if not self._waiting:
            return
        try:
            if self._path is None:
                self._print()
            else:
                self._append(self._opened(self._path), b"".join(self._waiting))
        except BrokenPipeError as exc:
            raise AbortConsumer(f"{self._name}: nobody reads it any more") from exc
        except OSError as exc:
            raise RetryLater(f"{self._name}: {exc.strerror}") from exc
        self._clear()

    def close(self) -> None:
        """Let go of the file; lines that wait are lost, as nothing says they are done.

        They are read from Kafka again.
        """
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self._clear()

    def _clear(self) -> None:
        self._waiting.clear()
        self._bytes = 0

    def _print(self) -> None:
        # What is out cannot be taken back: the next try goes on within the line.
        fd = sys.stdout.fileno()
        while self._waiting:
            rest = self._waiting[0]
            self._waiting[0] = rest[os.write(fd, rest) :]
            if not self._waiting[0]:
                self._waiting.popleft()

    def _append(self, fd: int, data: bytes) -> None:
        with _locked(fd):
            found = os.fstat(fd)
            regular, size = stat.S_ISREG(found.st_mode), found.st_size
            if regular and size and os.pread(fd, 1, size - 1) != b"\n":
                data = b"\n" + data  # whoever wrote before was cut off
            try:
                while data:
                    data = data[os.write(fd, data) :]
                if self._fsync and regular:
                    os.fsync(fd)
            except OSError:
                with suppress(OSError):
                    if regular and os.fstat(fd).st_size > size:
                        os.ftruncate(fd, size)
                raise

    def _opened(self, path: Path) -> int:
        """Return the file, a new one if it was moved away or removed."""
        if self._fd is not None:
            if not _moved(path, self._fd):
                return self._fd
            os.close(self._fd)
            self._fd = None
        new = not path.exists()
        self._fd = os.open(path, _FLAGS, 0o640)
        if new and self._fsync:
            atomic_file.sync(path.parent)
        return self._fd


@contextmanager
def _locked(fd: int) -> Iterator[None]:
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


def _moved(path: Path, fd: int) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return True
    here = os.fstat(fd)
    return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)
