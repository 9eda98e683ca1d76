"""Publish to the audit topic what an enforcer did, and learn the broker's time."""

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
from fnm_bus.kafka.client import ConnectionState, build_producer
from fnm_bus.kafka.client_errors import access_error
from fnm_bus.kafka.names import WRITE
from fnm_bus.kafka.route import headers_for
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_MAX_QUEUED: Final = "20000"
_MAX_TEXT: Final = 1000
_LOG_LOSS_EVERY: Final = 60.0
_CLOSING: Final = 2.0
"""Seconds that records in flight get at the end."""


class AuditPublisher:
    """Publishes audit records; nothing waits for them.

    Args:
        settings: librdkafka's settings.
        topic: the audit topic.
        codec: encodes records.
        name: of the enforcer.
        broker_clock: learns from the broker's answers.

    Attributes:
        connection: what is known of the way to the brokers.
        lost: how many records Kafka did not take; they are in the log only.
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
            # A record that is an hour late is still useful; later, the log has it.
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
        """Why the brokers reject this client, or ""."""
        return self.connection.rejection

    def open(self) -> None:
        """Begin to connect.

        Raises:
            ConfigError: librdkafka refuses the settings.
        """
        self._producer = build_producer(
            self._settings, self.connection, logging.getLogger(__name__)
        )

    def publish(
        self,
        what: str,
        text: str,
        *,
        code: str = "",
        key: str | None = None,
        dry_run: bool = False,
    ) -> None:
        """Log and publish an audit record.

        Args:
            what: in-force, withdrawn, failed, started or held.
            text: what happened, for people; cut to 1,000 characters.
            code: why, as a stable word, or empty.
            key: the mitigation, or None.
            dry_run: whether the system was left alone.
        """
        level = logging.WARNING if what == "failed" else logging.INFO
        log.log(level, what, enforcer=self._name, mitigation=key, text=text)
        if self.connection.fatal is not None:
            self._replace()
        if self._producer is None:
            return
        audit = Audit(
            at=self._broker_clock.datetime(),
            by=self._name,
            action=what,
            code=code,
            key=key,
            text=text[:_MAX_TEXT],
            dry_run=dry_run,
            producer_version=__version__,
        )
        asked = clock.now()

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._lose(error)
            else:
                self.connection.mark_connected()
                self._learn(asked, message)

        try:
            self._producer.produce(
                self._topic,
                value=self._codec.encode(audit, self._topic),
                key=(key or self._name).encode(errors="replace"),
                headers=list(headers_for(audit, self._name, uuid4().hex, audit.at)),
                on_delivery=delivered,
            )
        except BufferError:
            self._lose("more records wait for Kafka than fit in memory")
        except KafkaException as exc:
            self.connection.take_error(exc.args[0])
            self._lose(exc.args[0])
        except FnmBusError as exc:
            self._lose(str(exc))
        self._producer.poll(0)

    def poll(self) -> None:
        """Take the broker's answers."""
        if self._producer is not None:
            self._producer.poll(0)

    def flush(self, seconds: float) -> None:
        """Wait until everything is delivered, for up to *seconds*."""
        if self._producer is not None:
            self._producer.flush(seconds)

    def close(self) -> None:
        """Wait shortly for what is in flight; log what Kafka has not taken by then."""
        if self._producer is None:
            return
        left = self._producer.flush(_CLOSING)
        self._producer = None
        if left:
            self.lost += left
            log.error("%d audit records lost at the end: Kafka did not answer", left)

    def _replace(self) -> None:
        """Begin anew: a fatal error ends an idempotent producer, whatever comes."""
        if self._producer is not None:
            self._producer.purge()  # what it had queued is reported as lost
            self._producer.poll(0)
        self.connection.reset()
        self.open()

    def _lose(self, cause: KafkaError | str) -> None:
        self.lost += 1
        reason = cause if isinstance(cause, str) else self._reason(cause)
        moment = clock.now()
        before = self._loss_logged_at
        if before is None or moment - before >= _LOG_LOSS_EVERY:
            self._loss_logged_at = moment
            log.error(
                "%d audit records lost since the start, the last: %s",
                self.lost,
                reason,
            )

    def _reason(self, error: KafkaError) -> str:
        denied = access_error(error, self._settings, topic=self._topic, operation=WRITE)
        return error.str() if denied is None else str(denied)

    def _learn(self, asked: float, message: Message) -> None:
        kind, stamp = message.timestamp()
        if kind == TIMESTAMP_LOG_APPEND_TIME:  # else it is this machine's own time
            self._broker_clock.learn(asked, clock.now(), stamp / 1000)
