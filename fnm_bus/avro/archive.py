"""An archive of one topic's records: an Avro object container file that grows.

Blocks are written whole. A reader of a file that grows, or whose writer was killed,
finds complete blocks; only a full disk or a loss of power can leave a part of one.
"""

import os
from datetime import datetime
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from fnm_bus.avro import schema
from fnm_bus.avro.union_hints import union_hinter
from fnm_bus.errors import ArchiveError
from fnm_bus.event import AnyRecord

_NATIVE: Final = (bytes, datetime)
_CODEC: Final = "deflate"
"""The compression that every Avro library must have."""
_BLOCK_BYTES: Final = 64_000


class Archive:
    """A new archive file. Every record has the schema of this version.

    Args:
        path: the file, which must not exist.
        full_name: full name of the records.
    """

    def __init__(self, path: Path, full_name: str) -> None:
        self._path = path
        self._full_name = full_name
        self._buffer = BytesIO()
        self._file = -1
        self._writer: Any = None

    def __enter__(self) -> Self:
        """Create the file, and write its header.

        Raises:
            ArchiveError: the file exists or cannot be created.
        """
        from fastavro.write import Writer  # noqa: PLC0415 - as in schema.parse()

        avro = schema.load()[self._full_name]
        self._writer = Writer(self._buffer, avro, _CODEC, sync_interval=_BLOCK_BYTES)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        try:
            self._file = os.open(self._path, flags, 0o644)
        except OSError as exc:
            raise ArchiveError(f"{self._path}: {exc.strerror}") from exc
        try:
            self._store()
        except BaseException:
            self._path.unlink()  # a file without a header blocks the next attempt
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.flush()
        finally:
            self._close()

    def add(self, record: AnyRecord) -> None:
        """Add a record of the archive's type; a full block is written at once.

        Raises:
            ArchiveError: the file cannot be written.
        """
        datum = msgspec.to_builtins(record, builtin_types=_NATIVE)
        self._writer.write(union_hinter(self._full_name)(datum))
        self._store()

    def flush(self) -> None:
        """Write the records that wait for a full block.

        Raises:
            ArchiveError: the file cannot be written.
        """
        self._writer.flush()
        self._store()

    def _close(self) -> None:
        os.close(self._file)
        self._file = -1

    def _store(self) -> None:
        blocks = self._buffer.getvalue()
        if not blocks:
            return
        size = os.fstat(self._file).st_size
        rest = memoryview(blocks)
        try:
            while rest:  # more than one call only if the disk is nearly full
                rest = rest[os.write(self._file, rest) :]
        except BaseException as exc:  # Ctrl-C, too: the next attempt writes the block
            os.ftruncate(self._file, size)
            if isinstance(exc, OSError):
                raise ArchiveError(f"{self._path}: {exc.strerror}") from exc
            raise
        self._buffer.seek(0)
        self._buffer.truncate()
