"""Unusable stored records are left out, and stop no takeover."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consumers.mitigation.latest_record import partition_of
from consumers.mitigation.reason_key import key_of_reason
from consumers.mitigation.states import PAUSE, WANTED
from consumers.mitigation.topic_scan import Scan
from consumers.mitigator.kafka import stored_state
from consumers.mitigator.kafka.stored_state import (
    StoredState,
    read_state,
    with_remaining_lease,
)
from consumers.mitigator.state.restore import StoredRecord
from fnm_bus.avro.codec import Codec
from fnm_bus.event import Mitigation, Reason, Want
from fnm_bus.kafka.addressing import Topics
from fnm_bus.kafka.reader import ConsumedRecord

PREFIX = "203.0.113.70/32"
KEY = f"blackhole|{PREFIX}"
HUGE = 2**63 - 1
TOPICS = Topics()
Values = dict[bytes, bytes]
Reading = Callable[[Values, Values], StoredState]


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Reading:
    """Return a function that reads the state from reasons and mitigations."""

    def read(reasons: Values, mitigations: Values) -> StoredState:
        latest = {
            topic: {key: raw(key, value) for key, value in values.items()}
            for topic, values in (
                (TOPICS.reason, reasons),
                (TOPICS.mitigation, mitigations),
            )
        }
        others: dict[str, dict[bytes, tuple[int, ...]]] = {
            topic: {} for topic in latest
        }
        scan = Scan(latest, others, dict.fromkeys(latest, 1))
        monkeypatch.setattr(stored_state, "scan_topics", lambda *_: scan)
        return read_state({}, TOPICS)

    return read


def raw(key: bytes, value: bytes, partition: int = 0) -> ConsumedRecord:
    now = datetime.now(UTC)
    return ConsumedRecord("t", partition, 0, now, key, (), value, None, "")


def reason(**fields: Any) -> Values:
    record = Reason(
        **{
            "sensor": "fnm1",
            "scope": "host",
            "target": "203.0.113.70",
            "part": "attack",
            "lease_ms": 60_000,
            "wants": (Want(kind="blackhole", prefix=PREFIX),),
            **fields,
        }
    )
    return {key_of_reason(record).encode(): Codec().encode(record, TOPICS.reason)}


def mitigation(**fields: Any) -> Values:
    values = {"key": KEY, "kind": "blackhole", "prefix": PREFIX, "state": WANTED}
    record = Mitigation(**{**values, "lease_ms": 60_000, **fields})
    return {record.key.encode(): Codec().encode(record, TOPICS.mitigation)}


def test_records_of_our_own_are_read(reading: Reading) -> None:
    stored = reading(reason(), mitigation(revision=7))
    assert (len(stored.reasons), len(stored.mitigations)) == (1, 1)
    assert not stored.unreadable


@pytest.mark.parametrize(
    "fields", [{"lease_ms": HUGE}, {"renewals": HUGE}, {"lease_ms": 2**52}]
)
def test_reason_with_too_large_numbers_is_left_out(
    reading: Reading, fields: dict[str, int]
) -> None:
    stored = reading(reason(**fields), {})
    assert not stored.reasons
    assert len(stored.unreadable) == 1


@pytest.mark.parametrize("fields", [{"lease_ms": HUGE}, {"revision": HUGE}])
def test_mitigation_with_too_large_numbers_is_left_out(
    reading: Reading, fields: dict[str, int]
) -> None:
    stored = reading({}, mitigation(**fields))
    assert not stored.mitigations
    assert len(stored.unreadable) == 1


def test_pause_with_too_large_revision_still_pauses(reading: Reading) -> None:
    pause = Mitigation(key=PAUSE, kind=PAUSE, state=WANTED, revision=HUGE)
    stored = reading({}, {b"pause": Codec().encode(pause, TOPICS.mitigation)})
    (record,) = stored.records()
    assert (record.state, record.revision) == (WANTED, 0)


def test_a_record_that_names_a_schema_id_needs_no_registry(reading: Reading) -> None:
    framed = b"\x00\x00\x00\x00\x07garbage"
    stored = reading({b"[]": framed}, {b"k": framed, **mitigation()})
    assert len(stored.mitigations) == 1
    assert len(stored.unreadable) == 2


def test_a_record_that_fails_unexpectedly_stops_no_other(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_measure: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(stored_state, "validate_measure", fail)
    stored = reading(reason(), mitigation())
    assert len(stored.unreadable) == 2


def placed(
    monkeypatch: pytest.MonkeyPatch, latest: int, others: tuple[int, ...]
) -> StoredState:
    """Return the state of one mitigation with records in some of 24 partitions."""
    [(key, value)] = mitigation().items()
    scan = Scan(
        {TOPICS.reason: {}, TOPICS.mitigation: {key: raw(key, value, latest)}},
        {TOPICS.reason: {}, TOPICS.mitigation: {key: others} if others else {}},
        {TOPICS.reason: 24, TOPICS.mitigation: 24},
    )
    monkeypatch.setattr(stored_state, "scan_topics", lambda *_: scan)
    return read_state({}, TOPICS)


OWN = partition_of(KEY.encode(), 24)


@pytest.mark.parametrize(
    ("latest", "others", "is_misplaced", "leftovers"),
    [
        (OWN, (), False, []),
        (OWN, (OWN + 1,), False, [OWN + 1]),
        (OWN + 1, (), True, [OWN + 1]),
        (OWN + 1, (OWN,), True, [OWN + 1]),
        (OWN + 1, (OWN, OWN + 2), True, [OWN + 1, OWN + 2]),
    ],
)
def test_records_outside_their_keys_partition_are_known(
    monkeypatch: pytest.MonkeyPatch,
    latest: int,
    others: tuple[int, ...],
    *,
    is_misplaced: bool,
    leftovers: list[int],
) -> None:
    state = placed(monkeypatch, latest, others)
    assert bool(state.misplaced) == is_misplaced
    assert [partition for _topic, _key, partition in state.leftovers] == leftovers


@pytest.mark.parametrize(
    ("age", "lease_ms", "expected"),
    [(20, 60_000, 40_000), (90, 60_000, 1), (20, 0, 0), (-5, 60_000, 60_000)],
)
def test_a_record_that_moves_keeps_the_end_of_its_lease(
    age: float, lease_ms: int, expected: int
) -> None:
    now = datetime.now(UTC)
    record = Mitigation(key=KEY, lease_ms=lease_ms)
    stored = StoredRecord(record, now - timedelta(seconds=age))
    assert with_remaining_lease(stored, now).lease_ms == expected
