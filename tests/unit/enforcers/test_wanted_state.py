"""Records of the mitigation topic: wanted, ended, refused, in several partitions."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from support.enforcer_harness import DAY, ONE, TWO, EnforcerHarness

from consumers.enforcers import wanted_state


@pytest.mark.parametrize(
    "how",
    [{"dry_run": True}, {"place": "nftables"}],
    ids=["dry run", "another enforcer's"],
)
def test_record_for_another_enforcer_is_ignored(
    harness: EnforcerHarness, how: dict[str, Any]
) -> None:
    harness.end_topic()
    harness.put(ONE, **how)
    harness.put("notify|203.0.113.1/32")
    assert harness.run() == []


def test_undecodable_record_has_no_effect(harness: EnforcerHarness) -> None:
    harness.start(ONE)
    harness.put_record(ONE, b"broken", None)
    assert harness.run() == [ONE]
    assert harness.count("unreadable_records") == 1


def test_later_record_of_two_partitions_counts(harness: EnforcerHarness) -> None:
    harness.put(ONE, "ended", age=5)
    harness.put(TWO, age=5)
    harness.partition = 1
    harness.put(ONE, "wanted", age=50)
    harness.put(TWO, "ended", age=50)
    harness.end_topic()
    assert harness.run() == [TWO]


@pytest.mark.parametrize("old_first", [True, False])
def test_tombstone_in_old_partition_keeps_moved_key(
    harness: EnforcerHarness, *, old_first: bool
) -> None:
    def old() -> None:
        harness.partition = 0
        harness.put(ONE, age=50)
        harness.put_record(ONE, None, None, age=1)

    def moved() -> None:
        harness.partition = 7
        harness.put(ONE, age=20)

    for step in (old, moved) if old_first else (moved, old):
        step()
    harness.end_topic()
    assert harness.run() == [ONE]


@pytest.fixture
def grown(harness: EnforcerHarness) -> EnforcerHarness:
    """Return an enforcer of ONE and TWO whose topic got another partition."""
    harness.put(ONE, age=50)
    harness.put(TWO, age=50)
    harness.end_topic()
    harness.run()
    harness.add_partitions()
    return harness


def test_tombstone_read_before_moved_record_withdraws_nothing(
    grown: EnforcerHarness,
) -> None:
    grown.put_record(ONE, None, None, age=1)
    assert grown.run() == [ONE, TWO]
    grown.partition = 7
    grown.put(ONE, age=20)
    grown.run()
    grown.end_topic()
    assert grown.run() == [ONE, TWO]
    assert ("withdrawn", ONE) not in grown.audit.published


def test_end_in_grown_topic_withdraws_after_topic_end(grown: EnforcerHarness) -> None:
    grown.put(ONE, "ended", age=5)
    grown.put_record(TWO, None, None, age=1)
    assert grown.run() == [ONE, TWO]
    grown.end_topic()
    assert grown.run() == []


def test_lease_ends_while_grown_topic_is_read(
    grown: EnforcerHarness, advance: Callable[[float], None]
) -> None:
    grown.run()
    advance(11)
    assert grown.run() == []


def test_order_within_a_partition_counts_instead_of_clocks(
    harness: EnforcerHarness,
) -> None:
    harness.put(ONE, age=5)
    harness.put(ONE, "ended", age=6)  # by another broker, whose clock is behind
    harness.end_topic()
    assert harness.run() == []


@pytest.mark.parametrize(
    ("code", "key", "how"),
    [
        ("own_networks", "blackhole|198.51.100.1/32", {}),
        ("own_networks", "blackhole|203.0.112.0/23", {}),
        ("width", "blackhole|0.0.0.0/0", {}),
        ("lease", TWO, {"lease": DAY + 1}),
        ("lease", TWO, {"lease_ms": 2**62}),
        ("key", "blackhole|203.0.113.3/32", {"prefix": "203.0.113.2/32"}),
        ("prefix", "blackhole|203.0.113.2/24", {}),
        ("prefix", "blackhole|203.0.113.2", {}),
        ("prefix", "blackhole|nonsense", {}),
        ("form", "blackhole|None", {"prefix": None}),
    ],
)
def test_refused_record_stops_no_other(
    harness: EnforcerHarness, code: str, key: str, how: Mapping[str, Any]
) -> None:
    harness.end_topic()
    harness.put(key, **how)
    harness.put(ONE)
    harness.put(key, **how)
    assert harness.run(2) == [ONE]
    assert harness.audit.codes.count(code) == 1
    assert harness.count("refused", code) == 2
    assert harness.count("failures") == 0


def test_refused_record_ends_earlier_wanted_record(harness: EnforcerHarness) -> None:
    harness.start(ONE)
    harness.put(ONE, lease=DAY + 1)
    assert harness.run() == []


def test_record_with_unexpected_error_stops_no_other(
    harness: EnforcerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = wanted_state.record_guard.check_record

    def broken(key: str, *rest: Any) -> Any:
        if key == TWO:
            raise RuntimeError("a bug")
        return check(key, *rest)

    monkeypatch.setattr("consumers.enforcers.record_guard.check_record", broken)
    harness.end_topic()
    harness.put(TWO)
    harness.put(ONE)
    assert harness.run() == [ONE]
    assert harness.count("refused", "unexpected") == 1


def test_end_is_never_refused(harness: EnforcerHarness) -> None:
    harness.start(ONE)
    harness.put(ONE, "ended", lease=-5, prefix="nonsense")
    assert harness.run() == []


def test_measures_above_the_maximum_are_refused(
    harness: EnforcerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.enforcers.lease_table.MAX_RECORDS", 2)
    harness.end_topic()
    for number in range(5):
        harness.put(f"blackhole|203.0.113.{number}/32")
    harness.put("blackhole|203.0.113.0/32")  # a renewal has room
    harness.run()
    assert len(harness.in_force()) == 2
    assert harness.count("refused", "too_many") == 3
