"""Progress: which offset of a partition may be committed.

An offset says "everything before me is done", so a record that waits keeps back all
that came after it, however long ago those were done.
"""

from collections import deque


class OffsetTracker:
    """One partition."""

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._done: set[int] = set()
        self._next = 0
        self._committed = 0

    def take(self, offset: int) -> None:
        """Note that the record at *offset* is at work; offsets grow."""
        self._order.append(offset)

    def finish(self, offset: int) -> None:
        """Note that the record at *offset* is done, for whatever reason; once or more.

        Kafka leaves gaps between offsets (compaction, transactions), so what counts is
        the order in which records came.
        """
        if not self._order or offset < self._order[0]:
            return
        self._done.add(offset)
        while self._order and self._order[0] in self._done:
            first = self._order.popleft()
            self._done.discard(first)
            self._next = first + 1

    def confirm(self, offset: int) -> None:
        """Note that *offset* was committed."""
        self._committed = max(self._committed, offset)

    @property
    def waiting(self) -> int:
        """Records that are at work, or done behind one that is."""
        return len(self._order)

    @property
    def committable(self) -> int | None:
        """The offset to commit; None when Kafka has it."""
        return self._next if self._next > self._committed else None
