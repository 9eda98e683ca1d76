"""The mitigation and command topics, each read in a thread of its own.

An enforcer counts leases whatever Kafka does, so nothing of Kafka may make it wait. A
thread that ends is started again after a pause, and goes on where it had been.

A topic that was given more partitions is opened again. A key's record moves to another
partition then, and the old one gets a tombstone two minutes later; an enforcer that
Kafka did not reach meanwhile may find the tombstone first.
"""

import logging
import queue
import threading
from collections.abc import Mapping
from time import monotonic
from typing import Any, Final, NamedTuple

from confluent_kafka import OFFSET_BEGINNING

from consumers.mitigation import clock
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import (
    BrokerUnavailable,
    ConfigError,
    ConnectionRejected,
    TopicRefused,
)
from fnm_bus.kafka.reader import ConsumedRecord, TopicReader

log = logging.getLogger(__name__)

_MAX_QUEUED: Final = 5000
_RESTART_PAUSE: Final = 1.0
"""Seconds between the end of a thread, or of a connection, and the next one."""
_TIMEOUT: Final = 10.0
_LOOK: Final = 30.0
"""Seconds between two looks at how many partitions a topic has. A later tombstone is
taken after another look only: that of a key that moved comes 120 s after the move."""


class End(NamedTuple):
    """The end of every partition was reached."""


class MorePartitions(NamedTuple):
    """The topic was given more partitions; `End` follows when all were read."""


class _Failed(NamedTuple):
    """Reading is impossible with this configuration."""

    error: ConfigError


class _ResumingReader(TopicReader):
    """Reads on from *positions*: (topic, partition) → next offset.

    Attributes:
        positions: likewise.
        from_end: whether other partitions are read from their ends on.
        from_beginning: whether they are read from their beginnings.
        partitions: how many the topic had when it was opened.
    """

    positions: dict[tuple[str, int], int]
    from_end: bool
    from_beginning: bool
    partitions: int = 0

    def check_settings(self) -> None:
        """Make sure that librdkafka takes the settings.

        Raises:
            ConfigError: it does not; the text names the setting.
        """
        self._open().close()

    def _partitions(self, consumer: Any, topic: str) -> list[Any]:
        assigned = super()._partitions(consumer, topic)
        for it in assigned:
            place = it.topic, it.partition
            if self.from_end and place not in self.positions:
                # As a number, so that a lost connection skips nothing.
                ends = consumer.get_watermark_offsets(it, timeout=_TIMEOUT)
                self.positions[place] = ends[1]
            first = OFFSET_BEGINNING if self.from_beginning else it.offset
            it.offset = self.positions.get(place, first)
        self.partitions = len(assigned)
        return assigned

    def has_grown(self) -> bool:
        """Return whether the topic has other partitions than those that are read.

        Raises:
            BrokerUnavailable, TopicRefused: that is not known.
        """
        consumer = self._consumer
        if consumer is None:
            return False
        return len(super()._partitions(consumer, self._topics[0])) != self.partitions


Item = ConsumedRecord | End | MorePartitions
"""What a follower gives."""


