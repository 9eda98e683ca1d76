"""Topic scan: the latest record of each key of a compacted topic, quickly.

An hour of renewals is read as bytes; only what is the latest of its key is decoded.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from fnm_bus.errors import BrokerUnavailable, ConfigError, TopicRefused

_TIMEOUT: Final = 10.0
_AT_ONCE: Final = 10_000


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
        BrokerUnavailable: no broker answers, or *is_stopping* returned true.
        TopicRefused: a topic does not exist, or must not be read.
    """
    try:
        consumer = Consumer(
            {
                "group.id": "fnm-bus-scan",  # only a name: nobody joins it
                "log_level": "2",
                **settings,
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
        return _scan(consumer, topics, len(parts), is_stopping)
    finally:
        consumer.close()


def _scan(
    consumer: Consumer,
    topics: Sequence[str],
    open_parts: int,
    is_stopping: Callable[[], bool],
) -> dict[str, Latest]:
    newest: dict[str, dict[bytes, tuple[int, bytes | None]]] = {t: {} for t in topics}
    ended: set[tuple[str | None, int | None]] = set()
    while len(ended) < open_parts:
        if is_stopping():
            raise BrokerUnavailable("stopping")
        messages = consumer.consume(_AT_ONCE, 1.0)
        if not messages:
            _partitions(consumer, topics[0])  # raises when nobody answers
        for message in messages:
            error = message.error()
            if error is None:
                key = message.key() or b""
                stamp = message.timestamp()[1]
                known = newest[message.topic() or ""]
                if key not in known or known[key][0] <= stamp:
                    known[key] = stamp, message.value()
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its name
                ended.add((message.topic(), message.partition()))
            elif not error.retriable():
                raise TopicRefused(f"{message.topic()}: {error.str()}")
    return {
        topic: {
            key: Raw(value, datetime.fromtimestamp(stamp / 1000, UTC))
            for key, (stamp, value) in known.items()
            if value
        }
        for topic, known in newest.items()
    }


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
