"""First offsets: where reading begins without committed offsets."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from confluent_kafka import Consumer, TopicPartition

TIMEOUT: Final = 10.0
"""Seconds for requests to the broker."""


def first_offsets(
    consumer: Consumer, committed: Sequence[TopicPartition], since: datetime | None
) -> list[TopicPartition]:
    """Return the first offsets of the partitions without a committed one.

    A new partition of a topic with committed offsets is read from its beginning, any
    other one from its first message after *since*.
    """
    read = {partition.topic for partition in committed if partition.offset >= 0}
    return [
        _first_offset(consumer, partition, None if partition.topic in read else since)
        for partition in committed
        if partition.offset < 0
    ]


def _first_offset(
    consumer: Consumer, partition: TopicPartition, since: datetime | None
) -> TopicPartition:
    place = partition.topic, partition.partition
    low, high = consumer.get_watermark_offsets(partition, TIMEOUT)
    if since is None:
        return TopicPartition(*place, low)
    request = TopicPartition(*place, round(since.timestamp() * 1000))
    [answer] = consumer.offsets_for_times([request], timeout=TIMEOUT)
    # "The end" would move until the first fetch; `high` was requested before.
    return TopicPartition(*place, answer.offset if answer.offset >= 0 else high)
