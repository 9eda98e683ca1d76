"""Topic scan: the latest record of each key of a compacted topic, quickly.

An hour of renewals is read as bytes; only what is the latest of its key is decoded.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from time import monotonic
from typing import Final, NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    Message,
    TopicPartition,
)

from fnm_bus.errors import BrokerUnavailable
from fnm_bus.kafka.client import (
    ConnectionState,
    build_reader,
    partitions_of,
    topic_error,
)
from fnm_bus.kafka.names import READ
from fnm_bus.reader import REFUSED, time_of

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
    state = ConnectionState(settings)
    consumer = build_reader({**settings, "isolation.level": "read_committed"}, state)
    try:
        parts = [
            TopicPartition(topic, number, OFFSET_BEGINNING)
            for topic in topics
            for number in partitions_of(consumer, topic, state, is_new=True)
        ]
        consumer.assign(parts)
        return _scan(consumer, parts, state, is_stopping)
    finally:
        consumer.close()


class _Found(NamedTuple):
    partition: int | None
    stamp: int
    value: bytes | None


def _scan(
    consumer: Consumer,
    parts: Sequence[TopicPartition],
    state: ConnectionState,
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
            partitions_of(consumer, parts[0].topic, state)  # raises if none answers
            _check_progress(unread, monotonic() - answered)
        for message in messages:
            error = message.error()
            if error is None:
                _take(newest[message.topic() or ""], message)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its name
                unread.discard((message.topic() or "", message.partition() or 0))
            elif not error.retriable() and error.code() in REFUSED:
                topic = message.topic() or ""
                raise topic_error(error, topic, READ, state.settings)
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
