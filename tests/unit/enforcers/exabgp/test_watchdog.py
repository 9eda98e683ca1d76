"""The watchdog: which routes are expired."""

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


def leases_after(
    ends: Mapping[str, float] | None, *moments: float
) -> dict[str, RouteLease]:
    """Return the leases after a listing at each moment."""
    leases: dict[str, RouteLease] = {}
    for moment in moments:
        leases = update_leases(ROUTES, ends, leases, moment)
    return leases


def withdrawn(
    leases: Mapping[str, RouteLease], now: float, *, readable: bool = True
) -> set[str]:
    return set(expired_routes(leases, now, GRACE, readable=readable))


def test_route_with_lease_is_withdrawn_after_end_and_grace() -> None:
    leases = leases_after({A.key: 100.0, B.key: 200.0}, 50.0)
    assert withdrawn(leases, 100.0) == set()
    assert withdrawn(leases, 105.0) == set()
    assert withdrawn(leases, 105.1) == {A.key}
    assert withdrawn(leases, 205.1) == {A.key, B.key}


def test_renewed_lease_counts() -> None:
    leases = leases_after({A.key: 100.0, B.key: 100.0}, 50.0)
    leases = update_leases(ROUTES, {A.key: 300.0, B.key: 100.0}, leases, 99.0)
    assert withdrawn(leases, 106.0) == {B.key}


def test_route_without_lease_is_withdrawn_after_grace() -> None:
    leases = leases_after({A.key: 1000.0}, 50.0, 54.0)
    assert withdrawn(leases, 55.0) == set()
    assert withdrawn(leases, 55.1) == {B.key}


def test_lease_saved_within_grace_keeps_route() -> None:
    leases = leases_after({A.key: 1000.0}, 50.0)
    leases = update_leases(ROUTES, {A.key: 1000.0, B.key: 1000.0}, leases, 54.0)
    assert withdrawn(leases, 60.0) == set()


def test_route_with_deleted_lease_is_withdrawn_before_its_end() -> None:
    leases = leases_after({A.key: 1000.0, B.key: 1000.0}, 50.0)
    leases = update_leases(ROUTES, {A.key: 1000.0}, leases, 60.0)
    assert withdrawn(leases, 65.0) == set()
    assert withdrawn(leases, 65.1) == {B.key}


def test_grace_restarts_for_route_announced_again() -> None:
    leases = leases_after({}, 50.0)
    leases = update_leases({}, {}, leases, 52.0)
    leases = update_leases(ROUTES, {}, leases, 54.0)
    assert withdrawn(leases, 58.0) == set()


def test_last_known_end_counts_without_snapshot() -> None:
    leases = leases_after({A.key: 100.0, B.key: 2000.0}, 50.0)
    leases = update_leases(ROUTES, None, leases, 60.0)
    assert withdrawn(leases, 105.0, readable=False) == set()
    assert withdrawn(leases, 105.1, readable=False) == {A.key}
    assert withdrawn(leases, 1999.0, readable=False) == {A.key}


def test_route_without_known_end_is_withdrawn_after_maximum() -> None:
    leases = leases_after(None, 50.0, 60.0, 900.0)
    assert withdrawn(leases, 955.0, readable=False) == set()
    assert withdrawn(leases, 955.1, readable=False) == {A.key, B.key}


def test_withdrawal_has_a_reason() -> None:
    assert expired_routes(
        leases_after({A.key: 100.0}, 50.0), 110.0, GRACE, readable=True
    ) == {A.key: "its lease ended 10 s ago", B.key: "no lease for 60 s"}
    assert (
        "no readable snapshot"
        in expired_routes(leases_after(None, 0.0), 999.0, GRACE, readable=False)[A.key]
    )


def test_lease_of_withdrawn_route_is_deleted() -> None:
    assert update_leases({}, {A.key: 1.0}, leases_after({A.key: 1.0}, 0.0), 9.0) == {}
