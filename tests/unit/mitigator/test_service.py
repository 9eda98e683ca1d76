"""The effects of one message, by its topic."""

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
from fnm_bus.kafka.addressing import Topics
from fnm_bus.spool.sequence import sequence_at

TOPICS = Topics()
NOW = datetime.now(UTC)
RECEIPT = Receipt(
    event_id="e", sensor="fnm1", received_at=NOW, sequence=sequence_at(NOW)
)
BAN = HostEvent(receipt=RECEIPT, action="ban", ip="203.0.113.7")
STATUS = StatusEvent(receipt=RECEIPT, action="attack_status", ip="203.0.113.7")
GROUP = HostgroupEvent(receipt=RECEIPT, action="ban", hostgroup_name="web")
PAUSE = Command(command_id="c", verb="pause", by="alice")


class Message:
    """A fake Kafka message."""

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
    def __init__(self) -> None:
        self.processed: list[Any] = []
        self.inputs = self

    def is_paused(self, _message: object) -> bool:
        return False

    def is_behind(self, _topics: object) -> bool:
        return False

    def mark_done(self, message: object) -> None:
        self.processed.append(message)


class MitigatorBench:
    """A mitigator that is given messages by hand."""

    def __init__(self) -> None:
        context = DecisionContext(policy(rule("all")), dry_run=False)
        self.metrics = MitigatorMetrics()
        self.record = Mitigator({}, "m", TOPICS, Codec(), context, self.metrics)
        self.state = State((), dry_run=False)

    def take(self, topic: str, record: AnyRecord, stamp: int | None = None) -> Batch:
        at = round(datetime.now(UTC).timestamp() * 1000) if stamp is None else stamp
        batch, journal = Batch(TOPICS, Codec(), "m"), Journal()
        message: Any = Message(topic, record, at)
        processor = self.record._processor
        processor.process(journal, self.state, batch, message)  # type: ignore[arg-type]
        assert journal.processed == [message]
        return batch


def reasons_of_letters(batch: Batch) -> list[str]:
    letters = (
        Codec().decode(record.value)
        for record in batch.records()
        if record.topic == TOPICS.deadletter
    )
    return [record.reason for record in letters if isinstance(record, DeadLetter)]


@pytest.mark.parametrize(
    ("topic", "record"),
    [
        (TOPICS.host, BAN),
        (TOPICS.hostgroup, GROUP),
        (TOPICS.status, STATUS),
        (TOPICS.command, PAUSE),
    ],
)
def test_record_on_its_own_topic_is_applied(topic: str, record: AnyRecord) -> None:
    assert reasons_of_letters(MitigatorBench().take(topic, record)) == []


@pytest.mark.parametrize("topic", [TOPICS.host, TOPICS.hostgroup, TOPICS.status])
def test_command_on_an_event_topic_is_a_dead_letter(topic: str) -> None:
    bench = MitigatorBench()
    batch = bench.take(topic, PAUSE)
    assert not bench.state.paused
    (reason,) = reasons_of_letters(batch)
    assert f"a Command on {topic}" in reason


@pytest.mark.parametrize("record", [BAN, GROUP, STATUS])
def test_event_on_the_command_topic_is_a_dead_letter(record: AnyRecord) -> None:
    bench = MitigatorBench()
    (reason,) = reasons_of_letters(bench.take(TOPICS.command, record))
    assert f"on {TOPICS.command}" in reason
    assert not bench.state.reasons


@pytest.mark.parametrize(
    ("topic", "record"),
    [(TOPICS.status, BAN), (TOPICS.host, STATUS), (TOPICS.hostgroup, BAN)],
)
def test_an_event_on_another_events_topic_is_a_dead_letter(
    topic: str, record: AnyRecord
) -> None:
    assert len(reasons_of_letters(MitigatorBench().take(topic, record))) == 1


@pytest.mark.parametrize("stamp", [-(2**62), 2**62, -1])
def test_command_with_an_impossible_time_is_applied(stamp: int) -> None:
    bench = MitigatorBench()
    batch = bench.take(TOPICS.command, PAUSE, stamp)
    assert reasons_of_letters(batch) == []
    assert bench.state.paused  # whenever it was sent


class Election:
    """A fake `LeaderElection`: never elected, and stops the mitigator."""

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
def test_standby_shows_only_the_elections_problem(
    monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    bench = MitigatorBench()
    monkeypatch.setattr(service, "LeaderElection", Election)
    monkeypatch.setattr(Election, "mitigator", bench.record, raising=False)
    monkeypatch.setattr(Election, "problem", problem)
    bench.record.problem = "Fenced: another mitigator writes now"
    bench.record.run()
    is_healthy, values = bench.record.health()
    assert values["problem"] == problem
    assert is_healthy == (not problem)


def test_a_partition_that_waits_for_the_registry_is_a_problem() -> None:
    bench = MitigatorBench()
    bench.record._processor.unreadable[TOPICS.host, 3] = "the registry does not answer"
    bench.record._update_metrics(bench.state)
    assert not bench.record.health()[0]
    assert TOPICS.host in bench.record.problem
    bench.record._processor.unreadable.clear()
    bench.record._update_metrics(bench.state)
    assert bench.record.health()[0]
