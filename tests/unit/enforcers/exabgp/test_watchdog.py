"""What the watchdog finds due."""

from collections.abc import Mapping

from consumers.enforcers.exabgp.watchdog import (
    RouteLease,
    expired_routes,
    update_leases,
)
from consumers.mitigation.measure import Measure

GRACE = 5.0
A = Measure(kind="blackhole", prefix="192.0.2.1/32")
B = Measure(kind="blackhole", prefix="192.0.2.2/32")
ROUTES = {A.key: A, B.key: B}


def known(ends: Mapping[str, float] | None, *moments: float) -> dict[str, RouteLease]:
    """Look at each of the moments, and find the same."""
    seen: dict[str, RouteLease] = {}
    for moment in moments:
        seen = update_leases(ROUTES, ends, seen, moment)
    return seen


def withdrawn(
    seen: Mapping[str, RouteLease], now: float, *, readable: bool = True
) -> set[str]:
    return set(expired_routes(seen, now, GRACE, readable=readable))


def test_what_has_a_lease_stands_until_its_end_and_the_grace() -> None:
    seen = known({A.key: 100.0, B.key: 200.0}, 50.0)
    assert withdrawn(seen, 100.0) == set()
    assert withdrawn(seen, 105.0) == set()
    assert withdrawn(seen, 105.1) == {A.key}
    assert withdrawn(seen, 205.1) == {A.key, B.key}


def test_a_renewed_lease_counts() -> None:
    seen = known({A.key: 100.0, B.key: 100.0}, 50.0)
    seen = update_leases(ROUTES, {A.key: 300.0, B.key: 100.0}, seen, 99.0)
    assert withdrawn(seen, 106.0) == {B.key}


def test_what_has_no_lease_is_withdrawn_after_the_grace() -> None:
    seen = known({A.key: 1000.0}, 50.0, 54.0)
    assert withdrawn(seen, 55.0) == set()
    assert withdrawn(seen, 55.1) == {B.key}


def test_a_lease_that_comes_within_the_grace_is_in_time() -> None:
    seen = known({A.key: 1000.0}, 50.0)
    seen = update_leases(ROUTES, {A.key: 1000.0, B.key: 1000.0}, seen, 54.0)
    assert withdrawn(seen, 60.0) == set()


def test_what_the_enforcer_let_go_of_is_withdrawn_before_its_old_end() -> None:
    seen = known({A.key: 1000.0, B.key: 1000.0}, 50.0)
    seen = update_leases(ROUTES, {A.key: 1000.0}, seen, 60.0)
    assert withdrawn(seen, 65.0) == set()
    assert withdrawn(seen, 65.1) == {B.key}


def test_the_grace_begins_anew_for_what_was_gone_in_between() -> None:
    seen = known({}, 50.0)
    seen = update_leases({}, {}, seen, 52.0)
    seen = update_leases(ROUTES, {}, seen, 54.0)
    assert withdrawn(seen, 58.0) == set()


def test_without_a_snapshot_the_last_known_end_holds() -> None:
    seen = known({A.key: 100.0, B.key: 2000.0}, 50.0)
    seen = update_leases(ROUTES, None, seen, 60.0)
    assert withdrawn(seen, 105.0, readable=False) == set()
    assert withdrawn(seen, 105.1, readable=False) == {A.key}
    assert withdrawn(seen, 1999.0, readable=False) == {A.key}


def test_without_any_known_end_the_bound_holds() -> None:
    seen = known(None, 50.0, 60.0, 900.0)
    assert withdrawn(seen, 955.0, readable=False) == set()
    assert withdrawn(seen, 955.1, readable=False) == {A.key, B.key}


def test_it_is_said_why() -> None:
    assert expired_routes(known({A.key: 100.0}, 50.0), 110.0, GRACE, readable=True) == {
        A.key: "its lease ended 10 s ago",
        B.key: "no lease for 60 s",
    }
    assert (
        "no readable snapshot"
        in expired_routes(known(None, 0.0), 999.0, GRACE, readable=False)[A.key]
    )


def test_what_does_not_stand_is_forgotten() -> None:
    assert update_leases({}, {A.key: 1.0}, known({A.key: 1.0}, 0.0), 9.0) == {}
