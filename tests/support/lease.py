"""A lease that is never released: every process that opens the file waits."""

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def leased(path: Path) -> Iterator[None]:
    """Hold a write lease on a file of this user's (fcntl(2)), which is made if missing.

    Another open(2) of it waits for /proc/sys/fs/lease-break-time, 45 s.
    """
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # somebody opens it
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield
    finally:
        os.close(fd)
        signal.signal(signal.SIGIO, before)
