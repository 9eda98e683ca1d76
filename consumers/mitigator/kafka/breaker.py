"""Breaker: unexpected exceptions may cost a partition a minute, and nobody else."""

from collections import deque
from typing import Final

from consumers.mitigator.kafka.transaction import PartitionId

MAX_PER_MINUTE: Final = 20
_MINUTE: Final = 60.0


class Breaker:
    """Counts unexpected exceptions of each partition."""

    def __init__(self) -> None:
        self._moments: dict[PartitionId, deque[float]] = {}

    def count(self, place: PartitionId, clock: float) -> None:
        """Count one exception at *clock*, in seconds since boot."""
        self._moments.setdefault(place, deque(maxlen=MAX_PER_MINUTE)).append(clock)

    def is_open(self, place: PartitionId, clock: float) -> bool:
        """Return whether a partition had too many exceptions within a minute."""
        moments = self._moments.get(place)
        if moments is None or len(moments) < MAX_PER_MINUTE:
            return False
        return clock - moments[0] < _MINUTE

    def open_partitions(self, clock: float) -> list[PartitionId]:
        """Return the partitions that are held now."""
        return [place for place in self._moments if self.is_open(place, clock)]
