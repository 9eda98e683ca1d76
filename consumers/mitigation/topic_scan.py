"""Topic scan: the latest record of each key of a compacted topic.

Records are compared as bytes, so that an hour of renewals is read quickly. Only the
latest record of each key is decoded.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import BrokerUnavailable, InvalidRecord
from fnm_bus.event import Mitigation, Reason
from fnm_bus.kafka.client import ConnectionState, build_reader, partitions_of
from fnm_bus.kafka.client_errors import topic_error
from fnm_bus.kafka.names import READ
from fnm_bus.kafka.reader import UNREADABLE_CODES, ConsumedRecord, raw_record

_BATCH: Final = 10_000
_STALLED: Final = 30.0
"""Seconds without any record of a partition that was not read to its end."""


Latest = dict[bytes, ConsumedRecord]
"""Key → latest record, not decoded; no tombstones."""


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
    below: Mapping[int, int] | None = None,
) -> Scan:
    """Return the latest record of each key.

    If a key has records in two partitions, the later one counts (`latest_record`).
    Nothing is committed, and no group is joined.

    Args:
        settings: librdkafka's settings.
        topics: names of compacted topics.
        is_stopping: checked between reads.
        below: partition → first offset that does not count; None: all count.

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
        by_topic = _read(consumer, partitions, state, is_stopping, below)
    finally:
        consumer.close()
    scan = Scan({}, {}, Counter(partition.topic for partition in partitions))
    for topic, records in by_topic.items():
        scan.latest[topic], scan.others[topic] = _merge_partitions(records)
    return scan


_PartitionRecords = dict[tuple[bytes, int], Message]
"""Key and partition → its latest record; no tombstones."""


def _read(
    consumer: Consumer,
    partitions: Sequence[TopicPartition],
    state: ConnectionState,
    is_stopping: Callable[[], bool],
    below: Mapping[int, int] | None,
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
                if below is None or (message.offset() or 0) < below.get(
                    partition[1], 0
                ):
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
    if message.value():
        records[origin] = message
    else:
        records.pop(origin, None)


def _merge_partitions(
    records: _PartitionRecords,
) -> tuple[Latest, dict[bytes, tuple[int, ...]]]:
    """Return the latest record of each key, and the partitions of older ones."""
    by_key: dict[bytes, list[ConsumedRecord]] = {}
    for (key, _partition), message in records.items():
        by_key.setdefault(key, []).append(raw_record(message))
    latest = {
        key: candidates[0] if len(candidates) == 1 else reduce(_later, candidates)
        for key, candidates in by_key.items()
    }
    others = {
        key: tuple(
            record.partition for record in candidates if record is not latest[key]
        )
        for key, candidates in by_key.items()
        if len(candidates) > 1
    }
    return latest, others


def _later(first: ConsumedRecord, second: ConsumedRecord) -> ConsumedRecord:
    is_later = supersedes(_origin(second), _origin(first), is_tombstone=False)
    return second if is_later else first


def _origin(record: ConsumedRecord) -> Origin:
    try:
        content = Codec().decode(record.value)
    except InvalidRecord:
        content = None
    revision = content.revision if isinstance(content, Mitigation) else 0
    if isinstance(content, Reason):
        revision = content.renewals
    return Origin(record.partition, record.at.timestamp(), revision)


def _check_progress(unread: Mapping[tuple[str, int], float], now: float) -> None:
    """Raise if a partition has no leader: librdkafka would wait for ever."""
    stalled = sorted(key for key, at in unread.items() if now - at >= _STALLED)
    if stalled:
        names = ", ".join(f"{topic}/{number}" for topic, number in stalled[:5])
        raise BrokerUnavailable(f"no record for {_STALLED:.0f} s from {names}")
