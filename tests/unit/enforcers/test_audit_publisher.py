"""Audit records: no failure to publish stops the enforcer."""

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException

from consumers.enforcers.audit_publisher import AuditPublisher
from consumers.mitigation import clock
from consumers.mitigation.clock import BrokerClock
from fnm_bus.avro.codec import Codec


class Message:
    """An acknowledged record."""

    def timestamp(self) -> tuple[int, int]:
        return TIMESTAMP_LOG_APPEND_TIME, round(clock.now() * 1000) + 1_700_000_000_000


class Producer:
    """A fake of librdkafka's producer.

    Attributes:
        refuses: whether it refuses each record.
        answers: whether it acknowledges records; otherwise the end purges them.
    """

    refuses = answers = False

    def __init__(self, *_arguments: object, **_more: object) -> None:
        self._pending: list[Callable[[Any, Any], None]] = []

    def produce(
        self, _topic: str, *, on_delivery: Callable[[Any, Any], None], **_more: object
    ) -> None:
        if self.refuses:
            raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
        self._pending.append(on_delivery)

    def poll(self, _seconds: float) -> int:
        for on_delivery in self._pending if self.answers else ():
            on_delivery(None, Message())
        return 0

    def flush(self, _seconds: float) -> int:
        return len(self._pending)

    def purge(self, **_arguments: bool) -> None:
        for on_delivery in self._pending:
            on_delivery(KafkaError(KafkaError._PURGE_QUEUE), Message())


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> AuditPublisher:
    monkeypatch.setattr("fnm_bus.kafka.publisher.build_producer", Producer)
    return AuditPublisher({}, "audit", Codec(), "memory", BrokerClock())


def test_each_refused_record_is_lost(
    audit: AuditPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Producer, "refuses", True)
    audit.publish("in-force", "first")
    audit.publish("in-force", "second")
    assert audit.lost == 2


def test_unpublished_records_at_close_are_counted_and_logged(
    audit: AuditPublisher, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        audit.publish("in-force", f"record {number}")
    audit.close()
    assert audit.lost == 3
    assert "'lost': 3" in caplog.text


def test_acknowledgement_has_the_broker_time(
    audit: AuditPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Producer, "answers", True)
    audit.publish("started", "the first record")
    time = audit._broker_clock.time()
    assert time == pytest.approx(clock.now() + 1_700_000_000, abs=1)


@pytest.mark.parametrize("stamp", [253_402_300_799.9, -1e12, 1e18])
def test_invalid_broker_time_prevents_no_record(
    audit: AuditPublisher, stamp: float
) -> None:
    audit._broker_clock.witness(stamp)
    audit.publish("failed", "of a year after 9999")
    assert audit.lost == 0
    assert audit._broker_clock.datetime().year in {1970, 9000}
