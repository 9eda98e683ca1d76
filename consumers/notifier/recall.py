"""Recall: the mitigations that were reported before a restart.

The compacted topic is the memory: a record below the group's offset was reported. The
program keeps no file.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from math import inf
from typing import Final, NamedTuple

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaException, TopicPartition

from consumers.mitigation.clock import now as boottime
from consumers.mitigation.states import PROPOSED, WANTED
from consumers.mitigation.topic_scan import scan_topics
from consumers.storms.update import StormMember, end_code
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import BrokerUnavailable
from fnm_bus.event import Mitigation
from fnm_bus.kafka.client import ConnectionState, build_consumer, partitions_of
from fnm_bus.kafka.client_errors import access_error
from fnm_bus.kafka.reader import ConsumedRecord, decode_record
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_TIMEOUT: Final = 10.0
_MAX_EXPIRED: Final = 86_400.0
"""Seconds; a lease that expired earlier is not reported after a restart."""
_MAX_RECORDS: Final = 50_000
"""Keys that are recalled; beyond that the oldest are dropped."""


class GroupOffsets(NamedTuple):
    """The position of a consumer group.

    Attributes:
        offsets: partition → offset.
        is_new: whether the group had no offset before.
    """

    offsets: Mapping[int, int]
    is_new: bool


def group_offsets(settings: Mapping[str, str], group: str, topic: str) -> GroupOffsets:
    """Return the group's offsets; a new group is committed to the end of the topic.

    Without that commit, a partition would start at its end after every restart, and
    records in between would be lost.

    Raises:
        ConfigError: librdkafka refuses the settings.
        BrokerUnavailable: no broker is reachable.
        TopicRefused: the topic does not exist, or may not be read.
    """
    own = {"group.id": group, "enable.auto.commit": "false"}
    state = ConnectionState(settings)
    consumer = build_consumer({**settings, **own}, state)
    try:
        return _group_offsets(consumer, topic, state)
    except KafkaException as exc:
        denied = access_error(exc.args[0], settings, topic=topic, group=group)
        text = f"{topic}: {exc.args[0].str()}"
        raise denied or BrokerUnavailable(text) from exc
    finally:
        consumer.close()


def reported_records(
    settings: Mapping[str, str], topic: str, codec: Codec, below: Mapping[int, int]
) -> list[ConsumedRecord]:
    """Return the latest record of each key below the offsets; no tombstones.

    Raises:
        BrokerUnavailable, ConfigError, TopicRefused: as `group_offsets`.
    """
    if not any(below.values()):
        return []
    latest = scan_topics(settings, [topic], below=below).latest[topic].values()
    newest = sorted(latest, key=lambda record: record.at)[-_MAX_RECORDS:]
    return [decode_record(record, codec) for record in newest]


def lease_end(mitigation: Mitigation, at: datetime, broker_time: float) -> float:
    """Return the end of a lease on the clock of `boottime`; `inf` without one.

    The rest of a lease is counted on the broker's clock alone, and is never more than
    the lease. A lease that expired before its record was read ends now: the next
    record may renew it.

    Args:
        mitigation: its `lease_ms` counts from *at*.
        at: the broker's time of the record.
        broker_time: the broker's time now, seconds since 1970.
    """
    if not mitigation.lease_ms:
        return inf
    lease = mitigation.lease_ms / 1000
    rest = lease - (broker_time - at.timestamp())
    return boottime() + min(max(rest, 0.0), lease)


def members_of(
    records: Iterable[ConsumedRecord], broker_time: float
) -> Iterator[StormMember]:
    """Yield the mitigations in valid records that were reported before a restart."""
    for record in records:
        mitigation = record.event
        if not isinstance(mitigation, Mitigation):
            continue
        cause = mitigation.cause
        if mitigation.state not in (PROPOSED, WANTED):
            code, at = end_code(mitigation), mitigation.changed_at
            yield StormMember(mitigation, inf, code, at, cause)
            continue
        expires = record.at.timestamp() + mitigation.lease_ms / 1000
        if not mitigation.lease_ms or expires > broker_time - _MAX_EXPIRED:
            end = lease_end(mitigation, record.at, broker_time)
            yield StormMember(mitigation, end, cause=cause)


def _group_offsets(
    consumer: Consumer, topic: str, state: ConnectionState
) -> GroupOffsets:
    numbers = partitions_of(consumer, topic, state, is_new=True)
    partitions = [TopicPartition(topic, number) for number in numbers]
    committed = consumer.committed(partitions, timeout=_TIMEOUT)
    for partition in committed:
        if partition.error is not None:
            raise KafkaException(partition.error)
    is_new = all(partition.offset == OFFSET_INVALID for partition in committed)
    if is_new:
        for partition in committed:
            _low, high = consumer.get_watermark_offsets(partition, timeout=_TIMEOUT)
            partition.offset = high
        consumer.commit(offsets=committed, asynchronous=False)
        log.info("new_consumer_group", topic=topic, starts_at="end")
    offsets = {partition.partition: max(partition.offset, 0) for partition in committed}
    return GroupOffsets(offsets, is_new)