class TopicFollower:
    """Reads one topic, and everything that is appended to it.

    Args:
        settings: librdkafka's settings.
        topic: its name.
        codec: decodes the values.
        from_beginning: whether to read what it holds already.

    Attributes:
        restarts: how often the thread ended by itself and was started again.
        problem: why nothing can be read until a person acts, or "".
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        topic: str,
        codec: Codec,
        *,
        from_beginning: bool,
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._codec = codec
        self._from_beginning = from_beginning
        self._queue: queue.Queue[Item | _Failed] = queue.Queue(_MAX_QUEUED)
        self._positions: dict[tuple[str, int], int] = {}
        self._ended = False
        self._partitions = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._died_at: float | None = None
        self._crashed = False
        self.problem = ""
        self._was_open = False
        self.restarts = 0

    @property
    def healthy(self) -> bool:
        """Whether the thread, once started, runs and has read since it ended last.

        A Kafka that does not answer is no fault; a topic that must not be read is one,
        and so are credentials that the brokers reject.
        """
        thread = self._thread
        if thread is None:
            return True
        return thread.is_alive() and not (self._crashed or self.problem)

    def check_settings(self) -> None:
        """Make sure that librdkafka takes the settings.

        Raises:
            ConfigError: it does not; the text names the setting.
        """
        self._open().check_settings()

    def start(self) -> None:
        """Begin to read."""
        self._died_at = None
        self._thread = threading.Thread(
            target=self._run, name=f"read {self._topic}", daemon=True
        )
        self._thread.start()

    def take(self, timeout: float) -> list[Item]:
        """Return what was read, after up to *timeout* seconds when there is nothing.

        Raises:
            ConfigError: librdkafka refuses the settings.
        """
        self._supervise()
        taken: list[Item] = []
        try:
            item = self._queue.get(timeout=timeout) if timeout else self._next()
            while True:
                if isinstance(item, _Failed):
                    raise item.error
                taken.append(item)
                if len(taken) >= _MAX_QUEUED:
                    break
                item = self._next()
        except queue.Empty:
            pass
        return taken

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()

    def _next(self) -> Item | _Failed:
        return self._queue.get_nowait()

    def _supervise(self) -> None:
        if self._thread is None or self._thread.is_alive() or self._stopping.is_set():
            return
        self._crashed = True
        if self._died_at is None:
            self._died_at = monotonic()
            log.error("the thread that reads %s has ended", self._topic)
        elif monotonic() - self._died_at >= _RESTART_PAUSE:
            log.warning("starting the thread that reads %s again", self._topic)
            self.restarts += 1
            self.start()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._read()
                except (BrokerUnavailable, TopicRefused) as exc:
                    log.warning("%s cannot be read now: %s", self._topic, exc)
                    lasts = isinstance(exc, TopicRefused | ConnectionRejected)
                    self.problem = str(exc) if lasts else ""
                    self._stopping.wait(_RESTART_PAUSE)
        except ConfigError as exc:
            self._put(_Failed(exc))
        except Exception:
            self._crashed = True
            log.exception("reading %s failed", self._topic)

    def _read(self) -> None:
        with self._open() as reader:
            self._was_open = True
            self._note_partitions(reader)
            looked = tried = clock.now()
            while not self._stopping.is_set():
                for record in reader.read(0.5):
                    if not record.value and clock.now() - looked >= _LOOK:
                        if reader.has_grown():
                            return
                        looked = clock.now()
                    self._put(record)
                    place = record.topic, record.partition
                    self._positions[place] = record.offset + 1
                self._crashed = False
                self.problem = reader.connection.rejection
                if reader.at_end and not self._ended:
                    self._put(End())
                    self._ended = True
                if clock.now() - max(looked, tried) >= _LOOK:
                    tried = clock.now()
                    try:
                        if reader.has_grown():
                            return
                    except (BrokerUnavailable, TopicRefused):
                        continue  # reading finds that out itself
                    looked = tried

    def _note_partitions(self, reader: _ResumingReader) -> None:
        """Tell the enforcer of more partitions before any record comes."""
        before, self._partitions = self._partitions, reader.partitions
        if before and reader.partitions > before:
            log.warning("%s has other partitions now", self._topic)
            self._put(MorePartitions())
            self._ended = False

    def _open(self) -> _ResumingReader:
        """Return a reader that begins where the last one ended."""
        reader = _ResumingReader(
            self._settings,
            [self._topic],
            self._codec,
            from_beginning=self._from_beginning,
        )
        reader.positions = self._positions
        reader.from_end = not self._from_beginning and not self._was_open
        # A partition that came later is read whole: nothing of it was seen yet.
        reader.from_beginning = not self._from_beginning and self._was_open
        return reader

    def _put(self, item: Item | _Failed) -> None:
        while not self._stopping.is_set():
            try:
                self._queue.put(item, timeout=0.5)
            except queue.Full:
                continue  # the enforcer is busy; Kafka keeps the rest
            return


class WantedStateReader(TopicFollower):
    """Reads the whole mitigation topic, and everything that is appended to it."""

    def __init__(self, settings: Mapping[str, str], topic: str, codec: Codec) -> None:
        super().__init__(settings, topic, codec, from_beginning=True)


class CommandReader(TopicFollower):
    """Reads the commands that are published after its start.

    Nobody who starts without offsets obeys an old command.
    """

    def __init__(self, settings: Mapping[str, str], topic: str, codec: Codec) -> None:
        super().__init__(settings, topic, codec, from_beginning=False)
