"""Recall: what a consumer group was told of already, read again from the topic.

A compacted topic is the memory: what stands below the group's offsets was dealt with
before a restart, so the program needs no file of its own.
"""

import logging
from collections.abc import Mapping
from typing import Final

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaException,
    TopicPartition,
)

from fnm_bus.codec import Codec
from fnm_bus.errors import BrokerUnavailable, ConfigError, TopicRefused
from fnm_bus.reader import Read, Reader

log = logging.getLogger(__name__)

_ANSWER: Final = 10.0


def offsets(settings: Mapping[str, str], group: str, topic: str) -> Mapping[int, int]:
    """Return partition → the group's offset. A new group is put to the end first.

    It is put there for good: a partition without an offset would be begun at its end
    after every restart, and what came meanwhile would be lost.

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
    return {it.partition: max(it.offset, 0) for it in committed}


def _end(consumer: Consumer, partition: TopicPartition) -> int:
    _low, high = consumer.get_watermark_offsets(partition, timeout=_ANSWER)
    return int(high)
