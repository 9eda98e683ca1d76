from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError
from support.memory_publisher import MemoryPublisher

from fnm_bus.errors import (
    AccessDenied,
    BrokerUnavailable,
    ConfigError,
    PublishError,
    RecordRefused,
    RecordTooLarge,
    TopicRefused,
)
from fnm_bus.kafka.embedded_broker import EmbeddedBroker
from fnm_bus.kafka.publisher import (
    ONE_SHOT_PRODUCER,
    SERVICE_PRODUCER,
    KafkaPublisher,
    Publisher,
    classify_error,
)
from fnm_bus.kafka.record import Record

RECORD = Record("fnm.test", b"192.0.2.1", b"value", (("ce_id", b"1"),))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError.MSG_SIZE_TOO_LARGE, RecordTooLarge),
        (KafkaError.RECORD_LIST_TOO_LARGE, RecordTooLarge),
        (KafkaError.INVALID_RECORD, RecordRefused),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, AccessDenied),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, TopicRefused),
        (KafkaError._MSG_TIMED_OUT, BrokerUnavailable),
        (KafkaError._ALL_BROKERS_DOWN, BrokerUnavailable),
        (KafkaError.NOT_ENOUGH_REPLICAS, BrokerUnavailable),
        (KafkaError.UNKNOWN, BrokerUnavailable),
    ],
)
def test_librdkafkas_errors_keep_their_meaning(
    code: int, kind: type[PublishError]
) -> None:
    error = classify_error(KafkaError(code), "fnm.test")
    assert type(error) is kind
    assert "fnm.test" in str(error)


def test_only_permanent_errors_are_not_retryable() -> None:
    assert not RecordTooLarge.retryable
    assert not RecordRefused.retryable
    assert TopicRefused.retryable
    assert BrokerUnavailable.retryable


class PublisherContract:
    """Promises of every publisher."""

    def test_a_record_is_reported_once_it_is_taken(self, publisher: Publisher) -> None:
        reports: list[PublishError | None] = []
        publisher.publish(RECORD, reports.append)
        assert publisher.flush(10) == 0
        assert reports == [None]

    def test_reports_come_in_the_order_of_the_records(
        self, publisher: Publisher
    ) -> None:
        reported: list[int] = []
        for number in range(50):
            publisher.publish(
                RECORD, lambda _error, number=number: reported.append(number)
            )
        assert publisher.flush(10) == 0
        assert reported == list(range(50))

    def test_an_idle_publisher_ends_at_once(self, publisher: Publisher) -> None:
        publisher.poll(0)
        assert publisher.flush(0) == 0
        publisher.close()


class TestMemoryPublisher(PublisherContract):
    @pytest.fixture
    def publisher(self) -> Publisher:
        return MemoryPublisher()


@pytest.fixture(scope="module")
def bootstrap() -> Iterator[str]:
    with EmbeddedBroker() as broker:
        yield broker.bootstrap


class TestLastingPublisher(PublisherContract):
    @pytest.fixture
    def publisher(self, bootstrap: str) -> Iterator[Publisher]:
        publisher = KafkaPublisher({"bootstrap.servers": bootstrap}, SERVICE_PRODUCER)
        yield publisher
        publisher.close()


class TestBriefPublisher(PublisherContract):
    @pytest.fixture
    def publisher(self, bootstrap: str) -> Iterator[Publisher]:
        publisher = KafkaPublisher({"bootstrap.servers": bootstrap}, ONE_SHOT_PRODUCER)
        yield publisher
        publisher.close()


def test_queued_records_are_reported_as_failed_at_the_end() -> None:
    publisher = KafkaPublisher({"bootstrap.servers": "127.0.0.1:1"}, SERVICE_PRODUCER)
    reports: list[PublishError | None] = []
    publisher.publish(RECORD, reports.append)
    assert publisher.flush(0.1) == 1
    publisher.close()
    assert [type(report) for report in reports] == [BrokerUnavailable]


def test_a_record_over_the_clients_limit_is_too_large(bootstrap: str) -> None:
    publisher = KafkaPublisher(
        {"bootstrap.servers": bootstrap, "message.max.bytes": "2000"}, ONE_SHOT_PRODUCER
    )
    with pytest.raises(RecordTooLarge):
        publisher.publish(Record("fnm.test", None, bytes(3000)), [].append)
    publisher.close()


def test_an_unknown_setting_is_a_configuration_error() -> None:
    publisher = KafkaPublisher({"bootstrap.server": "127.0.0.1:1"}, ONE_SHOT_PRODUCER)
    with pytest.raises(ConfigError, match=r"bootstrap\.server"):
        publisher.publish(RECORD, [].append)


def test_the_operators_settings_win() -> None:
    publisher = KafkaPublisher({"acks": "nonsense"}, SERVICE_PRODUCER)
    with pytest.raises(ConfigError, match="acks"):
        publisher.publish(RECORD, [].append)
