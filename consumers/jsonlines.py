"""Jsonlines: decoded events as lines of JSON, for a SIEM.

An offset is committed when its line is on disk. A line that was written and not
committed is written again after a crash: `event_id` tells.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from consumers import wiring
from consumers.settings import AllSettings
from fnm_bus import wiring as bus
from fnm_bus.cli.render import text, value
from fnm_bus.consume import Loop
from fnm_bus.consume_metrics import ConsumeMetrics
from fnm_bus.handling import TryLater
from fnm_bus.publish import LASTING, KafkaPublisher
from fnm_bus.reader import Read

_MOST: Final = 10_000
"""Lines that may wait for a disk."""


class Lines:
    """Appends lines to a file, or to stdout.

    Args:
        path: the file; None is stdout.
        fsync: whether `settle` waits until they are on disk.
    """

    def __init__(self, path: Path | None, *, fsync: bool) -> None:
        self._path = path
        self._fsync = fsync
        self._fd: int | None = None
        self._waiting: list[bytes] = []

    def add(self, read: Read) -> None:
        """Take one record; it is written at the next `settle`.

        Raises:
            TryLater: too many wait, because the file cannot be written.
        """
        if len(self._waiting) >= _MOST:
            raise TryLater(f"{self._path or 'stdout'}: {_MOST} lines wait already", 1.0)
        line = json.dumps(as_object(read), ensure_ascii=False, default=str)
        self._waiting.append(line.encode() + b"\n")

    def settle(self) -> None:
        """Write what waits.

        Raises:
            TryLater: the file cannot be written; everything is kept.
        """
        if not self._waiting:
            return
        data = b"".join(self._waiting)
        try:
            self._write(data)
        except OSError as exc:
            raise TryLater(f"{self._path or 'stdout'}: {exc.strerror}") from exc
        self._waiting.clear()

    def close(self) -> None:
        """Let go of the file."""
        if self._fd is not None and self._path is not None:
            os.close(self._fd)
        self._fd = None

    def _write(self, data: bytes) -> None:
        fd = self._opened()
        start = os.fstat(fd).st_size
        if self._path is None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        try:
            while data:
                data = data[os.write(fd, data) :]
            if self._fsync:
                os.fsync(fd)
        except OSError:
            # Half a line is worse than none: what waits is written again, whole.
            os.ftruncate(fd, start)
            raise

    def _opened(self) -> int:
        """Return the file, another one if it was moved away; it ends with a line."""
        if self._path is None:
            return sys.stdout.fileno()
        if self._fd is not None and not self._moved(self._path, self._fd):
            return self._fd
        self.close()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o640)
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            os.write(self._fd, b"\n")  # whoever wrote before was cut off
        return self._fd

    @staticmethod
    def _moved(path: Path, fd: int) -> bool:
        try:
            there = path.stat()
        except FileNotFoundError:
            return True
        here = os.fstat(fd)
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)


def as_object(read: Read) -> dict[str, Any]:
    """Return a record as JSON values."""
    return {
        "topic": read.topic,
        "partition": read.partition,
        "offset": read.offset,
        "timestamp": read.at.isoformat(),
        "key": text(read.key),
        "event": None if read.event is None else value(read.event),
    }


def topics(settings: AllSettings) -> Sequence[str]:
    """Return the names of the topics to read."""
    names = bus.topics(settings)
    chosen = settings.consumers.jsonlines.topics
    return chosen or (names.host, names.hostgroup, names.status, names.audit)


def main(settings: AllSettings) -> None:
    """Write lines until a signal comes.

    Raises:
        ConfigError: Kafka's settings cannot be used.
        TopicRefused: a topic does not exist, or must not be read.
    """
    of = settings.consumers.jsonlines
    lines = Lines(of.path, fsync=of.fsync)
    kafka = bus.kafka(settings)
    publisher = KafkaPublisher(kafka, LASTING)
    metrics = ConsumeMetrics()
    loop = Loop(
        kafka,
        of.group,
        topics(settings),
        bus.reading_codec(settings),
        lines.add,
        deadletter_topic=bus.topics(settings).deadletter,
        publisher=publisher,
        metrics=metrics,
        attempts=settings.consumers.attempts,
        settle=lines.settle,
    )
    try:
        wiring.serve(settings, loop, metrics.registry())
    finally:
        lines.close()
        publisher.close()
