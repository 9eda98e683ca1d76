"""Part: what a member of a consumer group knows of one partition that is its own."""

from dataclasses import dataclass, field
from typing import Final

from fnm_bus.consume.progress import OffsetTracker
from fnm_bus.kafka.reader import ConsumedRecord

_FIRST: Final = 0.1
_LONGEST: Final = 30.0
_DOUBLINGS: Final = 10
"""Seconds of the first pause after a failure, doubled each time, and of the longest."""


@dataclass(slots=True)
class PartitionState:
    """One partition.

    Attributes:
        topic: where it is.
        number: likewise.
        progress: which of its records are done.
        at: offset of the record that comes next; -1 while that is not known.
        again: the record that waits for its next attempt, if one does.
        due: when that is, on the monotonic clock.
        failures: how often its handler failed.
        letters: dead letters that Kafka has not taken yet.
        why: why it waits, as it was told.
    """

    topic: str
    number: int
    progress: OffsetTracker = field(default_factory=OffsetTracker)
    at: int = -1
    again: ConsumedRecord | None = None
    due: float = 0.0
    failures: int = 0
    letters: int = 0
    why: str = ""
    _pauses: int = 0

    def wait(self, read: ConsumedRecord, now: float, seconds: float | None) -> None:
        """Let *read* wait *seconds*, or a growing pause."""
        if seconds is None:
            seconds = min(_FIRST * 2**self._pauses, _LONGEST)
            self._pauses = min(self._pauses + 1, _DOUBLINGS)
        self.again, self.due = read, now + max(seconds, 0.0)

    def go_on(self) -> None:
        """Forget the record that waited, and how often it did."""
        self.again, self.failures, self.why, self._pauses = None, 0, "", 0
