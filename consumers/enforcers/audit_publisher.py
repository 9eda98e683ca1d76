"""Publish an enforcer's audit records, and measure the broker's time with them."""

import logging
from collections.abc import Mapping
from typing import Final
from uuid import uuid4

from consumers.mitigation import clock
from consumers.mitigation.clock import BrokerClock
from fnm_bus import __version__
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import FnmBusError
from fnm_bus.event import Audit
from fnm_bus.kafka.addressing import headers_for
from fnm_bus.kafka.publisher import SERVICE_PRODUCER, KafkaPublisher
from fnm_bus.kafka.record import Record
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_PRODUCER: Final = {
    **SERVICE_PRODUCER,
    # A record is useful for an hour; after that, the log has it.
    "message.timeout.ms": "3600000",
    "queue.buffering.max.messages": "20000",
}
_MAX_TEXT: Final = 1000
_LOG_LOSS_EVERY: Final = 60.0
_CLOSE_TIMEOUT: Final = 2.0
"""Seconds to wait at the end for records in flight."""


class AuditPublisher:
    """Publishes audit records without waiting for Kafka.

    Args:
        name: name of the enforcer.
        broker_clock: receives the time of each acknowledgement.

    Attributes:
        lost: number of records that were not published; the log has them.
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        topic: str,
        codec: Codec,
        name: str,
        broker_clock: BrokerClock,
    ) -> None:
        self._publisher = KafkaPublisher(settings, _PRODUCER)
        self._topic = topic
        self._codec = codec
        self._name = name
        self._broker_clock = broker_clock
        self._loss_logged_at: float | None = None
        self.lost = 0

    @property
    def problem(self) -> str:
        """The reason that the brokers reject this client, or ""."""
        return self._publisher.problem

    def open(self) -> None:
        """Start to connect.

        Raises:
            ConfigError: librdkafka refuses the settings.
        """
        self._publisher.open()

    def publish(
        self,
        result: str,
        text: str,
        *,
        code: str = "",
        key: str | None = None,
        dry_run: bool = False,
    ) -> None:
        """Log and publish an audit record.

        Args:
            result: in-force, withdrawn, failed, started or held.
            text: the event for people; truncated to 1,000 characters.
            code: the reason as a stable word, or empty.
            key: the mitigation, or None.
            dry_run: whether the system was left unchanged.
        """
        level = logging.WARNING if result == "failed" else logging.INFO
        log.log(
            level,
            "audit_record",
            action=result,
            enforcer=self._name,
            mitigation=key,
            text=text,
        )
        audit = Audit(
            at=self._broker_clock.datetime(),
            by=self._name,
            action=result,
            code=code,
            key=key,
            text=text[:_MAX_TEXT],
            dry_run=dry_run,
            producer_version=__version__,
        )
        sent_at = clock.now()
        try:
            record = Record(
                self._topic,
                (key or self._name).encode(errors="replace"),
                self._codec.encode(audit, self._topic),
                headers_for(audit, self._name, uuid4().hex, audit.at),
            )
            self._publisher.publish(
                record,
                self._take_outcome,
                lambda stamp: self._broker_clock.learn(sent_at, clock.now(), stamp),
            )
        except FnmBusError as exc:
            self._take_outcome(exc)
        self.poll()

    def poll(self) -> None:
        """Process the broker's acknowledgements."""
        self._publisher.poll(0)

    def flush(self, seconds: float) -> None:
        """Wait until everything is delivered, for up to *seconds*."""
        self._publisher.flush(seconds)

    def close(self) -> None:
        """Wait shortly for records in flight; count and log the rest as lost."""
        self._publisher.flush(_CLOSE_TIMEOUT)
        before = self.lost
        self._publisher.close()
        if self.lost > before:
            log.error("audit_records_unpublished", lost=self.lost - before)

    def _take_outcome(self, error: FnmBusError | None) -> None:
        if error is None:
            return
        self.lost += 1
        now = clock.now()
        logged_at = self._loss_logged_at
        if logged_at is None or now - logged_at >= _LOG_LOSS_EVERY:
            self._loss_logged_at = now
            log.error("audit_records_lost", lost=self.lost, error=error)
