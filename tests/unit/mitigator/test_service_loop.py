"""The mitigator's loop, without Kafka."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from consumers.metrics import MitigatorMetrics
from consumers.mitigation.clock import BrokerClock
from consumers.mitigator import service
from consumers.mitigator.kafka.batch import Batch
from consumers.mitigator.kafka.stored_state import StoredState
from consumers.mitigator.kafka.transaction import TransactionalJournal
from consumers.mitigator.service import Mitigator
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import BrokerUnavailable
from fnm_bus.kafka.addressing import Topics
from tests.support.mitigator_harness import MitigatorHarness

if TYPE_CHECKING:
    from fnm_bus.kafka.record import Record

LOOPS = 50
PREFIX = "203.0.113.9/32"


class Journal:
    """Returns no message, and commits everything."""

    has_offsets = False

    def __init__(self) -> None:
        self.resumed = 0
        self.inputs = self
        self.commits = 0
        self.has_grown = False
        self.records: list[Record] = []

    def read(self, *_about: Any) -> list[Any]:
        return []

    def commit(self, records: Any) -> None:
        self.commits += 1
        self.records += records

    def check_partitions(self) -> None:
        if self.has_grown:
            raise BrokerUnavailable("other partitions")

    def resume(self) -> None:
        self.resumed += 1


class Election:
    def __init__(self) -> None:
        self.left = LOOPS

    def poll(self, _timeout: float) -> bool:
        self.left -= 1
        return self.left >= 0


def mitigator_of(harness: MitigatorHarness) -> Any:
    metrics = MitigatorMetrics()
    return Mitigator({}, "m", Topics(), Codec(), harness.context, metrics)


def test_endless_expiry_does_not_delay_proposals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harness = MitigatorHarness()
    clock = iter(range(10_000))
    monkeypatch.setattr(service, "monotonic", lambda: next(clock) / 10)

    def always_due(*_about: Any) -> Iterator[Any]:
        yield harness.new_transition()

    monkeypatch.setattr(service, "expire_leases", always_due)
    started: list[bool] = []

    def starting(*_about: Any) -> Iterator[Any]:
        started.append(True)
        yield from ()

    monkeypatch.setattr(service, "start_proposals", starting)
    mitigator, journal = mitigator_of(harness), Journal()
    mitigator._decide(journal, harness.state, Election())
    assert len(started) > 5
    assert journal.resumed == len(started)
    assert len(started) < LOOPS / 2


@pytest.fixture
def grown() -> tuple[Any, Journal, Batch]:
    """Return a mitigator after a growth, its journal, and a batch with a tombstone."""
    harness = MitigatorHarness()
    harness.command("add", kind="blackhole", prefix=PREFIX, lease_ms=3_600_000)
    [key] = harness.reasons
    topics = Topics()
    leftovers = [(topics.reason, key.encode(), place) for place in (3, 7)]
    leftovers.append((topics.reason, b"another", 5))
    mitigator, journal = mitigator_of(harness), Journal()
    mitigator._move(journal, StoredState(leftovers=leftovers))
    transition = harness.new_transition()
    transition.forget_reason(key)
    batch = Batch(topics, Codec(), "m")
    batch.add(transition)
    return mitigator, journal, batch


def test_tombstone_is_also_written_to_its_keys_old_partitions(
    grown: tuple[Any, Journal, Batch],
) -> None:
    """Otherwise the next takeover would restore the old record."""
    mitigator, journal, batch = grown
    mitigator._commit(journal, batch)
    assert journal.commits == 1
    assert [(record.value, record.partition) for record in journal.records] == [
        (None, -1),
        (None, 3),
        (None, 7),
    ]


def test_leftover_gets_one_tombstone(
    grown: tuple[Any, Journal, Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    mitigator, journal, batch = grown
    mitigator._commit(journal, batch)
    journal.records.clear()
    monkeypatch.setattr(service, "monotonic", lambda: 1e12)
    mitigator._delete_leftovers(journal)
    assert [(record.key, record.partition) for record in journal.records] == [
        (b"another", 5)
    ]


def test_leftovers_get_no_tombstones_after_a_second_growth(
    grown: tuple[Any, Journal, Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    mitigator, journal, _batch = grown
    journal.has_grown = True
    monkeypatch.setattr(service, "monotonic", lambda: 1e12)
    with pytest.raises(BrokerUnavailable):
        mitigator._delete_leftovers(journal)
    assert not journal.records


def test_growth_between_journal_and_scan_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The scan's leftovers may be where the journal writes the key's live record."""
    mitigator, topics = mitigator_of(MitigatorHarness()), Topics()
    compacted = topics.reason, topics.mitigation
    journal = TransactionalJournal({}, "m", (), BrokerClock(), compacted)
    journal._counts = dict.fromkeys(compacted, 12)
    stored = StoredState(partitions={topics.reason: 12, topics.mitigation: 24})
    monkeypatch.setattr(service, "read_state", lambda *_, **__: stored)
    with pytest.raises(BrokerUnavailable, match="other partitions now: 24, not 12"):
        mitigator._take_over(journal)
