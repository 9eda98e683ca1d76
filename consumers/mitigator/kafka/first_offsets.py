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

    A new partition of a topic with committed offsets is read from its beginning.
    """
    read = {partition.topic for partition in committed if partition.offset >= 0}
    new = [partition for partition in committed if partition.offset < 0]
    return [
        *_offsets_at(
            consumer,
            [partition for partition in new if partition.topic not in read],
            since,
        ),
        *_offsets_at(
            consumer, [partition for partition in new if partition.topic in read], None
        ),
    ]


def _offsets_at(
    consumer: Consumer, partitions: list[TopicPartition], since: datetime | None
) -> list[TopicPartition]:
    """Return *partitions* with the offsets of their first messages after *since*."""
    if not partitions:
        return []
    marks = [
        consumer.get_watermark_offsets(partition, TIMEOUT) for partition in partitions
    ]
    if since is None:
        offsets = [low for low, _high in marks]
    else:
        stamp = round(since.timestamp() * 1000)
        requests = [
            TopicPartition(partition.topic, partition.partition, stamp)
            for partition in partitions
        ]
        answers = consumer.offsets_for_times(requests, timeout=TIMEOUT)
        # "The end" would move until the first fetch; `high` was requested before.
        offsets = [
            answer.offset if answer.offset >= 0 else high
            for answer, (_low, high) in zip(answers, marks, strict=True)
        ]
    return [
        TopicPartition(partition.topic, partition.partition, offset)
        for partition, offset in zip(partitions, offsets, strict=True)
    ]
