"""The journal hides nothing: errors of reading, and partitions that came later."""

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
    """A message that is an error."""

    def __init__(self, code: int) -> None:
        self._code = code

    def error(self) -> KafkaError:
        return KafkaError(self._code)

    def topic(self) -> str:
        return "host"


class Consumer:
    """Stands in for librdkafka's."""

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
        known = SimpleNamespace(error=None, partitions=numbers)
        return SimpleNamespace(topics={topic: known})


@pytest.fixture
def consumer() -> Consumer:
    return Consumer()


@pytest.fixture
def journal(consumer: Consumer) -> TransactionalJournal:
    made = TransactionalJournal({}, "m", ("host",), BrokerClock())
    made._consumer = consumer  # type: ignore[assignment]  # all of it that is used
    return made


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_PARTITION,
    ],
)
def test_a_topic_that_must_not_be_read_any_more_is_an_error(
    journal: TransactionalJournal, consumer: Consumer, code: int
) -> None:
    consumer.left = [Failure(code)]
    with pytest.raises(TopicRefused, match="host"):
        journal.read(0.0)


def test_an_error_that_passes_is_none(
    journal: TransactionalJournal, consumer: Consumer
) -> None:
    consumer.left = [Failure(KafkaError._TRANSPORT), Failure(KafkaError._TIMED_OUT)]
    assert journal.read(0.0) == []


def test_partitions_that_came_later_are_noticed(
    journal: TransactionalJournal, consumer: Consumer
) -> None:
    journal.check_partitions()
    consumer.partitions = 3
    with pytest.raises(BrokerUnavailable, match="host has other partitions"):
        journal.check_partitions()


class Failing:
    """Stands in for librdkafka's producer: one record cannot be delivered."""

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


def test_the_topic_that_takes_no_record_is_named(journal: TransactionalJournal) -> None:
    journal._producer = Failing()  # type: ignore[assignment]  # all of it that is used
    records = [Record("audit", b"", b"x"), Record("deadletter", b"", b"x")]
    with pytest.raises(Fenced, match="failed: deadletter: "):
        journal.commit(records)
