"""Journal: events in, the wanted state out, in one transaction of Kafka's.

Input offsets and records are committed together or not at all, and the fixed
`transactional.id` lets the mitigator that opened last write, and no other.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from fnm_bus.errors import BrokerUnavailable, ConfigError, TopicRefused
from fnm_bus.record import Record

log = logging.getLogger(__name__)

_ANSWER: Final = 10.0
"""Seconds for questions to the broker."""
_ATTEMPTS: Final = 4
"""How often a commit is asked for; after that Kafka itself has aborted it."""
_AT_ONCE: Final = 500
"""Events in one transaction."""


class Fenced(BrokerUnavailable):
    """Another mitigator writes now, or the transaction failed: begin anew."""


class Journal:
    """One mitigator's way to and from Kafka.

    Args:
        settings: librdkafka's settings.
        name: transactional id, and the group that keeps the offsets.
        topics: what is read.
    """

    def __init__(
        self, settings: Mapping[str, str], name: str, topics: Sequence[str]
    ) -> None:
        common: dict[str, Any] = {"log_level": "2", **settings}
        common.pop("group.protocol", None)  # nobody joins this group
        self._reading = {
            **common,
            "group.id": name,
            "enable.auto.commit": "false",
            "enable.partition.eof": "false",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            # An attack must not wait for more to come with it.
            "fetch.wait.max.ms": "100",
        }
        self._writing = {
            **common,
            "transactional.id": name,
            "transaction.timeout.ms": "30000",
            "linger.ms": "0",
        }
        self._topics = topics
        self._consumer: Consumer | None = None
        self._producer: Producer | None = None
        self._offsets: dict[tuple[str, int], int] = {}
        self._held: dict[tuple[str, int], int] = {}

    def fence(self) -> None:
        """Shut out whoever wrote before.

        Raises:
            ConfigError: librdkafka refuses the settings.
            Fenced: Kafka does not answer, or refuses.
        """
        try:
            self._producer = Producer(self._writing, logger=log)
        except KafkaException as exc:
            raise ConfigError(f"[kafka]: {exc.args[0].str()}") from exc
        try:
            self._producer.init_transactions(30)
        except KafkaException as exc:
            raise Fenced(f"no transactions: {exc.args[0].str()}") from exc

    def open(self, since: datetime | None) -> None:
        """Begin to read where the one before stopped.

        Args:
            since: what to begin with where none was before; None: with the first.

        Raises:
            ConfigError: librdkafka refuses the settings.
            BrokerUnavailable: no broker answers.
            TopicRefused: a topic does not exist.
        """
        try:
            consumer = Consumer(self._reading)
        except KafkaException as exc:
            raise ConfigError(f"[kafka]: {exc.args[0].str()}") from exc
        self._consumer = consumer
        try:
            parts = [it for topic in self._topics for it in _of(consumer, topic)]
            known = consumer.committed(parts, timeout=_ANSWER)
            new = [it for it in known if it.offset < 0]
            found = _beginning(consumer, new, since) if new else []
        except KafkaException as exc:
            raise BrokerUnavailable(f"no offsets: {exc.args[0].str()}") from exc
        consumer.assign([*(it for it in known if it.offset >= 0), *found])

    def read(self, timeout: float) -> list[Message]:
        """Return what came, after up to *timeout* seconds when nothing is there."""
        found: list[Message] = []
        consumer = self._consumer
        while consumer is not None and len(found) < _AT_ONCE:
            message = consumer.poll(0 if found else timeout)
            if message is None:
                break
            error = message.error()
            if error is None:
                found.append(message)
            elif not error.retriable():
                log.warning("reading: %s", error.str())
        return found

    def caught_up(self) -> bool:
        """Return whether everything that stands on the topics was read.

        Raises:
            BrokerUnavailable: no broker answers.
        """
        if self._consumer is None:
            return False
        try:
            return all(
                it.offset >= self._consumer.get_watermark_offsets(it, _ANSWER)[1]
                for it in self._positions(self._consumer)
            )
        except KafkaException as exc:
            raise BrokerUnavailable(f"no offsets: {exc.args[0].str()}") from exc

    def done(self, message: Message) -> None:
        """Let the next commit say that *message* is dealt with."""
        place = message.topic() or "", message.partition() or 0
        self._offsets[place] = (message.offset() or 0) + 1

    def again(self, message: Message) -> None:
        """Read *message*'s partition again from there, after `resume`."""
        place = message.topic() or "", message.partition() or 0
        if self._consumer is None or place in self._held:
            return
        self._held[place] = message.offset() or 0
        self._consumer.pause([TopicPartition(*place)])

    def held(self, message: Message) -> bool:
        """Return whether *message* comes after one that is to be read again."""
        return (message.topic() or "", message.partition() or 0) in self._held

    def resume(self) -> None:
        """Go on with the partitions that `again` stopped."""
        for place, offset in self._held.items():
            if self._consumer is not None:
                self._consumer.seek(TopicPartition(*place, offset))
                self._consumer.resume([TopicPartition(*place)])
        self._held.clear()

    def commit(self, records: Iterable[Record]) -> None:
        """Write *records* and the offsets of what is done, all or nothing.

        Raises:
            Fenced: nothing of it counts; the state has to be read anew.
        """
        producer, consumer = self._producer, self._consumer
        if producer is None or consumer is None:
            raise Fenced("not open")
        offsets = [TopicPartition(*place, at) for place, at in self._offsets.items()]
        try:
            producer.begin_transaction()
            for record in records:
                _produce(producer, record)
            if offsets:
                producer.send_offsets_to_transaction(
                    offsets, consumer.consumer_group_metadata(), _ANSWER
                )
            _committed(producer)
        except KafkaException as exc:
            raise Fenced(_why(exc.args[0])) from exc
        self._offsets.clear()

    @staticmethod
    def _positions(consumer: Consumer) -> list[TopicPartition]:
        assigned = consumer.assignment()
        found = consumer.position(assigned)
        # Nothing was read of a partition yet: it is where its reading began.
        began = {(it.topic, it.partition): it.offset for it in assigned}
        for it in found:
            if it.offset < 0:
                it.offset = began[it.topic, it.partition]
        return found

    @property
    def pending(self) -> bool:
        """Whether offsets wait for a commit."""
        return bool(self._offsets)

    def close(self) -> None:
        """Let go of everything; what is not committed does not count."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
        if self._producer is not None:
            # Not to be waited for: another one's fence aborts what is open.
            self._producer.purge()
            self._producer = None
        self._offsets.clear()
        self._held.clear()


def _of(consumer: Consumer, topic: str) -> list[TopicPartition]:
    try:
        found = consumer.list_topics(topic, timeout=_ANSWER).topics[topic]
    except KafkaException as exc:
        raise BrokerUnavailable(f"no broker answers: {exc.args[0].str()}") from exc
    if found.error is not None:
        raise TopicRefused(
            f"{topic}: {found.error.str()}; `fnm-bus topics create` makes it"
        )
    return [TopicPartition(topic, it, OFFSET_BEGINNING) for it in found.partitions]


def _beginning(
    consumer: Consumer, parts: list[TopicPartition], since: datetime | None
) -> list[TopicPartition]:
    """Return *parts* with the offsets of what came after *since*."""
    marks = [consumer.get_watermark_offsets(it, _ANSWER) for it in parts]
    if since is None:
        first = [low for low, _high in marks]
    else:
        stamp = round(since.timestamp() * 1000)
        asked = [TopicPartition(it.topic, it.partition, stamp) for it in parts]
        found = consumer.offsets_for_times(asked, timeout=_ANSWER)
        # "The end" would be wherever it is at the first fetch: it was asked for before.
        first = [
            it.offset if it.offset >= 0 else high
            for it, (_low, high) in zip(found, marks, strict=True)
        ]
    return [
        TopicPartition(it.topic, it.partition, offset)
        for it, offset in zip(parts, first, strict=True)
    ]


def _produce(producer: Producer, record: Record) -> None:
    while True:
        try:
            producer.produce(
                record.topic,
                value=record.value,
                key=record.key,
                headers=list(record.headers),
            )
        except BufferError:  # a pause of everything may be many records
            producer.poll(0.1)
        else:
            return


def _committed(producer: Producer) -> None:
    for left in reversed(range(_ATTEMPTS)):
        try:
            producer.commit_transaction(_ANSWER)
        except KafkaException as exc:
            # The outcome is not known yet: to ask again is what librdkafka wants.
            if not left or not exc.args[0].retriable():
                raise
            log.warning("commit: %s; asking again", exc.args[0].str())
        else:
            return


def _why(error: KafkaError) -> str:
    if error.code() in {KafkaError._FENCED, KafkaError.PRODUCER_FENCED}:  # noqa: SLF001 - its name
        return "another mitigator writes now"
    return f"the transaction failed: {error.str()}"
