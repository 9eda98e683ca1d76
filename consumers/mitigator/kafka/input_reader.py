"""Input reader: events and commands from Kafka, from the committed offsets on."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from consumers.mitigator.kafka.first_offsets import TIMEOUT, first_offsets
from fnm_bus.errors import AccessDenied, BrokerUnavailable, ConfigError
from fnm_bus.kafka.client import (
    ConnectionState,
    build_admin,
    build_consumer,
    partitions_of,
)
from fnm_bus.kafka.client_errors import access_error, topic_error
from fnm_bus.kafka.names import READ
from fnm_bus.kafka.reader import UNREADABLE_CODES
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

MAX_EVENTS: Final = 500
"""Events in one transaction."""
_UNREADABLE: Final = UNREADABLE_CODES | {KafkaError.GROUP_AUTHORIZATION_FAILED}
"""Errors of reading that last until a person acts."""

PartitionId = tuple[str, int]
"""Topic and partition."""


class InputReader:
    """One mitigator's reading of events and commands.

    Args:
        group: consumer group that keeps the offsets; the reader does not join it.
        topics: to read, in the order in which simultaneous messages are processed.
    """

    def __init__(
        self, settings: Mapping[str, str], group: str, topics: Sequence[str]
    ) -> None:
        common: dict[str, Any] = dict(settings)
        common.pop("group.protocol", None)
        self._common = common
        self._settings = {
            **common,
            "group.id": group,
            "enable.auto.commit": "false",
            "enable.partition.eof": "false",
            "auto.offset.reset": "earliest",
            # Events and commands are written without transactions: another program's
            # open transaction must not hide them.
            "isolation.level": "read_uncommitted",
            # An attack must not wait for further records.
            "fetch.wait.max.ms": "100",
        }
        self._group = group
        self._topics = topics
        self._opened: Consumer | None = None
        self._connection = ConnectionState(self._settings)
        self._paused: dict[PartitionId, int] = {}
        self._is_behind: bool | None = None

    def open(self, since: datetime | None) -> dict[PartitionId, int]:
        """Find the offsets where reading begins; nothing is written.

        Args:
            since: the oldest messages to read from topics without committed offsets;
                None: from the beginning.

        Returns:
            The first offsets of partitions without committed offsets.

        Raises:
            ConfigError: librdkafka refuses the settings, or the group belongs to a
                mitigator with other topics.
            BrokerUnavailable: no broker answers.
            TopicRefused: a topic does not exist.
        """
        consumer = build_consumer(self._settings, self._connection)
        self._opened = consumer
        try:
            partitions = [
                TopicPartition(topic, number, OFFSET_BEGINNING)
                for topic in self._topics
                for number in self.partitions(topic, is_new=True)
            ]
            self._check_owner()
            committed = consumer.committed(partitions, timeout=TIMEOUT)
            first = first_offsets(consumer, committed, since)
        except KafkaException as exc:
            raise self._access_error(exc.args[0]) or BrokerUnavailable(
                f"no offsets: {exc.args[0].str()}"
            ) from exc
        consumer.assign(
            [*(partition for partition in committed if partition.offset >= 0), *first]
        )
        return {_id_of(partition): partition.offset for partition in first}

    def read(self, timeout: float, limit: int = MAX_EVENTS) -> list[Message]:
        """Return new messages, in the order of the topics.

        Raises:
            TopicRefused: a topic was deleted, or must not be read.
        """
        messages: list[Message] = []
        self._is_behind = None
        while len(messages) < limit:
            message = self._consumer.poll(0 if messages else timeout)
            if message is None:
                break
            error = message.error()
            if error is None:
                messages.append(message)
            elif error.code() in _UNREADABLE:
                topic = message.topic() or ""
                raise self._access_error(error, topic) or topic_error(
                    error, topic, READ, self._settings
                )
            elif not error.retriable():
                log.warning("input_error", error=error.str())
        rank = {topic: number for number, topic in enumerate(self._topics)}
        return sorted(messages, key=lambda message: rank[message.topic() or ""])

    def is_behind(self, topics: Sequence[str]) -> bool:
        """Return whether *topics* have unread messages.

        Raises:
            BrokerUnavailable: no broker answers.
        """
        if self._is_behind is None:
            self._is_behind = any(topic in topics for topic, _ in self._paused) or any(
                self._is_unread(partition)
                for partition in self._positions()
                if partition.topic in topics
            )
        return self._is_behind

    def is_caught_up(self) -> bool:
        """Return whether every message on the topics was read.

        Raises:
            BrokerUnavailable: no broker answers.
        """
        return not any(self._is_unread(partition) for partition in self._positions())

    def check_partitions(self) -> None:
        """Check that every partition is read, including new ones.

        Raises:
            BrokerUnavailable: a topic has other partitions, or no broker answers.
            TopicRefused: a topic was deleted.
        """
        assigned = set(map(_id_of, self._consumer.assignment()))
        for topic in self._topics:
            numbers = set(self.partitions(topic))
            if numbers != {number for name, number in assigned if name == topic}:
                raise BrokerUnavailable(f"{topic} has other partitions now")

    def partitions(self, topic: str, *, is_new: bool = False) -> list[int]:
        """Return the numbers of a topic's partitions, as `partitions_of` does."""
        return partitions_of(self._consumer, topic, self._connection, is_new=is_new)

    def pause_at(self, message: Message) -> None:
        """Pause the message's partition; `resume` reads it again from *message* on."""
        partition = partition_id(message)
        if partition in self._paused:
            return
        self._paused[partition] = message.offset() or 0
        self._consumer.pause([TopicPartition(*partition)])

    def is_paused(self, message: Message) -> bool:
        """Return whether the message's partition is paused."""
        return partition_id(message) in self._paused

    def resume(self) -> None:
        """Resume all paused partitions."""
        for partition, offset in self._paused.items():
            self._consumer.seek(TopicPartition(*partition, offset))
            self._consumer.resume([TopicPartition(*partition)])
        self._paused.clear()

    def group_metadata(self) -> object:
        """Return the group for a transaction's offsets."""
        return self._consumer.consumer_group_metadata()

    def close(self) -> None:
        """Close the consumer; no offset is committed."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None
        self._paused.clear()

    @property
    def _consumer(self) -> Consumer:
        if self._opened is None:
            raise BrokerUnavailable("not open")
        return self._opened

    def _check_owner(self) -> None:
        """Refuse the group of a mitigator with other topics."""
        admin = build_admin(self._common, ConnectionState(self._common))
        [answer] = admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(self._group)], request_timeout=TIMEOUT
        ).values()
        partitions = answer.result().topic_partitions
        foreign = sorted(
            {partition.topic for partition in partitions} - set(self._topics)
        )
        if foreign:
            raise ConfigError(
                f"[consumers.mitigator] transactional_id: {self._group} belongs to a"
                f" mitigator that reads {', '.join(foreign[:3])}. Set a different id"
                " for each mitigator with other topics. If that mitigator was removed,"
                " delete its group: kafka-consumer-groups --delete --group"
                f" {self._group}"
            )

    def _access_error(self, error: KafkaError, topic: str = "") -> AccessDenied | None:
        """Return the missing right, if *error* is about one."""
        return access_error(
            error,
            self._common,
            topic=topic,
            group=self._group,
            transactional_id=self._group,
        )

    def _positions(self) -> list[TopicPartition]:
        assigned = self._consumer.assignment()
        try:
            positions = self._consumer.position(assigned)
        except KafkaException as exc:
            raise BrokerUnavailable(f"no positions: {exc.args[0].str()}") from exc
        # An unread partition has no position yet: use the offset of its assignment.
        first = {_id_of(partition): partition.offset for partition in assigned}
        for position in positions:
            if position.offset < 0:
                position.offset = first[_id_of(position)]
        return positions

    def _is_unread(self, position: TopicPartition) -> bool:
        try:
            _low, high = self._consumer.get_watermark_offsets(position, TIMEOUT)
        except KafkaException as exc:
            raise BrokerUnavailable(f"no offsets: {exc.args[0].str()}") from exc
        return bool(position.offset < high)


def _id_of(partition: TopicPartition) -> PartitionId:
    return partition.topic, partition.partition


def partition_id(message: Message) -> PartitionId:
    """Return the topic and partition of a message."""
    return message.topic() or "", message.partition() or 0
