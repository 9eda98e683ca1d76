"""Topic scan: the latest record of each key of a compacted topic, quickly.

An hour of renewals is read as bytes; only what is the latest of its key is decoded.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from time import monotonic
from typing import Any, Final, NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from fnm_bus.errors import BrokerUnavailable, ConfigError, TopicRefused
from fnm_bus.reader import time_of

_TIMEOUT: Final = 10.0
_AT_ONCE: Final = 10_000
_STALLED: Final = 30.0
"""Seconds without any answer about the partitions that are not read to their ends."""


class Raw(NamedTuple):
    """The latest record of a key, not decoded.

    Attributes:
        value: its bytes; never empty.
        at: the broker's time of the record, UTC.
    """

    value: bytes
    at: datetime


Latest = dict[bytes, Raw]


def scan(
    settings: Mapping[str, str],
    topics: Sequence[str],
    is_stopping: Callable[[], bool] = lambda: False,
) -> dict[str, Latest]:
    """Return topic → key → latest record, without the keys that have a tombstone.

    Of two records of one key in two partitions, the later one by the broker's time
    counts. Nothing is committed, and no group is joined.

    Args:
        settings: librdkafka's settings.
        topics: names of compacted topics.
        is_stopping: checked between reads.

    Raises:
        ConfigError: librdkafka refuses the settings.
        BrokerUnavailable: no broker answers, a partition has no leader, or
            *is_stopping* returned true.
        TopicRefused: a topic does not exist, or must not be read.
    """
    try:
        consumer = Consumer(
            {
                "log_level": "2",
                **settings,
                # Whatever [kafka] has: looking joins no group and creates no topic.
                "group.id": "fnm-bus-scan",
                "allow.auto.create.topics": "false",
                "enable.auto.commit": "false",
                "enable.partition.eof": "true",
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
            }
        )
    except KafkaException as exc:
        raise ConfigError(f"[kafka]: {exc.args[0].str()}") from exc
    try:
        parts = [part for topic in topics for part in _partitions(consumer, topic)]
        consumer.assign(parts)
        return _scan(consumer, parts, is_stopping)
    finally:
        consumer.close()


class _Found(NamedTuple):
    partition: int | None
    stamp: int
    value: bytes | None


def _scan(
    consumer: Consumer,
    parts: Sequence[TopicPartition],
    is_stopping: Callable[[], bool],
) -> dict[str, Latest]:
    newest: dict[str, dict[bytes, _Found]] = {part.topic: {} for part in parts}
    unread = {(part.topic, part.partition) for part in parts}
    answered = monotonic()
    while unread:
        if is_stopping():
            raise BrokerUnavailable("stopping")
        messages = consumer.consume(_AT_ONCE, 1.0)
        if messages:
            answered = monotonic()
        else:
            _partitions(consumer, parts[0].topic)  # raises when nobody answers
            _check_progress(unread, monotonic() - answered)
        for message in messages:
            error = message.error()
            if error is None:
                _take(newest[message.topic() or ""], message)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its name
                unread.discard((message.topic() or "", message.partition() or 0))
            elif not error.retriable():
                raise TopicRefused(f"{message.topic()}: {error.str()}")
    return {
        topic: {
            key: Raw(it.value, time_of(it.stamp))
            for key, it in known.items()
            if it.value
        }
        for topic, known in newest.items()
    }


def _take(known: dict[bytes, _Found], message: Message) -> None:
    """Let a record count, unless a later one of its key is in another partition.

    Within a partition the order counts: a new leader's clock may be behind.
    """
    key = message.key() or b""
    it = _Found(message.partition(), message.timestamp()[1], message.value())
    before = known.get(key)
    if before is None or before.partition == it.partition or before.stamp <= it.stamp:
        known[key] = it


def _check_progress(unread: Iterable[tuple[str, int]], silent: float) -> None:
    """Raise where a partition has no leader: librdkafka would wait for ever."""
    if silent >= _STALLED:
        names = ", ".join(f"{topic}/{number}" for topic, number in sorted(unread)[:5])
        raise BrokerUnavailable(f"nothing came for {silent:.0f} s of {names}")


def _partitions(consumer: Consumer, topic: str) -> list[TopicPartition]:
    try:
        known: Any = consumer.list_topics(topic, timeout=_TIMEOUT).topics[topic]
    except KafkaException as exc:
        raise BrokerUnavailable(f"no broker answers: {exc.args[0].str()}") from exc
    if known.error is not None:
        raise TopicRefused(
            f"{topic}: {known.error.str()}; `fnm-bus topics create` creates it"
        )
    return [
        TopicPartition(topic, number, OFFSET_BEGINNING) for number in known.partitions
    ]
