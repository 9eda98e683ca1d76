"""Audit records: no failure to publish stops the enforcer."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from consumers.enforcers import audit_publisher
from consumers.enforcers.audit_publisher import AuditPublisher
from consumers.mitigation.clock import BrokerClock
from fnm_bus.avro.codec import Codec


class Producer:
    """A fake of librdkafka's producer whose first instance refuses everything.

    Attributes:
        created: number of instances.
        error: error code of the first instance.
    """

    created = 0
    error = KafkaError._FATAL

    def __init__(self, *_arguments: object) -> None:
        type(self).created += 1
        self.refuses = self.created == 1
        self.values: list[bytes] = []

    def produce(self, _topic: str, *, value: bytes, **_more: object) -> None:
        if self.refuses:
            raise KafkaException(KafkaError(self.error))
        self.values.append(value)

    def poll(self, _seconds: float) -> int:
        return 0

    def flush(self, _seconds: float) -> int:
        return 0

    def purge(self) -> None:
        pass


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> AuditPublisher:
    monkeypatch.setattr(Producer, "created", 0)
    monkeypatch.setattr(audit_publisher, "build_producer", Producer)
    publisher = AuditPublisher({}, "audit", Codec(), "memory", BrokerClock())
    publisher.open()
    return publisher


def producer_of(audit: AuditPublisher) -> Any:
    return audit._producer


def test_producer_with_fatal_error_is_replaced(audit: AuditPublisher) -> None:
    audit.publish("in-force", "first")
    assert audit.lost == 1
    audit.publish("in-force", "second")
    assert audit.lost == 1
    assert len(producer_of(audit).values) == 1


def test_temporary_error_loses_one_record(
    audit: AuditPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Producer, "error", KafkaError.MSG_SIZE_TOO_LARGE)
    audit.publish("in-force", "first")
    audit.publish("in-force", "second")
    assert audit.lost == 2
    assert Producer.created == 1


def test_unpublished_records_at_close_are_counted_and_logged(
    audit: AuditPublisher,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Producer, "flush", lambda *_: 3)
    audit.close()
    assert audit.lost == 3
    assert "'lost': 3" in caplog.text


@pytest.mark.parametrize("stamp", [253_402_300_799.9, -1e12, 1e18])
def test_invalid_broker_time_prevents_no_record(
    monkeypatch: pytest.MonkeyPatch, stamp: float
) -> None:
    monkeypatch.setattr(audit_publisher, "build_producer", Producer)
    broker_clock = BrokerClock()
    broker_clock.witness(stamp)
    audit = AuditPublisher({}, "audit", Codec(), "memory", broker_clock)
    audit.open()
    audit.publish("failed", "of a year after 9999")
    assert broker_clock.datetime().year in {1970, 9000}
