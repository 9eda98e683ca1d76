"""A member of a Kafka consumer group that commits its offsets itself."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, Final

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from fnm_bus.consume.offset_commits import OffsetCommitter
from fnm_bus.consume.partition import PartitionState
from fnm_bus.errors import BrokerUnavailable
from fnm_bus.kafka.client import ConnectionState, build_consumer
from fnm_bus.kafka.client_errors import access_error, is_fatal, topic_error
from fnm_bus.kafka.names import READ
from fnm_bus.kafka.reader import UNREADABLE_CODES, ConsumedRecord, raw_record
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_POLL: Final = 0.05
"""Seconds of one poll while waiting for the answer to a commit."""
_LAST_COMMITS: Final = 3
"""Commits before the member leaves: the pending one, the last one, and one retry."""
_SESSION: Final = {
    # Another member gets a dead member's partitions after this time, not after 45 s.
    "session.timeout.ms": "10000",
}
_METADATA_INTERVAL: Final = "60000"
"""Milliseconds until new partitions are noticed; librdkafka's default is five
minutes."""
_OPTIONAL_REQUEST: Final = 1.0
"""Seconds for a request whose answer is not essential."""

PartitionKey = tuple[str, int]


class GroupMember:
    """Reads the partitions that the group assigns to this process.

    Args:
        settings: librdkafka's settings.
        group: name of the group.
        topics: names of the topics.
        on_record: called by `poll` with each record.
        before_revoke: called by `poll` before partitions move to another member; the
            last time to commit finished records.
        on_removed: called with topic and number of each partition that was removed.

    Attributes:
        connection: the state of the connections to the brokers.
        refusals: topic → reason, for topics that were readable and are not now.
    """

    def __init__(  # noqa: PLR0913 - the subscription and three callbacks
        self,
        settings: Mapping[str, str],
        group: str,
        topics: Sequence[str],
        *,
        on_record: Callable[[PartitionState, ConsumedRecord], None],
        before_revoke: Callable[[], None],
        on_removed: Callable[[str, int], None],
    ) -> None:
        self._settings: dict[str, Any] = {
            "auto.offset.reset": "earliest",
            "topic.metadata.refresh.interval.ms": _METADATA_INTERVAL,
            # With the newer protocol the broker sets the session's timeout.
            **({} if settings.get("group.protocol") == "consumer" else _SESSION),
            **settings,
            "group.id": group,
            "enable.auto.commit": "false",
            "enable.auto.offset.store": "false",
            "enable.partition.eof": "true",
            "on_commit": self._on_commit,
        }
        self._group = group
        self._topics = list(topics)
        self._on_record = on_record
        self._before_revoke = before_revoke
        self._on_removed = on_removed
        self._consumer: Consumer | None = None
        self._partitions: dict[PartitionKey, PartitionState] = {}
        self._assigned_topics: set[str] = set()
        self._unchecked_topics = list(topics)
        self._commits = OffsetCommitter(self._partitions)
        self._is_leaving = False
        self.connection = ConnectionState(self._settings)
        self.refusals: dict[str, str] = {}

    def join(self) -> None:
        """Begin to join the group.

        Raises:
            ConfigError: librdkafka refuses the settings.
        """
        self._consumer = build_consumer(self._settings, self.connection)
        self._consumer.subscribe(
            self._topics,
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def leave(self, seconds: float, *, commit: bool) -> None:
        """Leave the group, after a last commit if *commit* is True.

        Kafka gets *seconds* for each answer. If no broker answers, the member leaves
        without notice: librdkafka would wait for the session's end, both for the answer
        to a commit and when the consumer is closed.
        """
        consumer, self._is_leaving = self._consumer, True
        if consumer is None:
            return
        try:
            for _ in range(_LAST_COMMITS if commit else 0):
                self._await_commit(consumer, seconds)
                if (
                    self._commits.is_pending
                    or self.connection.is_down
                    or not self._commits.uncommitted()
                ):
                    break
                self.commit(now=False)
            self._await_commit(consumer, seconds)
            # In a daemon thread, so that a slow close does not keep the process alive.
            closing = threading.Thread(target=consumer.close, daemon=True)
            closing.start()
            closing.join(seconds)
            if closing.is_alive():
                log.warning("left_without_notice", group=self._group)
        finally:
            self._partitions.clear()
            self._consumer = None

    def poll(self, seconds: float) -> bool:
        """Process one message; return False if none arrives within *seconds*.

        Raises:
            TopicRefused: a topic does not exist, or the right to read it is missing, or
                the right to join the group is.
            BrokerUnavailable: another process took this one's place in the group.
        """
        message = self._joined_consumer().poll(seconds)
        if message is None:
            return False
        error = message.error()
        if error is not None:
            self._process_error(message, error)
            return True
        self.connection.mark_connected()
        record = raw_record(message)
        self.refusals.pop(record.topic, None)
        partition = self._partitions.get((record.topic, record.partition))
        # Another member gets the records of a partition that is no longer assigned.
        if partition is not None:
            partition.next_offset = record.offset + 1
            self._on_record(partition, record)
        return True

    def check(self) -> None:
        """Check that the topics exist, until each check succeeded once.

        With the newer group protocol librdkafka does not report a missing topic. It
        reports a refused topic once, and does not report when it is readable again.

        Raises:
            TopicRefused: a topic does not exist, or the right to read it is missing.
        """
        self._retry_refused()
        while self._unchecked_topics and not self.connection.is_down:
            topic = self._unchecked_topics[-1]
            try:
                metadata = self._joined_consumer().list_topics(
                    topic, timeout=_OPTIONAL_REQUEST
                )
            except KafkaException:  # the next check requests it again
                return
            error = metadata.topics[topic].error
            if error is not None and error.code() in UNREADABLE_CODES:
                raise topic_error(error, topic, READ, self._settings)
            self._unchecked_topics.pop()

    def partitions(self) -> tuple[PartitionState, ...]:
        """Return the assigned partitions."""
        return tuple(self._partitions.values())

    def pause(self, partition: PartitionState) -> None:
        """Stop fetching from a partition."""
        if partition.delayed is None:
            self._joined_consumer().pause([_topic_partition(partition)])

    def resume(self, partition: PartitionState) -> None:
        """Fetch from a paused partition again."""
        is_paused = partition.delayed is not None
        partition.clear_delay()
        if is_paused:
            self._joined_consumer().resume([_topic_partition(partition)])

    def commit(self, *, now: bool) -> None:
        """Commit the offsets of finished records; *now* waits for the answer."""
        self._commits.commit(self._joined_consumer(), now=now)

    def lags(self) -> Iterator[tuple[PartitionState, int | None]]:
        """Yield each partition with its number of unread records, None if unknown.

        A paused partition is not fetched, so its end has to be requested.
        """
        consumer, may_request = self._joined_consumer(), not self.connection.is_down
        for partition in self.partitions():
            end = -1
            try:
                if partition.delayed is None:
                    _, end = consumer.get_watermark_offsets(
                        _topic_partition(partition), cached=True
                    )
                elif may_request:
                    _, end = consumer.get_watermark_offsets(
                        _topic_partition(partition), timeout=_OPTIONAL_REQUEST
                    )
            except KafkaException:
                may_request = False
            is_known = end >= 0 and partition.next_offset >= 0
            yield partition, max(end - partition.next_offset, 0) if is_known else None

    def _joined_consumer(self) -> Consumer:
        if self._consumer is None:
            raise BrokerUnavailable("not a member of the group: call `join` first")
        return self._consumer

    def _await_commit(self, consumer: Consumer, seconds: float) -> None:
        """Wait for the answer to a commit; records that arrive are ignored."""
        end = monotonic() + seconds
        while (
            self._commits.is_pending
            and not self.connection.is_down
            and monotonic() < end
        ):
            consumer.poll(_POLL)

    def _process_error(self, message: Message, error: KafkaError) -> None:
        code, topic = error.code(), message.topic() or ""
        if code == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its name
            partition = self._partitions.get((topic, message.partition() or 0))
            self.refusals.pop(topic, None)
            if partition is not None:
                partition.next_offset = message.offset() or 0
        elif is_fatal(error):
            raise BrokerUnavailable(f"this consumer was fenced: {error.str()}")
        elif code == KafkaError.GROUP_AUTHORIZATION_FAILED:
            missing_right = access_error(error, self._settings, group=self._group)
            raise missing_right or BrokerUnavailable(error.str())
        elif code in UNREADABLE_CODES and topic not in self._assigned_topics:
            raise topic_error(error, topic, READ, self._settings)
        else:  # the topic was readable; a starting Kafka serves topics one by one
            log.warning(
                "read_failed", group=self._group, topic=topic or None, error=error.str()
            )
            if code in UNREADABLE_CODES:
                refusal = topic_error(error, topic, READ, self._settings)
                self.refusals[topic] = str(refusal)

    def _retry_refused(self) -> None:
        """Fetch again from refused topics: an answer ends the refusal."""
        for partition in self._partitions.values():
            if (
                partition.topic not in self.refusals
                or partition.next_offset < 0
                or partition.delayed is not None
            ):
                continue
            topic, number = partition.topic, partition.number
            try:
                self._joined_consumer().seek(
                    TopicPartition(topic, number, partition.next_offset)
                )
            except KafkaException as exc:  # the next check tries again
                log.debug("seek_failed", topic=topic, partition=number, error=exc)

    def _on_assign(self, _consumer: Consumer, assigned: list[TopicPartition]) -> None:
        for entry in assigned:
            state = PartitionState(entry.topic, entry.partition)
            self._partitions[entry.topic, entry.partition] = state
            self._assigned_topics.add(entry.topic)
        log.info("assigned", group=self._group, partitions=len(self._partitions))

    def _on_revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        if not self._is_leaving:
            self._before_revoke()
        self._on_lost(consumer, revoked)

    def _on_lost(self, consumer: Consumer, lost: list[TopicPartition]) -> None:
        for entry in lost:
            partition = self._partitions.pop((entry.topic, entry.partition), None)
            if partition is None:
                continue
            if partition.delayed is not None and not self._is_leaving:
                # librdkafka would keep the partition paused if it is assigned again.
                consumer.resume([_topic_partition(partition)])
            self._on_removed(partition.topic, partition.number)
        remaining = {topic for topic, _number in self._partitions}
        for topic in self.refusals.keys() - remaining:
            del self.refusals[topic]

    def _on_commit(
        self, error: KafkaError | None, offsets: list[TopicPartition]
    ) -> None:
        if error is None:
            self.connection.mark_connected()
        self._commits.on_commit(error, offsets)


def _topic_partition(partition: PartitionState) -> TopicPartition:
    return TopicPartition(partition.topic, partition.number)
