"""Of two records of one key in two partitions, the later one counts."""

import pytest

from consumers.mitigation.latest_record import Origin, supersedes

KNOWN = Origin(0, 5.0, 3)


@pytest.mark.parametrize(
    ("new", "counts"),
    [
        (Origin(0, 4.0, 1), True),  # one partition: the order counts
        (Origin(1, 6.0, 1), True),
        (Origin(1, 4.0, 9), False),
        (Origin(1, 5.0, 4), True),
        (Origin(1, 5.0, 2), False),
    ],
)
def test_the_later_record_counts_then_the_higher_revision(
    new: Origin, *, counts: bool
) -> None:
    assert supersedes(new, KNOWN, is_tombstone=False) == counts


def test_a_tombstone_of_another_partition_does_not_count() -> None:
    assert not supersedes(Origin(1, 9.0), KNOWN, is_tombstone=True)
    assert supersedes(Origin(0, 1.0), KNOWN, is_tombstone=True)


def test_any_record_replaces_an_unknown_one() -> None:
    assert supersedes(Origin(1, 0.0), None, is_tombstone=False)
