"""Publish records to Kafka, and report the outcome of each.

The relay is a long-running service. It uses the idempotent producer with many records
in flight: librdkafka keeps the order and retries without a limit. A drain that runs for
one call keeps one request in flight instead. A new idempotent producer would wait 500
ms for its producer id (a timer in librdkafka's rdkafka_idempotence.c).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Protocol

from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    KafkaError,
    KafkaException,
    Message,
    Producer,
)

from fnm_bus.errors import (
    BrokerUnavailable,
    PublishError,
    RecordRefused,
    RecordTooLarge,
    TopicRefused,
)
from fnm_bus.kafka.client import ConnectionState, build_producer
from fnm_bus.kafka.client_errors import MISSING_TOPIC_CODES, access_error
from fnm_bus.kafka.names import WRITE
from fnm_bus.kafka.record import Record

DeliveryCallback = Callable[[PublishError | None], None]

SERVICE_PRODUCER: Final[Mapping[str, str]] = {
    "enable.idempotence": "true",
    "acks": "all",
    # No limit: after an expired record, a newer one of its target would be first.
    "message.timeout.ms": "0",
    # The relay itself limits the records and bytes in flight.
    "queue.buffering.max.messages": "200000",
    "queue.buffering.max.kbytes": "262144",
    # One request per record would cost CPU time. The drain flushes when it has no more
    # records, so a record rarely waits this long.
    "linger.ms": "5",
}
"""Settings of a long-running producer, under librdkafka's names."""

ONE_SHOT_PRODUCER: Final[Mapping[str, str]] = {
    "enable.idempotence": "false",
    "acks": "all",
    "max.in.flight.requests.per.connection": "1",
    "linger.ms": "0",
}
"""Settings of a producer for one call; one request in flight keeps the order."""

_TOO_LARGE_CODES: Final = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE}
)
_TOPIC_CODES: Final = MISSING_TOPIC_CODES | {
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.POLICY_VIOLATION,
}
_RECORD_CODES: Final = frozenset(
    {
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
    }
)


def classify_error(
    error: KafkaError, topic: str, settings: Mapping[str, str] = MappingProxyType({})
) -> PublishError:
    """Return our error for librdkafka's *error* about a record of *topic*.

    *settings* are the client's: an error about a missing right names their user.

    Any error that is not about the record or its topic becomes a BrokerUnavailable. The
    record is then published again, so a wrong guess loses no record.
    """
    missing_right = access_error(error, settings, topic=topic, operation=WRITE)
    if missing_right is not None and not error.fatal():
        return missing_right
    code, text = error.code(), f"{topic}: {error.str()} ({error.name()})"
    if code in _TOO_LARGE_CODES:
        return RecordTooLarge(text)
    if code in _RECORD_CODES:
        return RecordRefused(text)
    if code in _TOPIC_CODES and not error.fatal():
        return TopicRefused(text)
    return BrokerUnavailable(text)


class Publisher(Protocol):
    """Publishes records.

    Attributes:
        problem: the reason if no record is accepted until an operator acts, or "".
    """

    @property
    def problem(self) -> str:
        """See above; updated by `poll`."""

    def open(self) -> None:
        """Begin to connect without waiting; the first `publish` connects, too.

        Raises:
            ConfigError: the settings are refused.
        """

    def publish(self, record: Record, on_delivery: DeliveryCallback) -> None:
        """Accept *record*; `poll` calls *on_delivery* with None or the error."""

    def poll(self, timeout: float) -> None:
        """Wait up to *timeout* seconds for outcomes, and report them."""

    def flush(self, timeout: float) -> int:
        """Send all, wait up to *timeout* seconds; return the number still pending."""

    def close(self) -> None:
        """Close without waiting; pending outcomes are not reported."""


class KafkaPublisher:
    """Publishes by librdkafka.

    Args:
        settings: librdkafka's settings under their own names; they override *defaults*.
        defaults: SERVICE_PRODUCER or ONE_SHOT_PRODUCER.

    Attributes:
        connection: the state of the connections to the brokers.

    No connection is made before `open`, or the first `publish`.
    """

    def __init__(
        self, settings: Mapping[str, str], defaults: Mapping[str, str]
    ) -> None:
        self._settings = {**defaults, **settings}
        self._producer: Producer | None = None
        self.connection = ConnectionState(self._settings)

    @property
    def problem(self) -> str:
        """The reason if the brokers reject this client, or ""."""
        return self.connection.rejection

    def open(self) -> None:
        """Begin to connect without waiting.

        Raises:
            ConfigError: librdkafka refuses the settings.
        """
        if self._producer is None:
            self._open()

    def publish(
        self,
        record: Record,
        on_delivery: DeliveryCallback,
        on_broker_time: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        """Add *record* to the producer's queue.

        If the broker stamps the topic's records, *on_broker_time* gets the record's
        time in seconds since 1970.

        Raises:
            ConfigError: librdkafka refuses the settings.
            BrokerUnavailable: the queue is full.
            RecordTooLarge, RecordRefused, TopicRefused: refused by librdkafka itself.
        """
        producer = self._producer or self._open()
        topic = record.topic

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                self.connection.mark_connected()
                kind, stamp = message.timestamp()
                if kind == TIMESTAMP_LOG_APPEND_TIME:
                    on_broker_time(stamp / 1000)
                on_delivery(None)
            else:
                on_delivery(classify_error(error, topic, self._settings))

        try:
            producer.produce(
                topic,
                value=record.value,
                key=record.key,
                headers=list(record.headers),
                partition=record.partition,
                on_delivery=delivered,
            )
        except BufferError as exc:
            raise BrokerUnavailable(f"{topic}: librdkafka's queue is full") from exc
        except KafkaException as exc:
            raise classify_error(exc.args[0], topic, self._settings) from exc

    def poll(self, timeout: float) -> None:
        """Report outcomes; replace a producer after a fatal error."""
        if self._producer is None:
            return
        self._producer.poll(timeout)
        self._replace_after_fatal_error()

    def flush(self, timeout: float) -> int:
        """Send all, wait up to *timeout* seconds; return the number still pending."""
        if self._producer is None:
            return 0
        left = int(self._producer.flush(timeout))
        self._replace_after_fatal_error()
        return left

    def close(self) -> None:
        """Drop the queued records, report them as failed, and close."""
        if self._producer is not None:
            self._purge(self._producer)
            self._producer = None

    def _open(self) -> Producer:
        self._producer = build_producer(self._settings, self.connection)
        return self._producer

    def _replace_after_fatal_error(self) -> None:
        if self.connection.fatal is not None and self._producer is not None:
            # A fatal error ends an idempotent producer (librdkafka, INTRODUCTION.md,
            # "Fatal errors"). Purging reports every record that was still queued.
            self._purge(self._producer)
            self._producer = None
            self.connection.reset()

    @staticmethod
    def _purge(producer: Producer) -> None:
        producer.purge(in_queue=True, in_flight=True, blocking=True)
        producer.flush(1)
