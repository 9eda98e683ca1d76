"""A topic reader that resumes at given offsets, and detects added partitions."""

from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING

from fnm_bus.kafka.reader import TopicReader

_TIMEOUT: Final = 10.0


class ResumingReader(TopicReader):
    """Resumes at *positions*: (topic, partition) → next offset.

    Attributes:
        positions: the offsets, updated by the caller.
        from_end: whether partitions without a position are read from their ends.
        from_beginning: whether partitions without a position are read from their
            beginnings.
        partitions: number of the topic's partitions when it was opened.
    """

    positions: dict[tuple[str, int], int]
    from_end: bool
    from_beginning: bool
    partitions: int = 0

    def _partitions(self, consumer: Any, topic: str) -> list[Any]:
        assigned = super()._partitions(consumer, topic)
        for partition in assigned:
            place = partition.topic, partition.partition
            if self.from_end and place not in self.positions:
                # As a number, so that a lost connection skips nothing.
                ends = consumer.get_watermark_offsets(partition, timeout=_TIMEOUT)
                self.positions[place] = ends[1]
            first = OFFSET_BEGINNING if self.from_beginning else partition.offset
            partition.offset = self.positions.get(place, first)
        self.partitions = len(assigned)
        return assigned

    def has_grown(self) -> bool:
        """Return whether the topic has other partitions than the assigned ones.

        Raises:
            BrokerUnavailable, TopicRefused: the brokers did not return the partitions.
        """
        consumer = self._consumer
        if consumer is None:
            return False
        return len(super()._partitions(consumer, self._topics[0])) != self.partitions
