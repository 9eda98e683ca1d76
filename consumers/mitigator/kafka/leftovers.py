"""Leftovers: records outside their keys' partitions, after a topic grew.

A reader of the whole topic would find a leftover after a tombstone for its key. So the
leftover gets a tombstone too.
"""

from collections.abc import Iterable, Iterator

from fnm_bus.kafka.record import Record


class Leftovers:
    """The partitions that keys have left.

    Args:
        records: (topic, key, partition) of each leftover.
        due: when every reader has the new partitions, on the monotonic clock. An
            earlier tombstone would end the mitigation for some readers.
    """

    def __init__(
        self, records: Iterable[tuple[str, bytes, int]] = (), due: float = 0.0
    ) -> None:
        self._partitions: dict[tuple[str, bytes | None], list[int]] = {}
        for topic, key, partition in records:
            self._partitions.setdefault((topic, key), []).append(partition)
        self._due = due

    def __len__(self) -> int:
        return sum(map(len, self._partitions.values()))

    def is_due(self, now: float) -> bool:
        """Return whether the leftovers of active keys can get tombstones."""
        return bool(self._partitions) and now >= self._due

    def take(self, count: int) -> Iterator[Record]:
        """Yield the tombstones of up to *count* keys, once."""
        for topic, key in list(self._partitions)[:count]:
            yield from self._take(topic, key)

    def with_tombstones(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield *records*, and after each tombstone those of its key's leftovers.

        All of them belong into one transaction.
        """
        for record in records:
            yield record
            if record.value is None:
                yield from self._take(record.topic, record.key)

    def _take(self, topic: str, key: bytes | None) -> Iterator[Record]:
        for partition in self._partitions.pop((topic, key), ()):
            yield Record(topic, key, None, partition=partition)
