"""What one message may do, by the topic that it stands on."""

from datetime import UTC, datetime
from typing import Any

import pytest
from support.mitigator_harness import policy, rule

from consumers.metrics import MitigatorMetrics
from consumers.mitigator import service
from consumers.mitigator.context import DecisionContext
from consumers.mitigator.kafka.batch import Batch
from consumers.mitigator.service import Mitigator
from consumers.mitigator.state.state import State
from fnm_bus.avro.codec import Codec
from fnm_bus.event import (
    AnyRecord,
    Command,
    DeadLetter,
    HostEvent,
    HostgroupEvent,
    Receipt,
    StatusEvent,
)
from fnm_bus.kafka.route import Topics
from fnm_bus.spool.sequence import sequence_at

TOPICS = Topics()
NOW = datetime.now(UTC)
RECEIPT = Receipt(
    event_id="e", sensor="fnm1", received_at=NOW, sequence=sequence_at(NOW)
)
BAN = HostEvent(receipt=RECEIPT, action="ban", ip="203.0.113.7")
STATUS = StatusEvent(receipt=RECEIPT, action="attack_status", ip="203.0.113.7")
GROUP = HostgroupEvent(receipt=RECEIPT, action="ban", hostgroup_name="web")
PAUSE = Command(command_id="c", verb="pause", by="somebody")


class Message:
    """Stands in for Kafka's."""

    def __init__(self, topic: str, record: AnyRecord, stamp: int) -> None:
        self._topic, self._stamp = topic, stamp
        self._value = Codec().encode(record, topic)

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 0

    def timestamp(self) -> tuple[int, int]:
        return 2, self._stamp

    def key(self) -> bytes | None:
        return None

    def headers(self) -> None:
        return None

    def value(self) -> bytes:
        return self._value


class Journal:
    """Stands in for `TransactionalJournal`."""

    def __init__(self) -> None:
        self.processed: list[Any] = []

    def is_paused(self, _message: object) -> bool:
        return False

    def is_behind(self, _topics: object) -> bool:
        return False

    def done(self, message: object) -> None:
        self.processed.append(message)


class Bench:
    """A mitigator that is given messages by hand."""

    def __init__(self) -> None:
        context = DecisionContext(policy(rule("all")), dry_run=False)
        self.metrics = MitigatorMetrics()
        self.it = Mitigator({}, "m", TOPICS, Codec(), context, self.metrics)
        self.state = State((), dry_run=False)

    def take(self, topic: str, record: AnyRecord, stamp: int | None = None) -> Batch:
        at = round(datetime.now(UTC).timestamp() * 1000) if stamp is None else stamp
        batch, journal = Batch(TOPICS, Codec(), "m"), Journal()
        message: Any = Message(topic, record, at)
        self.it._take(journal, self.state, batch, message)  # type: ignore[arg-type]
        assert journal.processed == [message]
        return batch


def reasons_of_letters(batch: Batch) -> list[str]:
    letters = (
        Codec().decode(it.value)
        for it in batch.records()
        if it.topic == TOPICS.deadletter
    )
    return [it.reason for it in letters if isinstance(it, DeadLetter)]


@pytest.mark.parametrize(
    ("topic", "record"),
    [
        (TOPICS.host, BAN),
        (TOPICS.hostgroup, GROUP),
        (TOPICS.status, STATUS),
        (TOPICS.command, PAUSE),
    ],
)
def test_what_stands_on_its_own_topic_counts(topic: str, record: AnyRecord) -> None:
    assert reasons_of_letters(Bench().take(topic, record)) == []


@pytest.mark.parametrize("topic", [TOPICS.host, TOPICS.hostgroup, TOPICS.status])
def test_who_may_only_report_attacks_cannot_command(topic: str) -> None:
    bench = Bench()
    batch = bench.take(topic, PAUSE)
    assert not bench.state.paused
    (why,) = reasons_of_letters(batch)
    assert f"a Command on {topic}" in why


@pytest.mark.parametrize("record", [BAN, GROUP, STATUS])
def test_who_may_only_command_cannot_report_attacks(record: AnyRecord) -> None:
    bench = Bench()
    (why,) = reasons_of_letters(bench.take(TOPICS.command, record))
    assert f"on {TOPICS.command}" in why
    assert not bench.state.reasons


@pytest.mark.parametrize(
    ("topic", "record"),
    [(TOPICS.status, BAN), (TOPICS.host, STATUS), (TOPICS.hostgroup, BAN)],
)
def test_an_event_on_another_events_topic_is_a_dead_letter(
    topic: str, record: AnyRecord
) -> None:
    assert len(reasons_of_letters(Bench().take(topic, record))) == 1


@pytest.mark.parametrize("stamp", [-(2**62), 2**62, -1])
def test_a_command_of_a_mad_time_is_no_unexpected_error(stamp: int) -> None:
    bench = Bench()
    batch = bench.take(TOPICS.command, PAUSE, stamp)
    assert reasons_of_letters(batch) == []
    assert bench.state.paused  # whenever it was sent


class Election:
    """Stands in for `LeaderElection`: never elected, and stops the mitigator."""

    problem = ""
    mitigator: Mitigator

    def __init__(self, *_: object) -> None:
        pass

    def open(self) -> None:
        pass

    def poll(self, _seconds: float) -> bool:
        self.mitigator.stop()
        return False

    def close(self) -> None:
        pass


@pytest.mark.parametrize("problem", ["", "election: the topic is unknown"])
def test_one_that_stands_by_shows_the_problem_of_the_election_alone(
    monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    bench = Bench()
    monkeypatch.setattr(service, "LeaderElection", Election)
    monkeypatch.setattr(Election, "mitigator", bench.it, raising=False)
    monkeypatch.setattr(Election, "problem", problem)
    bench.it.problem = "Fenced: another mitigator writes now"
    bench.it.run()
    assert bench.it.facts()["problem"] == problem
    assert bench.it.healthy() == (not problem)


def test_a_partition_that_waits_for_the_registry_is_a_problem() -> None:
    bench = Bench()
    bench.it._unreadable[TOPICS.host, 3] = "the registry does not answer"
    bench.it._show(bench.state)
    assert not bench.it.healthy()
    assert TOPICS.host in bench.it.problem
    bench.it._unreadable.clear()
    bench.it._show(bench.state)
    assert bench.it.healthy()
