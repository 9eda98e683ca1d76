"""Leftovers get one tombstone each: with their key's, or when every reader knows."""

import pytest

from consumers.mitigator.kafka.leftovers import Leftovers
from fnm_bus.kafka.record import Record

PLACES = [("t", b"a", 3), ("t", b"a", 7), ("t", b"b", 5)]


@pytest.fixture
def leftovers() -> Leftovers:
    return Leftovers(PLACES, due=100.0)


def test_record_with_a_value_adds_no_tombstones(leftovers: Leftovers) -> None:
    records = [Record("t", b"a", b"v")]
    assert list(leftovers.with_tombstones(records)) == records
    assert len(leftovers) == 3


def test_tombstone_of_another_topic_adds_no_tombstones(leftovers: Leftovers) -> None:
    assert len(list(leftovers.with_tombstones([Record("u", b"a", None)]))) == 1


def test_each_leftover_is_taken_once(leftovers: Leftovers) -> None:
    assert [record.partition for record in leftovers.take(1)] == [3, 7]
    assert [record.partition for record in leftovers.take(9)] == [5]
    assert not leftovers


@pytest.mark.parametrize(("now", "is_due"), [(99.9, False), (100.0, True)])
def test_live_keys_are_cleaned_when_every_reader_knows(
    leftovers: Leftovers, now: float, *, is_due: bool
) -> None:
    assert leftovers.is_due(now) == is_due


def test_empty_leftovers_are_not_due() -> None:
    assert not Leftovers().is_due(1e12)
