"""Read the mitigation topic and the command topic, each in its own thread.

An enforcer ends leases in any state of Kafka, so its loop never waits for Kafka. After
any failure a thread starts again after a pause, and resumes at its last offset.

If partitions are added to a topic, the topic is opened again. The mitigator then writes
a key's record to another partition, and two minutes later a tombstone to the old one.
An enforcer that was disconnected meanwhile may read the tombstone first.
"""

import queue
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from consumers.enforcers.resuming_reader import ResumingReader
from consumers.mitigation import clock
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import (
    BrokerUnavailable,
    ConfigError,
    ConnectionRejected,
    TopicRefused,
)
from fnm_bus.kafka.reader import ConsumedRecord
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_MAX_QUEUED: Final = 5000
_RESTART_PAUSE: Final = 1.0
"""Seconds between the end of a connection and the next one."""
_PARTITION_CHECK_INTERVAL: Final = 30.0
"""Seconds between two checks of a topic's number of partitions. A tombstone that comes
later requires another check: a moved key gets its tombstone after 120 s."""


class TopicEnd(NamedTuple):
    """Every partition was read to its end."""


class PartitionsAdded(NamedTuple):
    """Partitions were added; `TopicEnd` follows when all were read to their ends."""


TopicItem = ConsumedRecord | TopicEnd | PartitionsAdded
"""An item that a follower returns."""


class TopicFollower:
    """Reads one topic continuously.

    Args:
        from_beginning: whether to read the records that the topic already has.

    Attributes:
        restarts: number of unexpected failures after which reading was started again.
        problem: the reason that reading needs an operator's action, or "".
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
        self._queue: queue.Queue[TopicItem] = queue.Queue(_MAX_QUEUED)
        self._positions: dict[tuple[str, int], int] = {}
        self._end_reported = False
        self._partitions = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._has_failed = False
        self._config_error: ConfigError | None = None
        self._was_open = False
        self.problem = ""
        self.restarts = 0

    @property
    def is_healthy(self) -> bool:
        """Whether the thread has read since its last failure.

        An unreachable Kafka is not a failure. A topic that this client may not read is
        a failure, and so are rejected credentials. Before the start it is True.
        """
        return not (self._has_failed or self.problem)

    def start(self) -> None:
        """Start the thread."""
        name = f"read {self._topic}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def take(self, timeout: float) -> list[TopicItem]:
        """Return the items that were read; wait up to *timeout* seconds for the first.

        Raises:
            ConfigError: librdkafka refuses the settings.
        """
        if self._config_error is not None:
            raise self._config_error
        if self._thread is not None and not self._thread.is_alive():
            self._has_failed = True  # not even its log could be written
            self.restarts += 1
            self.start()
        items: list[TopicItem] = []
        with suppress(queue.Empty):
            items.append(self._queue.get(timeout=timeout))
            while len(items) < _MAX_QUEUED:
                items.append(self._queue.get_nowait())
        return items

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._read()
            except (BrokerUnavailable, TopicRefused) as exc:
                log.warning("topic_unreadable", topic=self._topic, error=exc)
                is_lasting = isinstance(exc, TopicRefused | ConnectionRejected)
                self.problem = str(exc) if is_lasting else ""
            except ConfigError as exc:
                self._config_error = exc
                return
            except BaseException:
                # Any kind: without this thread the enforcer would miss every change.
                log.exception("reader_thread_failed", topic=self._topic)
                self._has_failed = True
                self.restarts += 1
            else:
                continue  # partitions were added
            self._stopping.wait(_RESTART_PAUSE)

    def _read(self) -> None:
        with self._open() as reader:
            self._was_open = True
            self._report_added_partitions(reader)
            checked = tried = clock.now()
            while not self._stopping.is_set():
                for record in reader.read(0.5):
                    if (
                        not record.value
                        and clock.now() - checked >= _PARTITION_CHECK_INTERVAL
                    ):
                        if reader.has_grown():
                            return
                        checked = clock.now()
                    self._put(record)
                    place = record.topic, record.partition
                    self._positions[place] = record.offset + 1
                self._has_failed = False
                self.problem = reader.connection.rejection
                if reader.at_end and not self._end_reported:
                    self._put(TopicEnd())
                    self._end_reported = True
                if clock.now() - max(checked, tried) >= _PARTITION_CHECK_INTERVAL:
                    tried = clock.now()
                    try:
                        if reader.has_grown():
                            return
                    except (BrokerUnavailable, TopicRefused):
                        continue  # `read` reports the same error
                    checked = tried

    def _report_added_partitions(self, reader: ResumingReader) -> None:
        """Report added partitions to the enforcer before their records."""
        before, self._partitions = self._partitions, reader.partitions
        if before and reader.partitions > before:
            log.warning("partitions_added", topic=self._topic)
            self._put(PartitionsAdded())
            self._end_reported = False

    def _open(self) -> ResumingReader:
        """Return a reader that resumes at the last reader's offsets."""
        reader = ResumingReader(
            self._settings,
            [self._topic],
            self._codec,
            from_beginning=self._from_beginning,
        )
        reader.positions = self._positions
        reader.from_end = not self._from_beginning and not self._was_open
        # An added partition is read from its beginning.
        reader.from_beginning = not self._from_beginning and self._was_open
        return reader

    def _put(self, item: TopicItem) -> None:
        while not self._stopping.is_set():
            try:
                self._queue.put(item, timeout=0.5)
            except queue.Full:
                continue  # the enforcer is busy; Kafka stores the rest
            return
