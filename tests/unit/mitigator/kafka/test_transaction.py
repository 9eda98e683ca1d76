"""The journal raises errors of reading, writing, and new partitions."""

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from consumers.errors import Fenced
from consumers.mitigation.clock import BrokerClock
from consumers.mitigator.kafka.transaction import TransactionalJournal
from fnm_bus.errors import BrokerUnavailable, TopicRefused
from fnm_bus.kafka.record import Record


class Failure:
    def __init__(self, code: int) -> None:
        self._code = code

    def error(self) -> KafkaError:
        return KafkaError(self._code)

    def topic(self) -> str:
        return "host"


class Consumer:
    def __init__(self) -> None:
        self.left: list[Any] = []
        self.partitions = 1

    def poll(self, _timeout: float) -> Any:
        return self.left.pop(0) if self.left else None

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition("host", 0, 0)]

    def list_topics(self, topic: str, timeout: float) -> Any:
        assert timeout > 0
        numbers = dict.fromkeys(range(self.partitions))
        metadata = SimpleNamespace(error=None, partitions=numbers)
        return SimpleNamespace(topics={topic: metadata})


@pytest.fixture
def consumer() -> Consumer:
    return Consumer()


@pytest.fixture
def journal(consumer: Consumer) -> TransactionalJournal:
    made = TransactionalJournal({}, "m", ("host",), BrokerClock())
    made.inputs._opened = consumer  # type: ignore[assignment]  # all of it that is used
    return made


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_PARTITION,
    ],
)
def test_unreadable_topic_is_an_error(
    journal: TransactionalJournal, consumer: Consumer, code: int
) -> None:
    consumer.left = [Failure(code)]
    with pytest.raises(TopicRefused, match="host"):
        journal.inputs.read(0.0)


def test_transient_error_is_ignored(
    journal: TransactionalJournal, consumer: Consumer
) -> None:
    consumer.left = [Failure(KafkaError._TRANSPORT), Failure(KafkaError._TIMED_OUT)]
    assert journal.inputs.read(0.0) == []


def test_new_partitions_are_an_error(
    journal: TransactionalJournal, consumer: Consumer
) -> None:
    journal.check_partitions()
    consumer.partitions = 3
    with pytest.raises(BrokerUnavailable, match="host has other partitions"):
        journal.check_partitions()


class FailingProducer:
    """A fake producer that cannot deliver one record."""

    def begin_transaction(self) -> None:
        pass

    def produce(self, topic: str, *, on_delivery: Any, **_more: object) -> None:
        if topic == "deadletter":
            on_delivery(KafkaError(KafkaError._MSG_TIMED_OUT), None)

    def commit_transaction(self, _seconds: float) -> None:
        raise KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT))

    def poll(self, _seconds: float) -> None:
        pass

    def __len__(self) -> int:
        return 0


def test_error_names_the_failing_topic(journal: TransactionalJournal) -> None:
    journal._producer = FailingProducer()  # type: ignore[assignment]  # all of it that is used
    records = [Record("audit", b"", b"x"), Record("deadletter", b"", b"x")]
    with pytest.raises(Fenced, match="failed: deadletter: "):
        journal.commit(records)
