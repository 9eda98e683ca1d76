"""Hand records to Kafka and say of each what became of it.

The relay lives long and uses the idempotent producer with many records in flight:
librdkafka keeps the order and retries for ever. A drain that lives for one call
keeps one request in flight instead, because a cold idempotent producer waits 500 ms
for its producer id (a timer in librdkafka's rdkafka_idempotence.c).
"""

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from fnm_bus.errors import (
    BrokerUnavailable,
    PublishError,
    RecordRefused,
    RecordTooLarge,
    TopicRefused,
)
from fnm_bus.kafka.client import ConnectionState, build_producer
from fnm_bus.kafka.client_errors import access_error
from fnm_bus.kafka.names import WRITE
from fnm_bus.kafka.record import Record

log = logging.getLogger(__name__)

DeliveryCallback = Callable[[PublishError | None], None]

SERVICE_PRODUCER: Final[Mapping[str, str]] = {
    "enable.idempotence": "true",
    "acks": "all",
    # For ever: an expired record would let a younger one of its target overtake it.
    "message.timeout.ms": "0",
    # The relay itself bounds what is in flight, in records and bytes.
    "queue.buffering.max.messages": "200000",
    "queue.buffering.max.kbytes": "262144",
    # A request for each record costs the relay's own time. Nobody waits for company
    # longer than there is more to hand over: then the drain flushes.
    "linger.ms": "5",
}
"""What a producer that lives long is given, under librdkafka's names."""

ONE_SHOT_PRODUCER: Final[Mapping[str, str]] = {
    "enable.idempotence": "false",
    "acks": "all",
    "max.in.flight.requests.per.connection": "1",
    "linger.ms": "0",
}
"""What a producer that lives for one call is given: order by one in flight."""

_TOO_LARGE: Final = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE}
)
_TOPIC: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 - librdkafka's own name for it
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001 - as above
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.POLICY_VIOLATION,
    }
)
_RECORD: Final = frozenset(
    {
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
    }
)


def classify_error(
    error: KafkaError, topic: str, settings: Mapping[str, str] = MappingProxyType({})
) -> PublishError:
    """Return what librdkafka's *error* for a record of *topic* means to us.

    *settings* are the client's: an error about a missing right names their user.

    What is not known to be about the record or its topic counts as trouble of the
    broker or of the way to it: it is tried again, so nothing is lost by a wrong guess.
    """
    denied = access_error(error, settings, topic=topic, operation=WRITE)
    if denied is not None and not error.fatal():
        return denied
    code, text = error.code(), f"{topic}: {error.str()} ({error.name()})"
    if code in _TOO_LARGE:
        return RecordTooLarge(text)
    if code in _RECORD:
        return RecordRefused(text)
    if code in _TOPIC and not error.fatal():
        return TopicRefused(text)
    return BrokerUnavailable(text)


class Publisher(Protocol):
    """Where records go.

    Attributes:
        problem: why nothing will be taken until a person acts, or "".
    """

    @property
    def problem(self) -> str:
        """See above; known by what `poll` has learned."""

    def open(self) -> None:
        """Begin to connect, and do not wait for it; the first `publish` does it, too.

        Raises:
            ConfigError: the settings are refused.
        """

    def publish(self, record: Record, report: DeliveryCallback) -> None:
        """Take *record*; *report* is called from `poll` with None or the error."""

    def poll(self, timeout: float) -> None:
        """Wait up to *timeout* seconds for reports and deliver them."""

    def flush(self, timeout: float) -> int:
        """Send all, wait up to *timeout* seconds; return how many lack a report."""

    def close(self) -> None:
        """End at once; records without a report get none."""


class KafkaPublisher:
    """Publishes by librdkafka.

    Args:
        settings: librdkafka's settings under their own names; they win over *manner*.
        manner: LASTING or BRIEF.

    Attributes:
        connection: what is known of the way to the brokers.

    Nothing is opened before `open`, or the first `publish`.
    """

    def __init__(self, settings: Mapping[str, str], manner: Mapping[str, str]) -> None:
        self._settings = {**manner, **settings}
        self._producer: Producer | None = None
        self.connection = ConnectionState(self._settings)

    @property
    def problem(self) -> str:
        """Why the brokers reject this client, or ""."""
        return self.connection.rejection

    def open(self) -> None:
        """Begin to connect, and do not wait for it.

        Raises:
            ConfigError: librdkafka refuses the settings.
        """
        if self._producer is None:
            self._open()

    def publish(self, record: Record, report: DeliveryCallback) -> None:
        """Take *record* into the producer's queue.

        Raises:
            ConfigError: librdkafka refuses the settings.
            BrokerUnavailable: the queue is full.
            RecordTooLarge, RecordRefused, TopicRefused: refused without asking.
        """
        producer = self._producer or self._open()
        topic = record.topic

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is None:
                self.connection.mark_connected()
                report(None)
            else:
                report(classify_error(error, topic, self._settings))

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
        """Deliver the reports that are there; replace a producer that broke."""
        if self._producer is None:
            return
        self._producer.poll(timeout)
        self._replace_broken()

    def flush(self, timeout: float) -> int:
        """Send all, wait up to *timeout* seconds; return how many lack a report."""
        if self._producer is None:
            return 0
        left = int(self._producer.flush(timeout))
        self._replace_broken()
        return left

    def close(self) -> None:
        """Drop what is queued and end; the dropped records are reported as failed."""
        if self._producer is not None:
            self._purge(self._producer)
            self._producer = None

    def _open(self) -> Producer:
        self._producer = build_producer(self._settings, self.connection, log)
        return self._producer

    def _replace_broken(self) -> None:
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


class MemoryPublisher:
    """Keeps records in a list: for tests and for looking without a broker.

    Attributes:
        problem: always "".
        records: what was taken and not refused, in order.
        refuse: returns the error with which a record is refused, or None.
    """

    problem = ""

    def __init__(
        self, refuse: Callable[[Record], PublishError | None] = lambda _: None
    ) -> None:
        self.records: list[Record] = []
        self.refuse = refuse
        self._reports: list[tuple[DeliveryCallback, PublishError | None]] = []

    def open(self) -> None:
        """Do nothing: memory is always there."""

    def publish(self, record: Record, report: DeliveryCallback) -> None:
        """Take *record*; it is reported at the next `poll`."""
        error = self.refuse(record)
        if error is None:
            self.records.append(record)
        self._reports.append((report, error))

    def poll(self, timeout: float) -> None:
        """Deliver all reports; *timeout* has no meaning here."""
        del timeout
        reports, self._reports = self._reports, []
        for report, error in reports:
            report(error)

    def flush(self, timeout: float) -> int:
        """Deliver all reports and return 0."""
        self.poll(timeout)
        return 0

    def close(self) -> None:
        """Forget reports that nobody polled for."""
        self._reports.clear()
