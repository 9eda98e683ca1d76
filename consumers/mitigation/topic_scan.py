"""Topic scan: the latest record of each key of a compacted topic.

Records are compared as bytes, so that an hour of renewals is read quickly. Only the
latest record of each key is decoded.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import reduce
from time import monotonic
from typing import Final, NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    Message,
    TopicPartition,
)

from consumers.mitigation.latest_record import Origin, supersedes
from fnm_bus.errors import BrokerUnavailable
from fnm_bus.kafka.client import ConnectionState, build_reader, partitions_of
from fnm_bus.kafka.client_errors import topic_error
from fnm_bus.kafka.names import READ
from fnm_bus.kafka.reader import UNREADABLE_CODES, record_time

_BATCH: Final = 10_000
_STALLED: Final = 30.0
"""Seconds without any record of a partition that was not read to its end."""


class RawRecord(NamedTuple):
    """The latest record of a key, not decoded.

    Attributes:
        value: its bytes; never empty.
        at: the broker's time of the record, UTC.
        partition: of the record.
    """

    value: bytes
    at: datetime
    partition: int = 0


Latest = dict[bytes, RawRecord]


class Scan(NamedTuple):
    """The contents of compacted topics.

    Attributes:
        latest: topic → key → latest record, without the keys that have a tombstone.
        others: topic → key → partitions with an older record of a key in `latest`; the
            topic was given more partitions.
        partitions: topic → number of its partitions.
    """

    latest: dict[str, Latest]
    others: dict[str, dict[bytes, tuple[int, ...]]]
    partitions: dict[str, int]


def scan_topics(
    settings: Mapping[str, str],
    topics: Sequence[str],
    is_stopping: Callable[[], bool] = lambda: False,
    revision_of: Callable[[bytes], int] = lambda _value: 0,
) -> Scan:
    """Return the latest record of each key.

    If a key has records in two partitions, the later one counts (`latest_record`).
    Nothing is committed, and no group is joined.

    Args:
        settings: librdkafka's settings.
        topics: names of compacted topics.
        is_stopping: checked between reads.
        revision_of: returns the revision of a record; called for keys with records in
            two partitions.

    Raises:
        ConfigError: librdkafka refuses the settings.
        BrokerUnavailable: no broker reachable, a partition has no leader, or
            *is_stopping* returned true.
        TopicRefused: a topic does not exist, or must not be read.
    """
    state = ConnectionState(settings)
    consumer = build_reader({**settings, "isolation.level": "read_committed"}, state)
    try:
        partitions = [
            TopicPartition(topic, number, OFFSET_BEGINNING)
            for topic in topics
            for number in partitions_of(consumer, topic, state, is_new=True)
        ]
        consumer.assign(partitions)
        by_topic = _read(consumer, partitions, state, is_stopping)
    finally:
        consumer.close()
    latest: dict[str, Latest] = {}
    others: dict[str, dict[bytes, tuple[int, ...]]] = {}
    for topic, records in by_topic.items():
        latest[topic], others[topic] = _merge_partitions(records, revision_of)
    counts = Counter(partition.topic for partition in partitions)
    return Scan(latest, others, dict(counts))


_PartitionRecords = dict[tuple[bytes, int], tuple[int, bytes]]
"""Key and partition → time and value of its latest record; no tombstones."""


def _read(
    consumer: Consumer,
    partitions: Sequence[TopicPartition],
    state: ConnectionState,
    is_stopping: Callable[[], bool],
) -> dict[str, _PartitionRecords]:
    by_topic: dict[str, _PartitionRecords] = {
        partition.topic: {} for partition in partitions
    }
    started = monotonic()
    unread = {(part.topic, part.partition): started for part in partitions}
    while unread:
        if is_stopping():
            raise BrokerUnavailable("stopping")
        messages = consumer.consume(_BATCH, 1.0)
        if not messages:
            partitions_of(
                consumer, partitions[0].topic, state
            )  # raises if none answers
        now = monotonic()
        for message in messages:
            error, topic = message.error(), message.topic() or ""
            partition = topic, message.partition() or 0
            if error is None:
                _store(by_topic[topic], message)
                if partition in unread:
                    unread[partition] = now
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its name
                unread.pop(partition, None)
            elif not error.retriable() and error.code() in UNREADABLE_CODES:
                raise topic_error(error, topic, READ, state.settings)
        _check_progress(unread, now)
    return by_topic


def _store(records: _PartitionRecords, message: Message) -> None:
    origin = message.key() or b"", message.partition() or 0
    value = message.value()
    if value:
        records[origin] = message.timestamp()[1], value
    else:
        records.pop(origin, None)


def _merge_partitions(
    records: _PartitionRecords, revision_of: Callable[[bytes], int]
) -> tuple[Latest, dict[bytes, tuple[int, ...]]]:
    """Return the latest record of each key, and the partitions of older ones."""
    by_key: dict[bytes, list[Origin]] = {}
    for (key, partition), (stamp, _value) in records.items():
        by_key.setdefault(key, []).append(Origin(partition, stamp))
    latest: Latest = {}
    others: dict[bytes, tuple[int, ...]] = {}
    for key, origins in by_key.items():
        best = origins[0]
        if len(origins) > 1:
            best = _latest_of(
                origin._replace(revision=revision_of(records[key, origin.partition][1]))
                for origin in origins
            )
            numbers = (origin.partition for origin in origins)
            others[key] = tuple(n for n in numbers if n != best.partition)
        stamp, value = records[key, best.partition]
        latest[key] = RawRecord(value, record_time(stamp), best.partition)
    return latest, others


def _latest_of(origins: Iterable[Origin]) -> Origin:
    def later(first: Origin, second: Origin) -> Origin:
        return second if supersedes(second, first, is_tombstone=False) else first

    return reduce(later, origins)


def _check_progress(unread: Mapping[tuple[str, int], float], now: float) -> None:
    """Raise if a partition has no leader: librdkafka would wait for ever.

    Args:
        unread: topic and partition → time of its latest record.
        now: on the same monotonic clock.
    """
    stalled = sorted(key for key, at in unread.items() if now - at >= _STALLED)
    if stalled:
        names = ", ".join(f"{topic}/{number}" for topic, number in stalled[:5])
        raise BrokerUnavailable(f"no record for {_STALLED:.0f} s from {names}")
