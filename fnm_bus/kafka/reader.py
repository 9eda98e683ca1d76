"""Read and decode records without a consumer group."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import methodcaller
from time import monotonic
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
from fnm_bus.kafka.client_errors import MISSING_TOPIC_CODES, topic_error
from fnm_bus.kafka.names import READ
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_read_headers: Final = methodcaller("headers")

_STALLED: Final = 30.0
"""Seconds of waiting without an answer about a partition before its end."""


class ConsumedRecord(NamedTuple):
    """One record as stored on Kafka.

    Attributes:
        topic: name of the topic.
        partition: number of the partition.
        offset: in the partition.
        at: the record's time (UTC).
        key: the key, or None.
        headers: the headers, if the reader was created with `headers=True`.
        value: the bytes; None or empty is a tombstone of a compacted topic.
        event: the decoded value, or None if it is undecodable.
        error: the reason if it is undecodable, or "".
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
        settings: librdkafka's settings; those that would write are ignored.
        topics: names of the topics.
        codec: decodes the values.
        from_beginning: whether to begin with the oldest records.
        headers: whether to read the records' headers; see `record_headers`.

    Attributes:
        connection: the state of the connections to the brokers.
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
        """Connect and request the partitions.

        Raises:
            ConfigError: librdkafka refuses the settings.
            BrokerUnavailable: no broker reachable.
            TopicRefused: a topic does not exist, or the Read right is missing.
        """
        consumer = self._open()
        try:
            assigned = [
                partition
                for topic in self._topics
                for partition in self._partitions(consumer, topic)
            ]
        except Exception:
            consumer.close()
            raise
        consumer.assign(assigned)
        # Only waiting counts: a caller may need any time for each record.
        self._waited = 0.0
        self._open_ends = {(entry.topic, entry.partition): 0.0 for entry in assigned}
        self._consumer = consumer
        return self

    def __exit__(self, *_error: object) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    @property
    def at_end(self) -> bool:
        """Whether the reader has reached the end of every partition."""
        return not self._open_ends

    def read(self, seconds: float) -> Iterator[ConsumedRecord]:
        """Yield the records that arrive within *seconds*.

        If the registry does not return a record's schema, the record is yielded with
        that error, so it does not block the records after it.

        Raises:
            BrokerUnavailable, TopicRefused: reading cannot continue.
        """
        consumer = self._consumer
        end = monotonic() + seconds
        while consumer is not None:
            started = monotonic()
            message = consumer.poll(max(0.0, end - started))
            now = monotonic()
            self._waited += now - started
            if message is None:
                return
            error = message.error()
            partition = (message.topic() or "", _partition_number(message))
            if error is None:
                self.connection.mark_connected()
                if partition in self._open_ends:
                    self._open_ends[partition] = self._waited
                raw = raw_record(message)
                if self._with_headers:
                    raw = raw._replace(headers=record_headers(message))
                yield _decode_or_error(raw, self._codec)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its name
                self._open_ends.pop(partition, None)
                if self.at_end:
                    return
            elif not error.retriable() and error.code() in UNREADABLE_CODES:
                raise topic_error(error, partition[0], READ, self._settings)
            if now >= end:  # even if more records are available
                return

    def check(self) -> None:
        """Raise an error if a partition's end does not arrive.

        Raises:
            BrokerUnavailable: no broker reachable, or a partition has no leader.
        """
        if self.connection.is_down and self._consumer is not None:
            partitions_of(self._consumer, self._topics[0], self.connection)
        since = self._waited - _STALLED
        silent = sorted(key for key, at in self._open_ends.items() if at <= since)
        if silent:
            names = ", ".join(f"{topic}[{number}]" for topic, number in silent[:5])
            raise BrokerUnavailable(f"no record for {_STALLED:.0f} s from {names}")

    def _open(self) -> Consumer:
        self.connection.reset()
        return build_reader(self._settings, self.connection)

    def _partitions(self, consumer: Consumer, topic: str) -> list[TopicPartition]:
        is_new = self._consumer is None
        numbers = partitions_of(consumer, topic, self.connection, is_new=is_new)
        return [TopicPartition(topic, number, self._start) for number in numbers]


def raw_record(message: Message) -> ConsumedRecord:
    """Return a message as a record, not decoded."""
    return ConsumedRecord(
        message.topic() or "",
        _partition_number(message),
        message.offset() or 0,
        record_time(message.timestamp()[1]),
        message.key(),
        (),
        message.value(),
        None,
        "",
    )


def record_headers(message: Message) -> tuple[tuple[str, bytes], ...]:
    """Return a record's headers, or () if a header's name is not UTF-8.

    Only for commands that print records. For such a name confluent-kafka returns a list
    of NULLs with an exception set. `methodcaller` raises that exception. Python 3.11's
    specialized method calls do not check it, so it would appear in unrelated code. The
    message keeps the list: never read its headers again.
    """
    try:
        headers: Any = _read_headers(message) or ()
    except Exception as exc:  # noqa: BLE001 - one record must not stop the reader
        log.warning(
            "headers_left_out",
            topic=message.topic(),
            offset=message.offset(),
            error=exc,
        )
        return ()
    return tuple(headers)


def record_time(milliseconds: int) -> datetime:
    """Return a record's time, bounded, since a producer can set any."""
    return _EPOCH + timedelta(milliseconds=min(max(milliseconds, 0), _LAST))


def decode_record(record: ConsumedRecord, codec: Codec) -> ConsumedRecord:
    """Return a record with its decoded event, or with the error.

    Raises:
        RegistryError: the schema id is not pinned, and the registry is unreachable.
    """
    try:
        return record._replace(event=codec.decode(record.value))
    except InvalidRecord as exc:
        return record._replace(error=str(exc))


def _decode_or_error(record: ConsumedRecord, codec: Codec) -> ConsumedRecord:
    try:
        return decode_record(record, codec)
    except RegistryError as exc:
        return record._replace(error=str(exc))


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = 221_845_392_000_000
"""The year 9000: Python has no date after 9999, and readers calculate with this one."""

UNREADABLE_CODES: Final = MISSING_TOPIC_CODES | {KafkaError.TOPIC_AUTHORIZATION_FAILED}
"""Codes of errors about a topic that cannot be read."""


def _partition_number(message: Message) -> int:
    return message.partition() or 0
