"""Recall: what a consumer group was told of already, read again from the topic.

A compacted topic is the memory: what stands below the group's offsets was dealt with
before a restart, so the program needs no file of its own.
"""

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from math import inf
from typing import Final, NamedTuple

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaException,
    TopicPartition,
)

from consumers.mitigation.clock import now as boottime
from consumers.mitigation.latest_record import Origin, supersedes
from consumers.mitigation.states import PROPOSED, WANTED
from consumers.webhook.bulletin import Member, why_over
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import BrokerUnavailable
from fnm_bus.event import Mitigation
from fnm_bus.kafka.client import ConnectionState, build_consumer, partitions_of
from fnm_bus.kafka.client_errors import access_error
from fnm_bus.kafka.reader import ConsumedRecord, TopicReader

log = logging.getLogger(__name__)

_ANSWER: Final = 10.0
_OLD: Final = 86_400.0
"""Seconds; a lease that expired longer ago is not reported after a restart."""
_MAX_RECORDS: Final = 50_000
"""Keys that are recalled; those written longest ago are dropped beyond that."""


class Position(NamedTuple):
    """Where a consumer group is.

    Attributes:
        offsets: partition → the group's offset.
        is_new: whether the group had no offset before.
    """

    offsets: Mapping[int, int]
    is_new: bool


def position(settings: Mapping[str, str], group: str, topic: str) -> Position:
    """Return where the group is; a group that is new is put to the end, for good.

    A partition without an offset would be begun at its end after every restart, and
    what came meanwhile would be lost.

    Raises:
        ConfigError: librdkafka refuses the settings.
        BrokerUnavailable: no broker reachable.
        TopicRefused: the topic does not exist, or must not be read.
    """
    own = {"group.id": group, "enable.auto.commit": "false"}
    state = ConnectionState(settings)
    consumer = build_consumer({**settings, **own}, state)
    try:
        return _position(consumer, topic, state)
    except KafkaException as exc:
        denied = access_error(exc.args[0], settings, topic=topic, group=group)
        text = f"{topic}: {exc.args[0].str()}"
        raise denied or BrokerUnavailable(text) from exc
    finally:
        consumer.close()


def recalled(
    settings: Mapping[str, str], topic: str, codec: Codec, below: Mapping[int, int]
) -> list[ConsumedRecord]:
    """Return the latest record of each key below the offsets; no tombstones.

    Records come in the order in which they were written to their partition. Of two
    partitions, the later record counts (`latest_record`).

    Raises:
        BrokerUnavailable, ConfigError, TopicRefused: as `position`.
    """
    found: dict[bytes | None, ConsumedRecord] = {}
    origins: dict[bytes | None, Origin] = {}
    if not any(below.values()):
        return []
    with TopicReader(settings, [topic], codec, from_beginning=True) as reader:
        while not reader.at_end:
            for it in reader.read(1.0):
                if it.offset >= below.get(it.partition, 0):
                    continue
                origin = _origin(it)
                if not supersedes(
                    origin, origins.get(it.key), is_tombstone=not it.value
                ):
                    continue
                found.pop(it.key, None)
                origins.pop(it.key, None)
                if it.value:
                    found[it.key], origins[it.key] = it, origin
                if len(found) > _MAX_RECORDS:
                    oldest = next(iter(found))
                    del found[oldest], origins[oldest]
            reader.check()
    return list(found.values())


def ends_of(mitigation: Mitigation, at: datetime, broker_time: float) -> float:
    """Return when a lease expires on the clock of `boottime`; `inf` without one.

    What is left of a lease is counted on the broker's clock alone, and is never more
    than the lease. A lease that expired before its record was read ends now at the
    earliest: its renewal may be the next record.

    Args:
        mitigation: its `lease_ms` counts from *at*.
        at: the broker's time of the record.
        broker_time: the broker's time now, seconds since 1970.
    """
    if not mitigation.lease_ms:
        return inf
    lease = mitigation.lease_ms / 1000
    left = lease - (broker_time - at.timestamp())
    return boottime() + min(max(left, 0.0), lease)


def members_of(told: Iterable[ConsumedRecord], broker_time: float) -> list[Member]:
    """Return the mitigations in records that were reported before a restart.

    Args:
        told: records that can be used.
        broker_time: the broker's time now, seconds since 1970.
    """
    members = []
    for read in told:
        mitigation = read.event
        if not isinstance(mitigation, Mitigation):
            continue
        cause = mitigation.cause
        if mitigation.state in (PROPOSED, WANTED):
            expired = read.at.timestamp() + mitigation.lease_ms / 1000
            if not mitigation.lease_ms or expired > broker_time - _OLD:
                ends = ends_of(mitigation, read.at, broker_time)
                members.append(Member(mitigation, ends, cause=cause))
            continue
        why = why_over(mitigation)
        members.append(Member(mitigation, inf, why, mitigation.changed_at, cause))
    return members


def _origin(read: ConsumedRecord) -> Origin:
    revision = read.event.revision if isinstance(read.event, Mitigation) else 0
    return Origin(read.partition, read.at.timestamp(), revision)


def _position(consumer: Consumer, topic: str, state: ConnectionState) -> Position:
    numbers = partitions_of(consumer, topic, state, is_new=True)
    all_ = [TopicPartition(topic, number) for number in numbers]
    committed = consumer.committed(all_, timeout=_ANSWER)
    for partition in committed:
        if partition.error is not None:
            raise KafkaException(partition.error)
    if all(it.offset == OFFSET_INVALID for it in committed):
        committed = [
            TopicPartition(topic, it.partition, _end(consumer, it)) for it in all_
        ]
        consumer.commit(offsets=committed, asynchronous=False)
        log.info("%s: new consumer group: starting at the end of the topic", topic)
        return Position({it.partition: it.offset for it in committed}, is_new=True)
    known_offsets = {it.partition: max(it.offset, 0) for it in committed}
    return Position(known_offsets, is_new=False)


def _end(consumer: Consumer, partition: TopicPartition) -> int:
    _low, high = consumer.get_watermark_offsets(partition, timeout=_ANSWER)
    return int(high)
