"""Recall: what a consumer group was told of already, read again from the topic.

A compacted topic is the memory: what stands below the group's offsets was dealt with
before a restart, so the program needs no file of its own.
"""

import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Final

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaException,
    TopicPartition,
)
from msgspec.structs import replace

from consumers.mitigation.clock import now as boottime
from consumers.mitigation.states import PAUSE, PROPOSED, WANTED
from consumers.webhook.bulletin import Member, why_over
from fnm_bus.codec import Codec
from fnm_bus.errors import BrokerUnavailable, ConfigError, TopicRefused
from fnm_bus.event import EPOCH, Mitigation
from fnm_bus.reader import Read, Reader

log = logging.getLogger(__name__)

_ANSWER: Final = 10.0
_OLD: Final = timedelta(days=1)
"""A lease that ran out longer ago is not told after a restart."""


def offsets(settings: Mapping[str, str], group: str, topic: str) -> Mapping[int, int]:
    """Return partition → the group's offset; nothing for a group that is new.

    A new group is put to the end, for good: a partition without an offset would be
    begun at its end after every restart, and what came meanwhile would be lost.

    Raises:
        ConfigError: librdkafka refuses the settings.
        BrokerUnavailable: no broker answers.
        TopicRefused: the topic does not exist, or must not be read.
    """
    own = {"group.id": group, "enable.auto.commit": "false", "log_level": "2"}
    try:
        consumer = Consumer({**own, **settings, **own})
    except KafkaException as exc:
        raise ConfigError(f"[kafka]: {exc.args[0].str()}") from exc
    try:
        return _offsets(consumer, topic)
    except KafkaException as exc:
        raise BrokerUnavailable(f"{topic}: {exc.args[0].str()}") from exc
    finally:
        consumer.close()


def recalled(
    settings: Mapping[str, str], topic: str, codec: Codec, below: Mapping[int, int]
) -> list[Read]:
    """Return the latest record of each key below the offsets; no tombstones.

    Raises:
        BrokerUnavailable, ConfigError, TopicRefused: as `offsets`.
    """
    found: dict[bytes | None, Read] = {}
    if not any(below.values()):
        return []
    with Reader(settings, [topic], codec, from_beginning=True) as reader:
        while not reader.at_end:
            for it in reader.read(1.0):
                if it.offset >= below.get(it.partition, 0):
                    continue
                if it.value:
                    found[it.key] = it
                else:
                    found.pop(it.key, None)
            reader.check()
    return list(found.values())


def ends_of(mitigation: Mitigation, at: datetime) -> float:
    """Return when a lease runs out on the clock of `snapshot.now`; `inf` without one.

    It runs from the broker's time of the record. What ran out before it was read ends
    now at the earliest: its renewal may be the next record.
    """
    if not mitigation.lease_ms:
        return inf
    gone = (datetime.now(UTC) - at).total_seconds()
    return boottime() + max(mitigation.lease_ms / 1000 - gone, 0.0)


def members_of(told: Iterable[Read]) -> list[Member]:
    """Return what the records of a topic say that was told of before a restart."""
    found = []
    for read in told:
        it = read.event
        if not isinstance(it, Mitigation):
            continue
        if it.state == WANTED or (it.state == PROPOSED and it.kind != PAUSE):
            lease = timedelta(milliseconds=it.lease_ms)
            if not it.lease_ms or read.at + lease > datetime.now(UTC) - _OLD:
                found.append(Member(it, ends_of(it, read.at), cause=it.cause))
            continue
        why = why_over(replace(it, expires_at=EPOCH), it)
        found.append(Member(it, inf, why, it.changed_at, it.cause))
    return found


def _offsets(consumer: Consumer, topic: str) -> Mapping[int, int]:
    known = consumer.list_topics(topic, timeout=_ANSWER).topics[topic]
    if known.error is not None:
        raise TopicRefused(
            f"{topic}: {known.error.str()}; `fnm-bus topics create` makes it"
        )
    all_ = [TopicPartition(topic, it) for it in known.partitions]
    committed = consumer.committed(all_, timeout=_ANSWER)
    if all(it.offset == OFFSET_INVALID for it in committed):
        committed = [
            TopicPartition(topic, it.partition, _end(consumer, it)) for it in all_
        ]
        consumer.commit(offsets=committed, asynchronous=False)
        log.info("%s: new here: what was before is not told", topic)
        return {}
    return {it.partition: max(it.offset, 0) for it in committed}


def _end(consumer: Consumer, partition: TopicPartition) -> int:
    _low, high = consumer.get_watermark_offsets(partition, timeout=_ANSWER)
    return int(high)
