"""Leftovers: records of keys in partitions that are not theirs any more.

A topic was given more partitions. While a leftover has no tombstone, it is what a
reader of the whole topic finds of a key whose latest record has become a tombstone.
"""

from collections.abc import Iterable, Iterator

from fnm_bus.kafka.record import Record


class Leftovers:
    """The partitions that keys have left.

    Args:
        places: (topic, key, partition) of each record.
        due: from when on every reader knows the new partitions, on the monotonic clock:
            before that, a tombstone would end the mitigation for some.
    """

    def __init__(
        self, places: Iterable[tuple[str, bytes, int]] = (), due: float = 0.0
    ) -> None:
        self._places: dict[tuple[str, bytes | None], list[int]] = {}
        for topic, key, partition in places:
            self._places.setdefault((topic, key), []).append(partition)
        self._due = due

    def __len__(self) -> int:
        return sum(map(len, self._places.values()))

    def is_due(self, now: float) -> bool:
        """Return whether leftovers of live keys are to get tombstones."""
        return bool(self._places) and now >= self._due

    def take(self, count: int) -> Iterator[Record]:
        """Yield the tombstones of the leftovers of up to *count* keys, once."""
        for topic, key in list(self._places)[:count]:
            yield from self._take(topic, key)

    def with_tombstones(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield *records*; with a key's tombstone come those of its leftovers, once.

        All of them belong into one transaction.
        """
        for record in records:
            yield record
            if record.value is None:
                yield from self._take(record.topic, record.key)

    def _take(self, topic: str, key: bytes | None) -> Iterator[Record]:
        for partition in self._places.pop((topic, key), ()):
            yield Record(topic, key, None, partition=partition)
