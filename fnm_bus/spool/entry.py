"""An entry: one notification as a file; how it is read, whatever is in the file.

`fnm_bus.hook.python_hook` writes it and describes the file.
"""

import hashlib
import os
import re
import stat
from datetime import UTC, datetime
from typing import Final, NamedTuple

from fnm_bus.errors import SpoolError
from fnm_bus.event.json_document import MAX_DOCUMENT
from fnm_bus.hook import python_hook

_READ: Final = MAX_DOCUMENT + 2 * 1024 * 1024
"""Bytes of an entry that are read: the largest valid document, with the arguments of
any call (2 MiB is Linux's limit of arguments and environment together)."""
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_HASHED: Final = python_hook.MAX_STDIN + (16 << 20)
"""Bytes of a file that are hashed: more than any hook writes, arguments included."""
_CHUNK: Final = 1 << 20
_HEAD: Final = re.compile(rb"fnm-bus 1 ([0-9]{1,4})\0")
_MAX_ARGUMENTS: Final = 1_000
"""FastNetMon passes four at most; each takes memory of its own, however short it is."""


class WholeDocument(NamedTuple):
    """What a document is of which only the beginning was read.

    Attributes:
        size: in bytes.
        digest: "sha256:" and 64 hexadecimal digits; "" if the file is larger than any
            that a hook writes.
    """

    size: int
    digest: str


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
        cut: what the whole document is; None when `document` is the whole one.
    """

    name: str
    arguments: tuple[str, ...]
    document: bytes
    stored_at: datetime
    size: int
    path: str
    whole: bool = True
    cut: WholeDocument | None = None

    @property
    def is_check(self) -> bool:
        """Whether it is from `hook check`, and no notification of FastNetMon's.

        FastNetMon passes addresses and names that others choose, so the mark counts
        only where a check has it: alone.
        """
        return self.arguments == (python_hook.CHECK_ARGUMENT,)


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
    data, facts = read_file(path, _READ)
    cut = None
    if len(data) < facts.st_size:
        content, cut = _cut(path, data, facts.st_size)
    else:
        content = unpack(data)
    return Entry(
        name,
        content.arguments,
        content.document,
        utc(facts.st_mtime_ns),
        facts.st_size,
        path,
        content.whole,
        cut,
    )


def read_file(path: str, most: int) -> tuple[bytes, os.stat_result]:
    """Return up to *most* bytes of a regular file, and what stat(2) returns of it.

    A link is not followed and a pipe is not waited for: somebody may have planted one.

    Raises:
        FileNotFoundError: it is gone.
        SpoolError: it cannot be read, or is no regular file.
    """
    try:
        fd = os.open(path, _FLAGS)
        try:
            facts = os.fstat(fd)
            if not stat.S_ISREG(facts.st_mode):
                raise SpoolError(f"{path}: no regular file")
            return _read(fd, min(facts.st_size, most)), facts
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise SpoolError(f"{path}: {exc}") from exc


def unpack(data: bytes) -> Content:
    """Return what is in an entry's bytes; `fnm_bus.hook.python_hook` describes them.

    What does not begin as an entry does is all document: parsing it tells what it is.
    """
    split = _split(data)
    if split is None:
        return Content((), data)
    arguments, document = split
    return Content(
        arguments,
        document.removesuffix(python_hook.END),
        whole=document.endswith(python_hook.END),
    )


def _split(data: bytes) -> tuple[tuple[str, ...], bytes] | None:
    """Return the arguments and all behind them; None of what no hook wrote."""
    head = _HEAD.match(data)
    if head is None:
        return None
    count = int(head[1])
    if count > _MAX_ARGUMENTS:
        return None
    rest = data[head.end() :].split(b"\0", count)
    if len(rest) <= count:
        return None
    *arguments, document = rest
    return tuple(_text(it) for it in arguments), document


def _cut(path: str, data: bytes, size: int) -> tuple[Content, WholeDocument]:
    """Return what is in the first bytes of a file, and what the whole document is.

    Args:
        path: of the file.
        data: its first bytes.
        size: of the file, in bytes.

    Raises:
        FileNotFoundError: it is gone.
        SpoolError: it cannot be read.
    """
    split = _split(data)
    arguments, document = split or ((), data)
    content = Content(arguments, document)
    whole = size - len(data) + len(document)  # the byte at the end included
    if size > _HASHED:
        return content, WholeDocument(whole, "")
    digest, left = hashlib.sha256(document), size - len(data)
    try:
        with open(os.open(path, _FLAGS), "rb") as file:  # noqa: PTH123 - a descriptor
            file.seek(len(data))
            while left > 1 and (chunk := file.read(min(left - 1, _CHUNK))):
                digest.update(chunk)
                left -= len(chunk)
            last = file.read(1)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise SpoolError(f"{path}: {exc}") from exc
    if split is not None and last == python_hook.END:
        whole -= 1
    else:
        digest.update(last)
    return content, WholeDocument(whole, f"sha256:{digest.hexdigest()}")


def _read(fd: int, size: int) -> bytes:
    data = os.read(fd, size)
    while len(data) < size and (more := os.read(fd, size - len(data))):
        data += more
    return data


def _text(argument: bytes) -> str:
    return argument.decode("utf-8", "backslashreplace")


def utc(nanoseconds: int) -> datetime:
    """Return the Unix time *nanoseconds* in UTC; the nearest one a datetime can be."""
    # Files may bear any time; a datetime ends with the year 9999.
    return datetime.fromtimestamp(min(max(nanoseconds // 1000, 0), 10**17) / 10**6, UTC)
