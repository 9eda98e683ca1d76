"""The state of one assigned partition: its offsets, and the record that is retried."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from fnm_bus.kafka.reader import ConsumedRecord

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 30.0
"""Seconds before the first retry, doubled for each further one up to the longest."""
_MAX_DOUBLINGS: Final = 10


class OffsetTracker:
    """Computes the offset that may be committed.

    A committed offset covers all records before it, so one unfinished record delays the
    commit of all later ones.
    """

    def __init__(self) -> None:
        self._unfinished: deque[int] = deque()
        self._finished: set[int] = set()
        self._next = 0
        self._committed = 0

    def start(self, offset: int) -> None:
        """Add the record at *offset*; offsets grow."""
        self._unfinished.append(offset)

    def finish(self, offset: int) -> None:
        """Mark the record at *offset* as finished; more than one call is allowed.

        Kafka leaves gaps between offsets (compaction, transactions), so only the order
        of the records counts.
        """
        if not self._unfinished or offset < self._unfinished[0]:
            return
        self._finished.add(offset)
        while self._unfinished and self._unfinished[0] in self._finished:
            first = self._unfinished.popleft()
            self._finished.discard(first)
            self._next = first + 1

    def mark_committed(self, offset: int) -> None:
        """Record that Kafka has committed *offset*."""
        self._committed = max(self._committed, offset)

    @property
    def pending(self) -> int:
        """Number of records that are unfinished, or follow an unfinished one."""
        return len(self._unfinished)

    @property
    def committable(self) -> int | None:
        """The offset to commit; None if Kafka has it."""
        return self._next if self._next > self._committed else None


@dataclass(slots=True)
class PartitionState:
    """One partition.

    Attributes:
        topic: name of the topic.
        number: number of the partition.
        offsets: computes the offset to commit.
        next_offset: offset of the next record; -1 if unknown.
        delayed: the record that waits for its next attempt, or None.
        retry_at: time of that attempt, on the monotonic clock.
        failures: number of the handler's failures with this record.
        dead_letters: number of dead letters that Kafka has not acknowledged.
        delay_reason: the last logged reason of a delay.
    """

    topic: str
    number: int
    offsets: OffsetTracker = field(default_factory=OffsetTracker)
    next_offset: int = -1
    delayed: ConsumedRecord | None = None
    retry_at: float = 0.0
    failures: int = 0
    dead_letters: int = 0
    delay_reason: str = ""
    _doublings: int = 0

    def delay(self, record: ConsumedRecord, now: float, seconds: float | None) -> None:
        """Retry *record* after *seconds*, or after a growing pause if None."""
        if seconds is None:
            seconds = min(_FIRST_PAUSE * 2**self._doublings, _LONGEST_PAUSE)
            self._doublings = min(self._doublings + 1, _MAX_DOUBLINGS)
        self.delayed, self.retry_at = record, now + max(seconds, 0.0)

    def clear_delay(self) -> None:
        """Drop the delayed record and its failures."""
        self.delayed, self.failures = None, 0
        self.delay_reason, self._doublings = "", 0
