"""The latest record of a key, in a topic whose number of partitions was raised.

In such a topic a key may have records in two partitions, which are read in any order.
Within one partition the later offset counts. Between two partitions the later broker's
time counts, then the higher revision. A tombstone removes the key from its own
partition only: the mitigator writes it to the key's old partition, after the record is
in the new one.
"""

from typing import NamedTuple
from zlib import crc32


class Origin(NamedTuple):
    """The origin of a record.

    Attributes:
        partition: its partition.
        stamp: the broker's time of the record, in any unit.
        revision: its revision; 0 without one.
    """

    partition: int
    stamp: float
    revision: int = 0


def supersedes(new: Origin, current: Origin | None, *, is_tombstone: bool) -> bool:
    """Return whether a record that was read replaces the current one.

    Args:
        new: the record that was read.
        current: the record that counted so far; None without one, and after a
            tombstone.
        is_tombstone: whether the record that was read is a tombstone.
    """
    if current is None or current.partition == new.partition:
        return True
    return not is_tombstone and new[1:] >= current[1:]


def partition_of(key: bytes, count: int) -> int:
    """Return the partition of a key among *count*, as librdkafka's default does."""
    return crc32(key) % count
