"""Progress: which offset of a partition may be committed.

An offset says "everything before me is done", so a record that waits keeps back all
that came after it, however long ago those were done.
"""

from collections import deque


class Progress:
    """One partition."""

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._done: set[int] = set()
        self._next: int | None = None

    def take(self, offset: int) -> None:
        """Note that the record at *offset* is at work; offsets grow."""
        self._order.append(offset)

    def finish(self, offset: int) -> None:
        """Note that the record at *offset* is done, for whatever reason."""
        self._done.add(offset)
        while self._order and self._order[0] in self._done:
            first = self._order.popleft()
            self._done.discard(first)
            self._next = first + 1

    @property
    def waiting(self) -> int:
        """Records that are at work, or done behind one that is."""
        return len(self._order)

    def committable(self) -> int | None:
        """Return the offset to commit; None when it was returned before."""
        found, self._next = self._next, None
        return found
