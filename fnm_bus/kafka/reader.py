"""Read records back from Kafka, decoded; for looking, without a consumer group."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import methodcaller
from time import monotonic
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    Message,
    TopicPartition,
)

from fnm_bus.avro.codec import Codec
from fnm_bus.errors import BrokerUnavailable, InvalidRecord, RegistryError
from fnm_bus.event import AnyRecord
from fnm_bus.kafka.client import ConnectionState, build_reader, partitions_of
from fnm_bus.kafka.client_errors import topic_error
from fnm_bus.kafka.names import READ

log = logging.getLogger(__name__)

_read_headers: Final = methodcaller("headers")

_STALLED: Final = 30.0
"""Seconds of waiting without any answer about a partition that was not read to its
end."""


class ConsumedRecord(NamedTuple):
    """One record, as it was found.

    Attributes:
        topic: where it stands.
        partition: likewise.
        offset: likewise.
        at: the record's time (UTC).
        key: its key, or None.
        headers: its headers, where the reader was asked for them.
        value: its bytes; None or empty is a tombstone of a compacted topic.
        event: what it holds, or None when that cannot be decoded.
        error: why it cannot be decoded, or "".
    """

    topic: str
    partition: int
    offset: int
    at: datetime
    key: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    value: bytes | None
    event: AnyRecord | None
    error: str


class TopicReader:
    """Reads whole topics, all partitions; creates and commits nothing.

    Args:
        settings: librdkafka's settings; what would change something is not obeyed.
        topics: names of the topics.
        codec: decodes the values.
        from_beginning: whether to read what is there already.
        headers: whether to read the records' headers: for looking only, see
            `headers_of`.

    Attributes:
        connection: what is known of the way to the brokers.
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        topics: Sequence[str],
        codec: Codec,
        *,
        from_beginning: bool = False,
        headers: bool = False,
    ) -> None:
        self._settings = settings
        self._with_headers = headers
        self.connection = ConnectionState(settings)
        self._topics = topics
        self._codec = codec
        self._start = OFFSET_BEGINNING if from_beginning else OFFSET_END
        self._consumer: Consumer | None = None
        self._open_ends: dict[tuple[str, int], float] = {}
        self._waited = 0.0

    def __enter__(self) -> Self:
        """Connect and find the partitions.

        Raises:
            ConfigError: librdkafka refuses the settings.
            BrokerUnavailable: no broker reachable.
            TopicRefused: a topic does not exist, or must not be read.
        """
        consumer = self._open()
        try:
            assigned = [
                it for topic in self._topics for it in self._of(consumer, topic)
            ]
        except Exception:
            consumer.close()
            raise
        consumer.assign(assigned)
        # Counted while waiting only: a caller may take its time with each record.
        self._waited = 0.0
        self._open_ends = {(it.topic, it.partition): 0.0 for it in assigned}
        self._consumer = consumer
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    @property
    def at_end(self) -> bool:
        """Whether the end of every partition was seen."""
        return not self._open_ends

    def read(self, seconds: float) -> Iterator[ConsumedRecord]:
        """Yield what comes within *seconds*.

        A record whose schema the registry does not return now has that as its error:
        it keeps nobody from the records behind it.

        Raises:
            BrokerUnavailable, TopicRefused: reading cannot go on.
        """
        consumer = self._consumer
        end = monotonic() + seconds
        while consumer is not None:
            began = monotonic()
            message = consumer.poll(max(0.0, end - began))
            now = monotonic()
            self._waited += now - began
            if message is None:
                return
            error, place = message.error(), (message.topic() or "", _number(message))
            if error is None:
                self.connection.mark_connected()
                if place in self._open_ends:
                    self._open_ends[place] = self._waited
                raw = raw_record(message)
                if self._with_headers:
                    raw = raw._replace(headers=record_headers(message))
                yield _decoded_now(raw, self._codec)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its name
                self._open_ends.pop(place, None)
                if self.at_end:
                    return
            elif not error.retriable() and error.code() in UNREADABLE_CODES:
                raise topic_error(error, place[0], READ, self._settings)
            if now >= end:  # however much there is
                return

    def check(self) -> None:
        """Make sure that the ends of all partitions come, if they seem not to.

        Raises:
            BrokerUnavailable: no broker reachable, or a partition has no leader.
        """
        if self.connection.is_down and self._consumer is not None:
            partitions_of(self._consumer, self._topics[0], self.connection)
        since = self._waited - _STALLED
        silent = sorted(place for place, at in self._open_ends.items() if at <= since)
        if silent:
            names = ", ".join(f"{topic}[{number}]" for topic, number in silent[:5])
            raise BrokerUnavailable(f"nothing came for {_STALLED:.0f} s of {names}")

    def _open(self) -> Consumer:
        self.connection.reset()
        return build_reader(self._settings, self.connection)

    def _of(self, consumer: Consumer, topic: str) -> list[TopicPartition]:
        is_new = self._consumer is None
        numbers = partitions_of(consumer, topic, self.connection, is_new=is_new)
        return [TopicPartition(topic, number, self._start) for number in numbers]


def raw_record(message: Message) -> ConsumedRecord:
    """Return a record as it was found, not decoded."""
    return ConsumedRecord(
        message.topic() or "",
        _number(message),
        message.offset() or 0,
        record_time(message.timestamp()[1]),
        message.key(),
        (),
        message.value(),
        None,
        "",
    )


def record_headers(message: Message) -> tuple[tuple[str, bytes], ...]:
    """Return a record's headers; none when one has a name that is not UTF-8.

    Only for looking at records that a person chose. For such a name confluent-kafka
    returns a list of NULLs with an exception set. `methodcaller` reports it at once;
    Python 3.11's specialized method calls do not check, and the exception would appear
    anywhere later. The list stays in the message: never read its headers again.
    """
    try:
        headers: Any = _read_headers(message) or ()
    except Exception as exc:  # noqa: BLE001 - a record must not stop its reader
        log.warning(
            "%s@%s: headers left out: %s", message.topic(), message.offset(), exc
        )
        return ()
    return tuple(headers)


def record_time(milliseconds: int) -> datetime:
    """Return a record's time; its writer may have set any, so it is bounded."""
    return _EPOCH + timedelta(milliseconds=min(max(milliseconds, 0), _LAST))


def decode_record(it: ConsumedRecord, codec: Codec) -> ConsumedRecord:
    """Return a record with what it holds, or why that cannot be decoded.

    Raises:
        RegistryError: its schema id is not pinned and the registry does not answer.
    """
    try:
        return it._replace(event=codec.decode(it.value))
    except InvalidRecord as exc:
        return it._replace(error=str(exc))


def _decoded_now(it: ConsumedRecord, codec: Codec) -> ConsumedRecord:
    try:
        return decode_record(it, codec)
    except RegistryError as exc:
        return it._replace(error=str(exc))


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = 221_845_392_000_000
"""The year 9000: Python has no date after 9999, and readers calculate with this one."""

UNREADABLE_CODES: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 - librdkafka's own name for it
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001 - as above
    }
)
"""Codes of errors that say that a topic cannot be read."""


def _number(message: Message) -> int:
    return message.partition() or 0
