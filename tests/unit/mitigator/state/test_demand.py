"""The joint wants of several reasons for one measure."""

import random
from time import process_time

import pytest

from consumers.mitigation.measure import Measure
from consumers.mitigation.reason_key import ReasonKey
from consumers.mitigator.state.demand import Demand, Terms, WantLease
from fnm_bus.event import Effect, FlowThen

LIVE = Terms(Effect())
DRY = Terms(Effect(), dry_run=True)


def key(number: int) -> ReasonKey:
    return ReasonKey("fnm1", "host", f"203.0.113.{number}", "attack")


def demand() -> Demand:
    return Demand(Measure(kind="blackhole", prefix="203.0.113.0/24"))


def test_equal_terms_are_counted_together() -> None:
    wanted = demand()
    for number in range(3):
        wanted.put(key(number), LIVE, WantLease(10.0, 5.0))
    wanted.put(key(3), DRY, WantLease(10.0, 5.0))
    assert wanted.terms() == (LIVE, DRY)
    assert (wanted.count(LIVE), wanted.count(DRY), len(wanted)) == (3, 1, 4)


def test_reason_that_changes_its_terms_moves() -> None:
    wanted = demand()
    wanted.put(key(1), LIVE, WantLease(10.0, 5.0))
    wanted.put(key(1), DRY, WantLease(10.0, 5.0))
    assert wanted.terms() == (DRY,)
    assert wanted.terms_of(key(1)) == DRY


def test_removing_the_last_reason_leaves_no_terms() -> None:
    wanted = demand()
    wanted.put(key(1), LIVE, WantLease(10.0, 5.0))
    wanted.remove(key(1))
    wanted.remove(key(2))  # one that never was there
    assert not wanted
    assert wanted.terms() == ()
    assert key(1) not in wanted


def test_latest_is_the_reason_that_expires_last() -> None:
    wanted = demand()
    wanted.put(key(1), LIVE, WantLease(10.0, 5.0))
    wanted.put(key(2), LIVE, WantLease(30.0, 6.0))
    wanted.put(key(3), LIVE, WantLease(20.0, 7.0))
    assert wanted.latest(LIVE) == WantLease(30.0, 6.0)
    wanted.remove(key(2))
    assert wanted.latest(LIVE) == WantLease(20.0, 7.0)
    wanted.put(key(3), LIVE, WantLease(5.0, 7.0))  # a shorter lease
    assert wanted.latest(LIVE) == WantLease(10.0, 5.0)


def test_latest_follows_random_changes() -> None:
    wanted, numbers = demand(), random.Random(7)  # noqa: S311 - a test's
    active: dict[ReasonKey, float] = {}
    for _ in range(3_000):
        name = key(numbers.randrange(20))
        if numbers.random() < 0.3:
            wanted.remove(name)
            active.pop(name, None)
        else:
            ends = float(numbers.randrange(1000))
            wanted.put(name, LIVE, WantLease(ends, 1.0))
            active[name] = ends
        if active:
            assert wanted.latest(LIVE).ends == max(active.values())
            assert wanted.count(LIVE) == len(active)
        else:
            assert not wanted


def test_first_reasons_are_the_oldest_of_the_chosen_terms() -> None:
    wanted = demand()
    wanted.put(key(1), DRY, WantLease(10.0, 5.0))
    for number in (2, 3, 4):
        wanted.put(key(number), LIVE, WantLease(10.0, 5.0))
    assert wanted.first([LIVE], 2) == [key(2), key(3)]
    assert wanted.first([LIVE, DRY], 9) == [key(2), key(3), key(4), key(1)]


def test_renewals_of_one_reason_use_no_memory() -> None:
    wanted = demand()
    for number in range(10_000):
        wanted.put(key(1), LIVE, WantLease(float(number), 5.0))
    [group] = wanted._groups.values()
    assert len(group._by_end) <= 12


@pytest.mark.parametrize("count", [65_000])
def test_65_000_reasons_cost_no_more_each_than_few(count: int) -> None:
    """Twenty times the time per change is far from linear in the number."""

    def seconds(number: int) -> float:
        wanted = demand()
        names = [
            ReasonKey("s", "host", str(index), "attack") for index in range(number)
        ]
        began = process_time()
        for index, name in enumerate(names):
            wanted.put(name, LIVE, WantLease(float(index), 5.0))
            wanted.latest(LIVE)
            wanted.first([LIVE], 5)
        for name in names:
            wanted.remove(name)
            if wanted:
                wanted.latest(LIVE)
                wanted.first([LIVE], 5)
        return (process_time() - began) / number

    assert seconds(count) < 20 * seconds(1_000)


def test_stronger_terms_are_terms_of_their_own() -> None:
    wanted = demand()
    slow = Terms(Effect(then=FlowThen(action="rate-limit", rate=1)))
    wanted.put(key(1), LIVE, WantLease(1.0, 1.0))
    wanted.put(key(2), slow, WantLease(1.0, 1.0))
    assert wanted.terms() == (LIVE, slow)
