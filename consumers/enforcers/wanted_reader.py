"""Read the mitigation topic and the command topic, each in its own thread.

An enforcer ends leases in any state of Kafka, so its loop never waits for Kafka. A
thread that ends is restarted after a pause, and resumes at its last offset.

If partitions are added to a topic, the topic is opened again. The mitigator then writes
a key's record to another partition, and two minutes later a tombstone to the old one.
An enforcer that was disconnected meanwhile may read the tombstone first.
"""

import queue
import threading
from collections.abc import Mapping
from time import monotonic
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
"""Seconds between the end of a thread, or of a connection, and the next one."""
_PARTITION_CHECK_INTERVAL: Final = 30.0
"""Seconds between two checks of a topic's number of partitions. A tombstone that comes
later requires another check: a moved key gets its tombstone after 120 s."""


class TopicEnd(NamedTuple):
    """Every partition was read to its end."""


class PartitionsAdded(NamedTuple):
    """Partitions were added; `TopicEnd` follows when all were read to their ends."""


class _Failed(NamedTuple):
    """The configuration prevents reading."""

    error: ConfigError


TopicItem = ConsumedRecord | TopicEnd | PartitionsAdded
"""An item that a follower returns."""


class TopicFollower:
    """Reads one topic continuously.

    Args:
        settings: librdkafka's settings.
        topic: the topic's name.
        codec: decodes the values.
        from_beginning: whether to read the records that the topic already has.

    Attributes:
        restarts: number of restarts of a thread that had ended by itself.
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
        self._queue: queue.Queue[TopicItem | _Failed] = queue.Queue(_MAX_QUEUED)
        self._positions: dict[tuple[str, int], int] = {}
        self._end_reported = False
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
        """Whether the thread runs and has read since its last failure.

        An unreachable Kafka is not a failure. A topic that this client may not read is
        a failure, and so are rejected credentials. Before the start it is True.
        """
        thread = self._thread
        if thread is None:
            return True
        return thread.is_alive() and not (self._crashed or self.problem)

    def check_settings(self) -> None:
        """Make sure that librdkafka accepts the settings.

        Raises:
            ConfigError: librdkafka refuses a setting; the text names it.
        """
        self._open().check_settings()

    def start(self) -> None:
        """Start the thread."""
        self._died_at = None
        self._thread = threading.Thread(
            target=self._run, name=f"read {self._topic}", daemon=True
        )
        self._thread.start()

    def take(self, timeout: float) -> list[TopicItem]:
        """Return the items that were read; wait up to *timeout* seconds for the first.

        Raises:
            ConfigError: librdkafka refuses the settings.
        """
        self._restart_thread()
        items: list[TopicItem] = []
        try:
            item = self._queue.get(timeout=timeout) if timeout else self._get_now()
            while True:
                if isinstance(item, _Failed):
                    raise item.error
                items.append(item)
                if len(items) >= _MAX_QUEUED:
                    break
                item = self._get_now()
        except queue.Empty:
            pass
        return items

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()

    def _get_now(self) -> TopicItem | _Failed:
        return self._queue.get_nowait()

    def _restart_thread(self) -> None:
        if self._thread is None or self._thread.is_alive() or self._stopping.is_set():
            return
        self._crashed = True
        if self._died_at is None:
            self._died_at = monotonic()
            log.error("reader_thread_ended", topic=self._topic)
        elif monotonic() - self._died_at >= _RESTART_PAUSE:
            log.warning("reader_thread_restarted", topic=self._topic)
            self.restarts += 1
            self.start()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._read()
                except (BrokerUnavailable, TopicRefused) as exc:
                    log.warning("topic_unreadable", topic=self._topic, error=exc)
                    is_lasting = isinstance(exc, TopicRefused | ConnectionRejected)
                    self.problem = str(exc) if is_lasting else ""
                    self._stopping.wait(_RESTART_PAUSE)
        except ConfigError as exc:
            self._put(_Failed(exc))
        except Exception:
            self._crashed = True
            log.exception("reader_thread_failed", topic=self._topic)

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
                self._crashed = False
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

    def _put(self, item: TopicItem | _Failed) -> None:
        while not self._stopping.is_set():
            try:
                self._queue.put(item, timeout=0.5)
            except queue.Full:
                continue  # the enforcer is busy; Kafka stores the rest
            return


class WantedStateReader(TopicFollower):
    """Reads the whole mitigation topic, and then each new record."""

    def __init__(self, settings: Mapping[str, str], topic: str, codec: Codec) -> None:
        super().__init__(settings, topic, codec, from_beginning=True)


class CommandReader(TopicFollower):
    """Reads the commands that are published after its start.

    Old commands are skipped, since an enforcer stores no offsets.
    """

    def __init__(self, settings: Mapping[str, str], topic: str, codec: Codec) -> None:
        super().__init__(settings, topic, codec, from_beginning=False)
