"""Transaction: events in, records out, with their offsets, all or nothing.

The fixed `transactional.id` lets the mitigator that opened last write, and no other.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from consumers.errors import Fenced, RecordsRefused
from consumers.mitigation.clock import BrokerClock
from consumers.mitigation.clock import now as boottime
from consumers.mitigation.latest_record import partition_of
from fnm_bus.errors import AccessDenied, BrokerUnavailable, ConfigError
from fnm_bus.kafka.client import (
    ConnectionState,
    build_admin,
    build_consumer,
    build_producer,
    partitions_of,
)
from fnm_bus.kafka.client_errors import (
    access_error,
    topic_error,
)
from fnm_bus.kafka.names import READ, WRITE
from fnm_bus.kafka.reader import UNREADABLE_CODES
from fnm_bus.kafka.record import Record

log = logging.getLogger(__name__)

_TIMEOUT: Final = 10.0
"""Seconds for requests to the broker."""
_ATTEMPTS: Final = 4
"""How often a commit is requested; after that Kafka itself has aborted it."""
_ANSWERS: Final = 10
"""Tenths of a second to wait for the answers to a transaction that failed."""
MAX_EVENTS: Final = 500
"""Events in one transaction."""
_REFUSED: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.POLICY_VIOLATION,
        KafkaError.RECORD_LIST_TOO_LARGE,
    }
)
"""Errors that belong to a record: the same one would be refused again."""
_PURGED: Final = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})  # noqa: SLF001 - their names
_UNREADABLE: Final = UNREADABLE_CODES | {KafkaError.GROUP_AUTHORIZATION_FAILED}
"""Errors of reading that last until a person acts."""

PartitionId = tuple[str, int]
"""Topic and partition."""


class TransactionalJournal:
    """One mitigator's way to and from Kafka.

    Args:
        settings: librdkafka's settings.
        name: transactional id, and the group that keeps the offsets.
        topics: what is read.
        clock: learns the broker's time from the answers to written records.
        compacted: topics whose records go to the partition that their key has among the
            partitions at `open`: a record must not go elsewhere before everything is
            read again.
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        name: str,
        topics: Sequence[str],
        clock: BrokerClock,
        compacted: Sequence[str] = (),
    ) -> None:
        common: dict[str, Any] = dict(settings)
        common.pop("group.protocol", None)  # nobody joins this group
        self._common = common
        self._reading = {
            **common,
            "group.id": name,
            "enable.auto.commit": "false",
            "enable.partition.eof": "false",
            "auto.offset.reset": "earliest",
            # Events and commands are written without transactions: an open one of a
            # foreign program must not hide them.
            "isolation.level": "read_uncommitted",
            # An attack must not wait for more to come with it.
            "fetch.wait.max.ms": "100",
        }
        self._writing = {
            **common,
            "transactional.id": name,
            "transaction.timeout.ms": "30000",
            "linger.ms": "0",
        }
        self._name = name
        self._topics = topics
        self._compacted = compacted
        self._counts: dict[str, int] = {}
        self._clock = clock
        self._consumer: Consumer | None = None
        self._producer: Producer | None = None
        self._reading_state = ConnectionState(self._reading)
        self._writing_state = ConnectionState(self._writing)
        self._offsets: dict[PartitionId, int] = {}
        self._held: dict[PartitionId, int] = {}
        self._refused: tuple[KafkaError, str] | None = None
        self._is_behind: bool | None = None

    def open(self, since: datetime | None) -> None:
        """Find out where reading begins; nothing is written.

        Args:
            since: what to begin with where nobody read before; None: with the first.

        Raises:
            ConfigError: librdkafka refuses the settings, or the transactional id
                belongs to a mitigator with other topics.
            BrokerUnavailable: no broker reachable.
            TopicRefused: a topic does not exist.
        """
        consumer = build_consumer(self._reading, self._reading_state)
        self._consumer = consumer
        try:
            parts = [
                TopicPartition(topic, number, OFFSET_BEGINNING)
                for topic in self._topics
                for number in self._partitions(topic, is_new=True)
            ]
            self._counts = {
                topic: len(self._partitions(topic, is_new=True))
                for topic in self._compacted
            }
            self._check_owner()
            known = consumer.committed(parts, timeout=_TIMEOUT)
            first = _first_offsets(consumer, known, since)
        except KafkaException as exc:
            raise self._denied(exc) or BrokerUnavailable(
                f"no offsets: {exc.args[0].str()}"
            ) from exc
        consumer.assign([*(part for part in known if part.offset >= 0), *first])
        # Committed with the first transaction: they show whose transactional id it is.
        self._offsets |= {(part.topic, part.partition): part.offset for part in first}

    def fence(self) -> None:
        """Shut out the mitigator that wrote before.

        Raises:
            ConfigError: librdkafka refuses the settings.
            Fenced: Kafka does not answer, or refuses.
        """
        self._producer = build_producer(self._writing, self._writing_state, log)
        try:
            self._producer.init_transactions(30)
        except KafkaException as exc:
            raise self._denied(exc) or Fenced(
                f"no transactions: {exc.args[0].str()}"
            ) from exc

    def read(self, timeout: float, limit: int = MAX_EVENTS) -> list[Message]:
        """Return new messages, in the order of the topics.

        Args:
            timeout: seconds to wait while nothing arrives.
            limit: number of messages.

        Raises:
            TopicRefused: a topic does not exist any more, or must not be read.
        """
        messages: list[Message] = []
        consumer = self._consumer
        self._is_behind = None
        while consumer is not None and len(messages) < limit:
            message = consumer.poll(0 if messages else timeout)
            if message is None:
                break
            error = message.error()
            if error is None:
                messages.append(message)
            elif error.code() in _UNREADABLE:
                topic = message.topic() or ""
                raise self._denied(KafkaException(error), topic) or topic_error(
                    error, topic, READ, self._reading
                )
            elif not error.retriable():
                log.warning("reading: %s", error.str())
        rank = {topic: number for number, topic in enumerate(self._topics)}
        return sorted(messages, key=lambda message: rank[message.topic() or ""])

    def is_behind(self, topics: Sequence[str]) -> bool:
        """Return whether *topics* hold records that were not read yet.

        Raises:
            BrokerUnavailable: no broker reachable.
        """
        if self._is_behind is None:
            self._is_behind = any(place[0] in topics for place in self._held) or any(
                self._unread(part) for part in self._positions() if part.topic in topics
            )
        return self._is_behind

    def is_caught_up(self) -> bool:
        """Return whether everything on the topics was read.

        Raises:
            BrokerUnavailable: no broker reachable.
        """
        return not any(self._unread(part) for part in self._positions())

    def check_partitions(self) -> None:
        """Make sure that every partition is read, those that came later as well.

        Raises:
            BrokerUnavailable: a topic has other ones now, or no broker reachable.
            TopicRefused: a topic does not exist any more.
        """
        consumer = self._consumer
        if consumer is None:
            return
        read = {(part.topic, part.partition) for part in consumer.assignment()}
        for topic in self._topics:
            numbers = set(self._partitions(topic))
            if numbers != {number for name, number in read if name == topic}:
                raise BrokerUnavailable(f"{topic} has other partitions now")
        self.check_counts(
            {topic: len(self._partitions(topic)) for topic in self._counts}
        )

    def check_counts(self, counts: Mapping[str, int]) -> None:
        """Make sure that records go to the partitions of which *counts* knows.

        Args:
            counts: compacted topic → number of its partitions.

        Raises:
            BrokerUnavailable: a topic had another number of them at `open`.
        """
        for topic, count in self._counts.items():
            if counts[topic] != count:
                raise BrokerUnavailable(
                    f"{topic} has other partitions now: {counts[topic]}, not {count}"
                )

    def done(self, message: Message) -> None:
        """Let the next commit cover *message*."""
        self._offsets[partition_id(message)] = (message.offset() or 0) + 1

    def hold(self, message: Message) -> None:
        """Stop its partition, and read from *message* on after `release`."""
        place = partition_id(message)
        if self._consumer is None or place in self._held:
            return
        self._held[place] = message.offset() or 0
        self._consumer.pause([TopicPartition(*place)])

    def is_paused(self, message: Message) -> bool:
        """Return whether *message* comes after one that is to be read again."""
        return partition_id(message) in self._held

    def release(self) -> None:
        """Read the partitions again that `hold` stopped."""
        for place, offset in self._held.items():
            if self._consumer is not None:
                self._consumer.seek(TopicPartition(*place, offset))
                self._consumer.resume([TopicPartition(*place)])
        self._held.clear()

    def commit(self, records: Iterable[Record]) -> None:
        """Write *records* and the offsets of what is done, all or nothing.

        Raises:
            Fenced: nothing of it counts; the state has to be read anew.
            RecordsRefused: likewise, because of one of the records.
        """
        producer, consumer = self._producer, self._consumer
        if producer is None or consumer is None:
            raise Fenced("not open")
        offsets = [TopicPartition(*place, at) for place, at in self._offsets.items()]
        self._refused = None
        try:
            producer.begin_transaction()
            for record in records:
                self._produce(producer, record)
            if offsets:
                producer.send_offsets_to_transaction(
                    offsets, consumer.consumer_group_metadata(), _TIMEOUT
                )
            _commit(producer)
            producer.poll(0)  # answers that came with the commit
        except KafkaException as exc:
            for _ in range(_ANSWERS):  # the error of one record explains the others
                if not len(producer):
                    break
                producer.poll(0.1)
            error, topic = self._refused or (exc.args[0], "")
            if error.code() in _REFUSED:
                raise RecordsRefused(f"{topic}: {error.str()}") from exc
            denied = access_error(
                error,
                self._common,
                topic=topic,
                operation=WRITE,
                group=self._name,
                transactional_id=self._name,
            )
            raise Fenced(str(denied or _reason(error, topic))) from exc
        self._offsets.clear()

    @property
    def pending(self) -> bool:
        """Whether offsets wait for a commit."""
        return bool(self._offsets)

    def close(self) -> None:
        """Release every resource; what is not committed does not count."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
        if self._producer is not None:
            # Not waited for: the next fence aborts what is open.
            self._producer.purge()
            self._producer = None
        self._offsets.clear()
        self._held.clear()

    def _check_owner(self) -> None:
        """Refuse an id under which a mitigator with other topics keeps its offsets."""
        admin = build_admin(self._common, ConnectionState(self._common))
        [answer] = admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(self._name)], request_timeout=_TIMEOUT
        ).values()
        parts = answer.result().topic_partitions
        foreign = sorted({part.topic for part in parts} - set(self._topics))
        if foreign:
            raise ConfigError(
                f"[consumers.mitigator] transactional_id: {self._name} belongs to a"
                f" mitigator that reads {', '.join(foreign[:3])}. Set an id of its own"
                " for each mitigator with other topics; if that one is gone, delete"
                f" its group: kafka-consumer-groups --delete --group {self._name}"
            )

    def _partitions(self, topic: str, *, is_new: bool = False) -> list[int]:
        if self._consumer is None:
            return []
        return partitions_of(self._consumer, topic, self._reading_state, is_new=is_new)

    def _denied(self, error: KafkaException, topic: str = "") -> AccessDenied | None:
        """Return which right is missing, if *error* is about one."""
        return access_error(
            error.args[0],
            self._common,
            topic=topic,
            group=self._name,
            transactional_id=self._name,
        )

    def _partition(self, record: Record) -> int:
        count = self._counts.get(record.topic)
        if record.partition >= 0 or count is None:
            return record.partition
        return partition_of(record.key or b"", count)

    def _positions(self) -> list[TopicPartition]:
        consumer = self._consumer
        if consumer is None:
            return []
        assigned = consumer.assignment()
        try:
            positions = consumer.position(assigned)
        except KafkaException as exc:
            raise BrokerUnavailable(f"no positions: {exc.args[0].str()}") from exc
        # Nothing was read of a partition yet: it is where its reading began.
        began = {(part.topic, part.partition): part.offset for part in assigned}
        for part in positions:
            if part.offset < 0:
                part.offset = began[part.topic, part.partition]
        return positions

    def _unread(self, part: TopicPartition) -> bool:
        consumer = self._consumer
        if consumer is None:
            return False
        try:
            _low, high = consumer.get_watermark_offsets(part, _TIMEOUT)
        except KafkaException as exc:
            raise BrokerUnavailable(f"no offsets: {exc.args[0].str()}") from exc
        return bool(part.offset < high)

    def _produce(self, producer: Producer, record: Record) -> None:
        asked = boottime()

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                # The others of the transaction fail because of the one that is refused.
                if error.code() not in _PURGED:
                    self._refused = error, record.topic
                return
            kind, stamp = message.timestamp()
            if kind == TIMESTAMP_LOG_APPEND_TIME:
                self._clock.learn(asked, boottime(), stamp / 1000)

        while True:
            try:
                producer.produce(
                    record.topic,
                    value=record.value,
                    key=record.key,
                    headers=list(record.headers),
                    partition=self._partition(record),
                    on_delivery=delivered,
                )
            except BufferError:
                producer.poll(0.1)
            else:
                return


def partition_id(message: Message) -> PartitionId:
    """Return the topic and partition of a message."""
    return message.topic() or "", message.partition() or 0


def _first_offsets(
    consumer: Consumer, known: Sequence[TopicPartition], since: datetime | None
) -> list[TopicPartition]:
    """Return the partitions without a committed offset, with where reading begins.

    That is what came after *since*; but a partition that a topic got since it was read
    last is read whole.
    """
    read = {part.topic for part in known if part.offset >= 0}
    new = [part for part in known if part.offset < 0]
    first: list[TopicPartition] = []
    for since_then, parts in (
        (since, [part for part in new if part.topic not in read]),
        (None, [part for part in new if part.topic in read]),
    ):
        if parts:
            first += _beginning(consumer, parts, since_then)
    return first


def _beginning(
    consumer: Consumer, parts: list[TopicPartition], since: datetime | None
) -> list[TopicPartition]:
    """Return *parts* with the offsets of what came after *since*."""
    marks = [consumer.get_watermark_offsets(part, _TIMEOUT) for part in parts]
    if since is None:
        first = [low for low, _high in marks]
    else:
        stamp = round(since.timestamp() * 1000)
        asked = [TopicPartition(part.topic, part.partition, stamp) for part in parts]
        answers = consumer.offsets_for_times(asked, timeout=_TIMEOUT)
        # "The end" would be wherever it is at the first fetch: it was asked for before.
        first = [
            answer.offset if answer.offset >= 0 else high
            for answer, (_low, high) in zip(answers, marks, strict=True)
        ]
    return [
        TopicPartition(part.topic, part.partition, offset)
        for part, offset in zip(parts, first, strict=True)
    ]


def _commit(producer: Producer) -> None:
    for left in reversed(range(_ATTEMPTS)):
        try:
            producer.commit_transaction(_TIMEOUT)
        except KafkaException as exc:
            # The outcome is not known yet: librdkafka wants the same call again.
            if not left or not exc.args[0].retriable():
                raise
            log.warning("commit: %s; trying again", exc.args[0].str())
        else:
            return


def _reason(error: KafkaError, topic: str) -> str:
    if error.code() in {KafkaError._FENCED, KafkaError.PRODUCER_FENCED}:  # noqa: SLF001 - its name
        return "another mitigator writes now"
    place = f"{topic}: " if topic else ""
    return f"the transaction failed: {place}{error.str()}"
