"""Due times: the keys whose lease or retention ends first, in order."""

import heapq
from typing import Generic, TypeVar

from consumers.mitigation.reason_key import ReasonKey

K = TypeVar("K", ReasonKey, str)


class DueTimes(Generic[K]):
    """The time at which each key is due, in seconds since boot."""

    def __init__(self) -> None:
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, K]] = []

    def set(self, key: K, due: float | None) -> None:
        """Set when a key is due, in place of its earlier time; None: never."""
        if due is None:
            self._due.pop(key, None)
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, key))
        if len(self._heap) > 4 * len(self._due) + 8:  # mostly replaced times
            self._heap = [(due, key) for key, due in self._due.items()]
            heapq.heapify(self._heap)

    def take(self, clock: float, limit: int) -> list[K]:
        """Take up to *limit* due keys; `set` makes a key due again."""
        taken: dict[K, None] = {}  # a time may have been set twice
        while self._heap and self._heap[0][0] <= clock and len(taken) < limit:
            due, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                taken[key] = None
        return list(taken)
