"""An entry: one notification as a file, and how it is read.

`fnm_bus.hook.python_hook` writes entries and describes their format.
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

_MAX_READ: Final = MAX_DOCUMENT + 2 * 1024 * 1024
"""Bytes of an entry that are read: the largest valid document, with the arguments of
any call (2 MiB is Linux's limit of arguments and environment together)."""
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAX_HASHED: Final = python_hook.MAX_STDIN + (16 << 20)
"""Largest file that is hashed, in bytes: more than any hook writes with arguments."""
_CHUNK: Final = 1 << 20
_HEAD: Final = re.compile(rb"fnm-bus 1 ([0-9]{1,4})\0")
_MAX_ARGUMENTS: Final = 1_000
"""FastNetMon passes four at most; each takes memory, even if it is empty."""


class DocumentSummary(NamedTuple):
    """Size and digest of a document.

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
        name: name of the file; contains the start of the call.
        arguments: arguments of the call; bytes that are not UTF-8 become `\xff`.
        document: the bytes from stdin; the whole file if it does not begin as an entry.
            An oversized document is truncated.
        stored_at: modification time of the file (UTC).
        size: size of the file in bytes.
        path: path of the file.
        oversized: size and digest of a document if only its first bytes were
            read; None for other documents.
    """

    name: str
    arguments: tuple[str, ...]
    document: bytes
    stored_at: datetime
    size: int
    path: str
    oversized: DocumentSummary | None = None

    @property
    def is_check(self) -> bool:
        """Whether the entry is from `hook check`, and not a notification.

        Attackers and customers choose some of FastNetMon's arguments. The mark counts
        only as the single argument.
        """
        return self.arguments == (python_hook.CHECK_ARGUMENT,)


class EntryContent(NamedTuple):
    """The decoded bytes of an entry; the fields are those of `Entry`."""

    arguments: tuple[str, ...]
    document: bytes


def read_entry(directory: str, name: str) -> Entry:
    """Return the entry in the file *name* of a directory.

    Raises:
        FileNotFoundError: the file does not exist.
        SpoolError: the file cannot be read, or is not a regular file.
    """
    path = f"{directory}/{name}"  # pathlib would take as long as opening the file
    data, status = read_file(path, _MAX_READ)
    oversized = None
    if len(data) < status.st_size:
        content, oversized = _decode_oversized(path, data, status.st_size)
    else:
        content = decode_entry(data)
    return Entry(
        name,
        content.arguments,
        content.document,
        utc_time(status.st_mtime_ns),
        status.st_size,
        path,
        oversized,
    )


def read_file(path: str, max_size: int) -> tuple[bytes, os.stat_result]:
    """Return up to *max_size* bytes of a regular file, and its status.

    Does not follow a link or wait for a pipe: another user may have planted one.

    Raises:
        FileNotFoundError: the file does not exist.
        SpoolError: the file cannot be read, or is not a regular file.
    """
    try:
        fd = os.open(path, _FLAGS)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise SpoolError(f"{path}: not a regular file")
            return _read_bytes(fd, min(status.st_size, max_size)), status
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise SpoolError(f"{path}: {exc}") from exc


def decode_entry(data: bytes) -> EntryContent:
    """Return the content of an entry's bytes; `python_hook` describes the format.

    Bytes that do not begin as an entry are a document without arguments.
    """
    parts = _split(data)
    if parts is None:
        return EntryContent((), data)
    return EntryContent(*parts)


def _split(data: bytes) -> tuple[tuple[str, ...], bytes] | None:
    """Return the arguments and the rest; None if the bytes do not begin as an entry."""
    head = _HEAD.match(data)
    if head is None:
        return None
    count = int(head[1])
    if count > _MAX_ARGUMENTS:
        return None
    parts = data[head.end() :].split(b"\0", count)
    if len(parts) <= count:
        return None
    *arguments, document = parts
    return tuple(
        argument.decode("utf-8", "backslashreplace") for argument in arguments
    ), document


def _decode_oversized(
    path: str, data: bytes, size: int
) -> tuple[EntryContent, DocumentSummary]:
    """Return the content of a file's first bytes, and a summary of its document.

    Args:
        path: path of the file.
        data: its first bytes.
        size: size of the file in bytes.

    Raises:
        FileNotFoundError: the file does not exist.
        SpoolError: the file cannot be read.
    """
    content = decode_entry(data)
    document_size = size - len(data) + len(content.document)
    if size > _MAX_HASHED:
        return content, DocumentSummary(document_size, "")
    digest, bytes_left = hashlib.sha256(content.document), size - len(data)
    try:
        with open(os.open(path, _FLAGS), "rb") as file:  # noqa: PTH123 - a descriptor
            file.seek(len(data))
            while bytes_left and (chunk := file.read(min(bytes_left, _CHUNK))):
                digest.update(chunk)
                bytes_left -= len(chunk)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise SpoolError(f"{path}: {exc}") from exc
    return content, DocumentSummary(document_size, f"sha256:{digest.hexdigest()}")


def _read_bytes(fd: int, size: int) -> bytes:
    data = os.read(fd, size)
    while len(data) < size and (chunk := os.read(fd, size - len(data))):
        data += chunk
    return data


def utc_time(nanoseconds: int) -> datetime:
    """Return the Unix time *nanoseconds* in UTC, limited to the range of a datetime."""
    # A file may have any time; a datetime ends with the year 9999.
    return datetime.fromtimestamp(min(max(nanoseconds // 1000, 0), 10**17) / 10**6, UTC)
