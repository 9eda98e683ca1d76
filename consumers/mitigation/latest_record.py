"""Which of two records of one key counts, in a topic that was given more partitions.

Then a key has records in two partitions, which are read in any order. Within one
partition the order counts, and no clock. Between two, the later record by the broker's
time counts, then the one with the higher revision. A tombstone ends what its own
partition holds, and says nothing about another one: the mitigator writes it where the
key was, after the record is where the key is now.
"""

from typing import NamedTuple
from zlib import crc32


class Origin(NamedTuple):
    """Where a record is from.

    Attributes:
        partition: its partition.
        stamp: the broker's time of the record, in any one unit.
        revision: its revision; 0 where it has none.
    """

    partition: int
    stamp: float
    revision: int = 0


def supersedes(new: Origin, known: Origin | None, *, is_tombstone: bool) -> bool:
    """Return whether a record that was read counts instead of what is known.

    After a tombstone that counts nothing is known of its key.

    Args:
        new: of the record that was read.
        known: of the record that counted so far, if there is one.
        is_tombstone: whether the record that was read is one.
    """
    if known is None or known.partition == new.partition:
        return True
    return not is_tombstone and new[1:] >= known[1:]


def partition_of(key: bytes, count: int) -> int:
    """Return the partition of a key among *count*: as librdkafka's default has it."""
    return crc32(key) % count
