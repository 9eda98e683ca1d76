"""Publish an enforcer's audit records, and measure the broker's time with them."""

import logging
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    KafkaError,
    KafkaException,
    Message,
    Producer,
)

from consumers.mitigation import clock
from consumers.mitigation.clock import BrokerClock
from fnm_bus import __version__
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import FnmBusError
from fnm_bus.event import Audit
from fnm_bus.kafka.addressing import headers_for
from fnm_bus.kafka.client import ConnectionState, build_producer
from fnm_bus.kafka.client_errors import access_error
from fnm_bus.kafka.names import WRITE
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_MAX_QUEUED: Final = "20000"
_MAX_TEXT: Final = 1000
_LOG_LOSS_EVERY: Final = 60.0
_CLOSE_TIMEOUT: Final = 2.0
"""Seconds to wait at the end for records in flight."""


class AuditPublisher:
    """Publishes audit records without waiting for Kafka.

    Args:
        settings: librdkafka's settings.
        topic: the audit topic.
        codec: encodes records.
        name: name of the enforcer.
        broker_clock: receives the time of each acknowledgement.

    Attributes:
        connection: the state of the connection to the brokers.
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
        self._settings: dict[str, Any] = {
            "acks": "all",
            "enable.idempotence": "true",
            "linger.ms": "5",
            # A record is useful for an hour; after that, the log has it.
            "message.timeout.ms": "3600000",
            "queue.buffering.max.messages": _MAX_QUEUED,
            **settings,
        }
        self.connection = ConnectionState(self._settings)
        self._topic = topic
        self._codec = codec
        self._name = name
        self._broker_clock = broker_clock
        self._producer: Producer | None = None
        self._loss_logged_at: float | None = None
        self.lost = 0

    @property
    def problem(self) -> str:
        """The reason that the brokers reject this client, or ""."""
        return self.connection.rejection

    def open(self) -> None:
        """Start to connect.

        Raises:
            ConfigError: librdkafka refuses the settings.
        """
        self._producer = build_producer(self._settings, self.connection)

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
        if self.connection.fatal is not None:
            self._replace_producer()
        if self._producer is None:
            return
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

        def on_delivery(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._count_loss(error)
            else:
                self.connection.mark_connected()
                self._learn_time(sent_at, message)

        try:
            self._producer.produce(
                self._topic,
                value=self._codec.encode(audit, self._topic),
                key=(key or self._name).encode(errors="replace"),
                headers=list(headers_for(audit, self._name, uuid4().hex, audit.at)),
                on_delivery=on_delivery,
            )
        except BufferError:
            self._count_loss("the queue for Kafka is full")
        except KafkaException as exc:
            self.connection.take_error(exc.args[0])
            self._count_loss(exc.args[0])
        except FnmBusError as exc:
            self._count_loss(str(exc))
        self._producer.poll(0)

    def poll(self) -> None:
        """Process the broker's acknowledgements."""
        if self._producer is not None:
            self._producer.poll(0)

    def flush(self, seconds: float) -> None:
        """Wait until everything is delivered, for up to *seconds*."""
        if self._producer is not None:
            self._producer.flush(seconds)

    def close(self) -> None:
        """Wait shortly for records in flight; count and log the rest as lost."""
        if self._producer is None:
            return
        unpublished = self._producer.flush(_CLOSE_TIMEOUT)
        self._producer = None
        if unpublished:
            self.lost += unpublished
            log.error(
                "audit_records_lost", lost=self.lost, error="Kafka did not answer"
            )

    def _replace_producer(self) -> None:
        """Replace the idempotent producer, which is unusable after a fatal error."""
        if self._producer is not None:
            self._producer.purge()  # its queued records are counted as lost
            self._producer.poll(0)
        self.connection.reset()
        self.open()

    def _count_loss(self, cause: KafkaError | str) -> None:
        self.lost += 1
        reason = cause if isinstance(cause, str) else self._reason(cause)
        now = clock.now()
        logged_at = self._loss_logged_at
        if logged_at is None or now - logged_at >= _LOG_LOSS_EVERY:
            self._loss_logged_at = now
            log.error("audit_records_lost", lost=self.lost, error=reason)

    def _reason(self, error: KafkaError) -> str:
        denied = access_error(error, self._settings, topic=self._topic, operation=WRITE)
        return error.str() if denied is None else str(denied)

    def _learn_time(self, sent_at: float, message: Message) -> None:
        kind, stamp = message.timestamp()
        if kind == TIMESTAMP_LOG_APPEND_TIME:  # otherwise it is this machine's time
            self._broker_clock.learn(sent_at, clock.now(), stamp / 1000)
