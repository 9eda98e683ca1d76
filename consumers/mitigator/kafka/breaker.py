"""Breaker: too many unexpected exceptions pause one partition for up to a minute."""

from collections import deque
from typing import Final

from consumers.mitigator.kafka.input_reader import PartitionId

MAX_PER_MINUTE: Final = 20
_MINUTE: Final = 60.0


class Breaker:
    """Counts unexpected exceptions of each partition."""

    def __init__(self) -> None:
        self._times: dict[PartitionId, deque[float]] = {}

    def count(self, partition: PartitionId, clock: float) -> None:
        """Count an exception at *clock*, in seconds since boot."""
        times = self._times.setdefault(partition, deque(maxlen=MAX_PER_MINUTE))
        times.append(clock)

    def is_open(self, partition: PartitionId, clock: float) -> bool:
        """Return whether a partition had too many exceptions in the last minute."""
        times = self._times.get(partition)
        if times is None or len(times) < MAX_PER_MINUTE:
            return False
        return clock - times[0] < _MINUTE

    def open_partitions(self, clock: float) -> list[PartitionId]:
        """Return the partitions that are paused now."""
        return [
            partition for partition in self._times if self.is_open(partition, clock)
        ]
