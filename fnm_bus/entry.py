"""An entry: one notification as a file; how it is read, whatever is in the file.

`fnm_bus.hook` writes it and describes the file.
"""

import os
import re
import stat
from datetime import UTC, datetime
from typing import Final, NamedTuple

from fnm_bus import hook
from fnm_bus.document import MAX_DOCUMENT
from fnm_bus.errors import SpoolError

_READ: Final = MAX_DOCUMENT + 2 * 1024 * 1024
"""Bytes of an entry that are read: the largest valid document, with the arguments of
any call (2 MiB is Linux's limit of arguments and environment together)."""
_MAX_ARGUMENTS: Final = 1_000
"""FastNetMon passes four at most; each takes memory of its own, however short it is."""
_HEAD: Final = re.compile(rb"fnm-bus 1 ([0-9]{1,4})\0")


class Entry(NamedTuple):
    r"""One notification in the spool.

    Attributes:
        name: of the file; says when FastNetMon started the call.
        arguments: of the call; bytes that are no UTF-8 are written as `\xff`.
        document: what came on stdin. A file that no hook wrote is all document.
        stored_at: when it was stored (the file's mtime, UTC).
        size: of the file, in bytes. The document is cut where it is larger than any
            valid one; the file is not.
        path: of the file.
        whole: False when a loss of power has cut it; then its call was not told that
            all is well.
    """

    name: str
    arguments: tuple[str, ...]
    document: bytes
    stored_at: datetime
    size: int
    path: str
    whole: bool = True


class Content(NamedTuple):
    """What is in an entry's bytes; the fields are those of `Entry`."""

    arguments: tuple[str, ...]
    document: bytes
    whole: bool = True


def read(directory: str, name: str) -> Entry:
    """Return the entry in the file *name* of a directory.

    Raises:
        FileNotFoundError: it is gone.
        SpoolError: it cannot be read, or is no regular file.
    """
    path = f"{directory}/{name}"  # pathlib would take as long as opening the file
    try:
        # O_NONBLOCK: opening a named pipe that somebody planted must not wait.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(path, flags)
        try:
            facts = os.fstat(fd)
            if not stat.S_ISREG(facts.st_mode):
                raise SpoolError(f"{path}: no regular file")
            data = _read(fd, facts.st_size)
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise SpoolError(f"{path}: {exc}") from exc
    content = unpack(data)
    return Entry(
        name,
        content.arguments,
        content.document,
        utc(facts.st_mtime_ns),
        facts.st_size,
        path,
        whole=content.whole or len(data) < facts.st_size,
    )


def unpack(data: bytes) -> Content:
    """Return what is in an entry's bytes; `fnm_bus.hook` describes them.

    What does not begin as an entry does is all document: parsing it tells what it is.
    """
    head = _HEAD.match(data)
    if head is None:
        return Content((), data)
    count = int(head[1])
    if count > _MAX_ARGUMENTS:
        return Content((), data)
    rest = data[head.end() :].split(b"\0", count)
    if len(rest) <= count:
        return Content((), data)
    *arguments, document = rest
    return Content(
        tuple(_text(it) for it in arguments),
        document.removesuffix(hook.END),
        whole=document.endswith(hook.END),
    )


def _read(fd: int, size: int) -> bytes:
    data = os.read(fd, min(size + 1, _READ))
    while len(data) < min(size, _READ) and (more := os.read(fd, _READ - len(data))):
        data += more
    return data


def _text(argument: bytes) -> str:
    return argument.decode("utf-8", "backslashreplace")


def utc(nanoseconds: int) -> datetime:
    """Return the Unix time *nanoseconds* in UTC; the nearest one a datetime can be."""
    # Files may bear any time; a datetime ends with the year 9999.
    return datetime.fromtimestamp(min(max(nanoseconds // 1000, 0), 10**17) / 10**6, UTC)
