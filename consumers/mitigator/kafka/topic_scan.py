"""Topic scan: the latest record of each key of a compacted topic, quickly.

An hour of renewals is read as bytes; only what is the latest of its key is decoded.
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

_AT_ONCE: Final = 10_000
_STALLED: Final = 30.0
"""Seconds without any answer about a partition that was not read to its end."""


class RawRecord(NamedTuple):
    """The latest record of a key, not decoded.

    Attributes:
        value: its bytes; never empty.
        at: the broker's time of the record, UTC.
        partition: where it is.
    """

    value: bytes
    at: datetime
    partition: int = 0


Latest = dict[bytes, RawRecord]


class Scan(NamedTuple):
    """What compacted topics hold.

    Attributes:
        latest: topic → key → latest record, without the keys that have a tombstone.
        others: topic → key → partitions with an older record of a key that is in
            `latest`: the topic was given more partitions.
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

    Of two records of one key in two partitions, the later one counts
    (`latest_record`). Nothing is committed, and no group is joined.

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
        parts = [
            TopicPartition(topic, number, OFFSET_BEGINNING)
            for topic in topics
            for number in partitions_of(consumer, topic, state, is_new=True)
        ]
        consumer.assign(parts)
        found = _scan(consumer, parts, state, is_stopping)
    finally:
        consumer.close()
    latest: dict[str, Latest] = {}
    others: dict[str, dict[bytes, tuple[int, ...]]] = {}
    for topic, records in found.items():
        latest[topic], others[topic] = _merged(records, revision_of)
    return Scan(latest, others, dict(Counter(part.topic for part in parts)))


_Places = dict[tuple[bytes, int], tuple[int, bytes]]
"""Key and partition → time and value of the latest record there; no tombstones."""


def _scan(
    consumer: Consumer,
    parts: Sequence[TopicPartition],
    state: ConnectionState,
    is_stopping: Callable[[], bool],
) -> dict[str, _Places]:
    newest: dict[str, _Places] = {part.topic: {} for part in parts}
    began = monotonic()
    unread = {(part.topic, part.partition): began for part in parts}
    while unread:
        if is_stopping():
            raise BrokerUnavailable("stopping")
        messages = consumer.consume(_AT_ONCE, 1.0)
        if not messages:
            partitions_of(consumer, parts[0].topic, state)  # raises if none answers
        now = monotonic()
        for message in messages:
            error, topic = message.error(), message.topic() or ""
            place = topic, message.partition() or 0
            if error is None:
                _take(newest[topic], message)
                if place in unread:
                    unread[place] = now
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its name
                unread.pop(place, None)
            elif not error.retriable() and error.code() in UNREADABLE_CODES:
                raise topic_error(error, topic, READ, state.settings)
        _check_progress(unread, now)
    return newest


def _take(known: _Places, message: Message) -> None:
    place = message.key() or b"", message.partition() or 0
    value = message.value()
    if value:
        known[place] = message.timestamp()[1], value
    else:
        known.pop(place, None)


def _merged(
    found: _Places, revision_of: Callable[[bytes], int]
) -> tuple[Latest, dict[bytes, tuple[int, ...]]]:
    """Return the latest record of each key, and where the older ones are."""
    origins: dict[bytes, list[Origin]] = {}
    for (key, partition), (stamp, _value) in found.items():
        origins.setdefault(key, []).append(Origin(partition, stamp))
    latest: Latest = {}
    others: dict[bytes, tuple[int, ...]] = {}
    for key, places in origins.items():
        best = places[0]
        if len(places) > 1:
            best = _latest_of(
                place._replace(revision=revision_of(found[key, place.partition][1]))
                for place in places
            )
            numbers = (place.partition for place in places)
            others[key] = tuple(
                number for number in numbers if number != best.partition
            )
        stamp, value = found[key, best.partition]
        latest[key] = RawRecord(value, record_time(stamp), best.partition)
    return latest, others


def _latest_of(origins: Iterable[Origin]) -> Origin:
    def later(known: Origin, new: Origin) -> Origin:
        return new if supersedes(new, known, is_tombstone=False) else known

    return reduce(later, origins)


def _check_progress(unread: Mapping[tuple[str, int], float], now: float) -> None:
    """Raise where a partition has no leader: librdkafka would wait for ever.

    Args:
        unread: topic and partition → when its latest record came.
        now: likewise, on the monotonic clock.
    """
    silent = sorted(place for place, at in unread.items() if now - at >= _STALLED)
    if silent:
        names = ", ".join(f"{topic}/{number}" for topic, number in silent[:5])
        raise BrokerUnavailable(f"nothing came for {_STALLED:.0f} s of {names}")
