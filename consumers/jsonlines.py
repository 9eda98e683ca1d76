"""Decoded records as lines, on standard output or in a file, for a SIEM.

The offset of a record is committed when its line is on disk. After a crash a line may
be written again: topic, partition and offset identify it.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from consumers import serving
from consumers.settings import FullSettings
from consumers.siem.cef import cef_line
from consumers.siem.ecs import ecs_line
from fnm_bus import atomic_file
from fnm_bus import build as bus
from fnm_bus.consume.handler import AbortConsumer, RetryLater
from fnm_bus.errors import ConfigError
from fnm_bus.event.json_value import bytes_as_text, event_as_json
from fnm_bus.kafka.reader import ConsumedRecord
from fnm_bus.ops.terminal import json_line

_MAX_BYTES: Final = 64 << 20
"""Bytes of lines that may wait to be written."""
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class AppendFile:
    """Appends lines to a file, or to standard output if *path* is None.

    After a rotation it opens the path again, as `logging.handlers.WatchedFileHandler`.
    A file has one writer.
    """

    def __init__(self, path: Path | None, *, fsync: bool) -> None:
        self._path = path
        self._fsync = fsync
        self._fd = -1
        self._waiting = bytearray()
        self._written = 0

    def open(self) -> None:
        """Open the file, unless it is open and was neither moved nor removed.

        Raises:
            OSError: it cannot be opened.
        """
        if self._path is None:
            self._fd = sys.stdout.fileno()
            return
        if self._fd >= 0:
            with suppress(FileNotFoundError):
                if os.path.samestat(self._path.stat(), os.fstat(self._fd)):
                    return
            self.close()
        self._fd = os.open(self._path, _FLAGS, 0o640)
        self._written, size = 0, os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            os.write(self._fd, b"\n")  # the last writer was killed within a line
        if self._fsync and not size:
            atomic_file.sync(self._path.parent)

    def add(self, line: bytes) -> None:
        """Add one line with its end; `settle` writes it.

        Raises:
            RetryLater: too many bytes wait; the line was not added.
            AbortConsumer: standard output has no reader.
        """
        if len(self._waiting) >= _MAX_BYTES:
            self.settle()
        self._waiting += line

    def settle(self) -> None:
        """Write the waiting lines; after a failure continue within the line.

        Raises:
            RetryLater: they cannot be written, and continue to wait.
            AbortConsumer: standard output has no reader.
        """
        if not self._waiting:
            return
        name = self._path or "stdout"
        try:
            self.open()
            while self._written < len(self._waiting):
                self._written += os.write(self._fd, self._waiting[self._written :])
            if self._fsync and self._path is not None and self._path.is_file():
                os.fsync(self._fd)
        except BrokenPipeError as exc:
            raise AbortConsumer(f"{name}: no reader") from exc
        except OSError as exc:
            raise RetryLater(f"{name}: {exc.strerror}") from exc
        self._waiting.clear()
        self._written = 0

    def close(self) -> None:
        """Close the file; waiting lines are read from Kafka again."""
        if self._path is not None and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def line_of(record: ConsumedRecord) -> bytes:
    """Return a record as one line of JSON; a tombstone's event is null."""
    fields = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.at.isoformat(),
        "key": bytes_as_text(record.key),
        "event": None if record.event is None else event_as_json(record.event),
    }
    return json_line(fields).encode() + b"\n"


LINES: Final[Mapping[str, Callable[[ConsumedRecord], bytes]]] = {
    "json": line_of,
    "ecs": ecs_line,
    "cef": cef_line,
}
"""Format → the line of a record."""


def topics(settings: FullSettings) -> Sequence[str]:
    """Return the names of the topics to read."""
    names = bus.topic_names(settings)
    chosen = settings.consumers.jsonlines.topics
    return chosen or (names.host, names.hostgroup, names.status, names.audit)


def main(settings: FullSettings, line_format: str | None = None) -> None:
    """Write lines until a signal arrives.

    Args:
        settings: all settings.
        line_format: json, ecs or cef; else the one of the settings.

    Raises:
        ConfigError: the file cannot be opened, or Kafka's settings are invalid.
        TopicRefused: a topic does not exist, or may not be read.
        AbortConsumer: standard output has no reader.
    """
    table = settings.consumers.jsonlines
    line = LINES[line_format or table.format]
    file = AppendFile(table.path, fsync=table.fsync)
    try:
        file.open()
    except OSError as exc:
        fault = f"[consumers.jsonlines] path: {table.path}: {exc.strerror}"
        raise ConfigError(fault) from exc
    try:
        serving.consume(
            settings,
            table.group,
            topics(settings),
            lambda record: file.add(line(record)),
            before_commit=file.settle,
            tombstones=True,
        )
    finally:
        file.close()
