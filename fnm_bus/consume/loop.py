"""The loop of a consumer: decode records, call the handler, commit offsets.

    Kafka ▶ decode and check ▶ handler ▶ before_commit ▶ commit
                │                ├─ RetryLater: the partition pauses, others continue
                └────────────────┴─ invalid, or max_attempts failures: dead letter

The loop commits an offset after the handler is done. A consumer that is killed before
the commit receives the record again, so a handler must tolerate repeated records.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Final

from fnm_bus.avro.codec import Codec
from fnm_bus.consume.group_member import GroupMember
from fnm_bus.consume.handler import Handler, RetryLater
from fnm_bus.consume.metrics import ConsumeMetrics
from fnm_bus.consume.partition import PartitionState
from fnm_bus.consume.record_processor import RecordProcessor
from fnm_bus.kafka.dead_letter import DeadLetterPublisher
from fnm_bus.kafka.publisher import Publisher
from fnm_bus.kafka.reader import ConsumedRecord
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_POLL: Final = 0.2
"""Most seconds of one wait for a record."""
_COMMIT_INTERVAL: Final = 1.0
"""Seconds between two commits."""
_METRICS_INTERVAL: Final = 5.0
"""Seconds between two updates of the lag."""
_SHUTDOWN: Final = 5.0
"""Seconds for dead letters, and then for the last commit, at the end."""


class ConsumerLoop:
    """Reads topics as a member of a consumer group.

    Args:
        settings: librdkafka's settings. A new group begins with the oldest records
            unless `auto.offset.reset` is set.
        group: name of the group.
        topics: names of the topics.
        codec: decodes the values.
        handler: processes a record; returns None when done, or a `Deferred`. It raises
            `RetryLater` (or another retryable FnmBusError) to get the record again,
            `AbortConsumer` to end the loop, and any other exception for a failure.
        deadletter_topic: receives the records that cannot be processed.
        publisher: publishes the dead letters; its owner closes it.
        metrics: the loop's metrics.
        max_attempts: failures after which a record becomes a dead letter.
        between_records: called between records; returns the seconds until it wants to
            be called again.
        before_commit: called before each commit, every second and at the end; while it
            raises `RetryLater`, no offset is committed.
        tombstones: whether the handler receives records without a value.

    Attributes:
        iterated_at: time of the loop's last iteration, on the monotonic clock.

    A handler that needs longer than librdkafka's `max.poll.interval.ms` (5 minutes)
    loses its partitions to another member, which handles the same record again.
    """

    def __init__(  # noqa: PLR0913 - each consumer sets them differently
        self,
        settings: Mapping[str, str],
        group: str,
        topics: Sequence[str],
        codec: Codec,
        handler: Handler,
        *,
        deadletter_topic: str,
        publisher: Publisher,
        metrics: ConsumeMetrics | None = None,
        max_attempts: int = 5,
        between_records: Callable[[], float] | None = None,
        before_commit: Callable[[], None] | None = None,
        tombstones: bool = False,
    ) -> None:
        self._publisher = publisher
        self._dead_letters = DeadLetterPublisher(
            publisher, deadletter_topic, codec, group
        )
        self._metrics = metrics or ConsumeMetrics()
        self._processor = RecordProcessor(
            codec,
            handler,
            self._dead_letters,
            self._metrics,
            max_attempts=max_attempts,
            tombstones=tombstones,
        )
        self._between_records = between_records or (lambda: _POLL)
        self._before_commit = before_commit or (lambda: None)
        self._commit_delay = ""
        self._member = GroupMember(
            settings,
            group,
            topics,
            on_record=self._on_record,
            before_revoke=lambda: self._commit(now=True),
            on_removed=self._metrics.remove_partition,
        )
        self._stopping = threading.Event()
        self.iterated_at = monotonic()

    def run(self) -> None:
        """Read until `stop`; then commit finished records and leave the group.

        Raises:
            ConfigError: librdkafka refuses the settings.
            TopicRefused: a topic does not exist, or the right to read it is missing, or
                the right to join the group is.
            BrokerUnavailable: another process took this one's place in the group.
            AbortConsumer: from the handler or a callback.
        """
        self._member.join()
        may_commit = False
        try:
            last_commit, last_update = monotonic(), 0.0
            while not self._stopping.is_set():
                now = self.iterated_at = monotonic()
                if now - last_commit >= _COMMIT_INTERVAL:
                    last_commit = now
                    self._commit(now=False)
                if now - last_update >= _METRICS_INTERVAL:
                    last_update = now
                    self._update_metrics()
                self._run_once()
            self._dead_letters.flush(_SHUTDOWN)
            may_commit = self._is_ready_to_commit()
        finally:
            self._member.leave(_SHUTDOWN, commit=may_commit)

    def stop(self) -> None:
        """End `run`; may be called from a signal handler."""
        self._stopping.set()

    @property
    def problem(self) -> str:
        """The reason if the brokers reject this consumer or one of its topics."""
        return (
            self._member.connection.rejection
            or "; ".join(tuple(self._member.refusals.values()))
            or self._publisher.problem
        )

    def health(self) -> tuple[bool, Mapping[str, object]]:
        """Return whether it works without an operator's help, and values to show."""
        return not self.problem, {"problem": self.problem}

    def _run_once(self) -> None:
        wait = max(min(self._between_records(), _POLL, self._next_retry()), 0.0)
        end = monotonic() + wait
        while self._member.poll(wait):
            wait = 0.0
            if self._stopping.is_set() or monotonic() >= end:
                break
        for partition in self._member.partitions():
            if partition.delayed is not None and partition.retry_at <= monotonic():
                self._attempt(partition, partition.delayed)
        self._dead_letters.poll()

    def _next_retry(self) -> float:
        """Return the seconds until the next delayed record is due."""
        retries = [
            partition.retry_at
            for partition in self._member.partitions()
            if partition.delayed is not None
        ]
        return min(retries) - monotonic() if retries else _POLL

    def _on_record(self, partition: PartitionState, record: ConsumedRecord) -> None:
        partition.offsets.start(record.offset)
        self._attempt(partition, record)

    def _attempt(self, partition: PartitionState, record: ConsumedRecord) -> None:
        """Process a record; a delay pauses its partition, and others continue."""
        delay = self._processor.process(partition, record)
        if delay is None:
            self._member.resume(partition)
        else:
            self._member.pause(partition)
            partition.delay(record, monotonic(), delay.seconds)

    def _commit(self, *, now: bool) -> None:
        if self._is_ready_to_commit():
            self._member.commit(now=now)

    def _is_ready_to_commit(self) -> bool:
        try:
            self._before_commit()
        except RetryLater as exc:
            if self._commit_delay != str(exc):
                log.warning("commit_delayed", error=exc)
            self._commit_delay = str(exc)
            return False
        self._commit_delay = ""
        return True

    def _update_metrics(self) -> None:
        self._member.check()
        for partition, lag in self._member.lags():
            labels = (partition.topic, str(partition.number))
            self._metrics.uncommitted.labels(*labels).set(partition.offsets.pending)
            if lag is not None:
                self._metrics.lag.labels(*labels).set(lag)
