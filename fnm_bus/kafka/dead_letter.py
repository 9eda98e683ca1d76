"""Dead letters: records about records that a consumer cannot process."""

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic
from typing import Final, NamedTuple

from confluent_kafka import Message

from fnm_bus import __version__
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import PublishError
from fnm_bus.event import DeadLetter
from fnm_bus.kafka.addressing import derived_id, headers_for
from fnm_bus.kafka.publisher import Publisher
from fnm_bus.kafka.reader import ConsumedRecord, raw_record
from fnm_bus.kafka.record import DEAD_LETTER_HEAD, Record, digest
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_MAX_REASON: Final = 1000
"""Characters of the reason; a handler's error may have any length."""
_PAUSE: Final = 1.0
"""Seconds until a refused dead letter is published again."""


def build_dead_letter(
    source: ConsumedRecord | Message, reason: str, attempts: int, program: str
) -> DeadLetter:
    """Return the dead letter of a record, with the record's offset and the reason.

    Args:
        source: the record.
        reason: the error, for the operator.
        attempts: number of attempts to process the record.
        program: name of the program that failed.
    """
    record = source if isinstance(source, ConsumedRecord) else raw_record(source)
    value = record.value or b""
    return DeadLetter(
        reason=reason[:_MAX_REASON].encode(errors="replace").decode(),
        head=value[:DEAD_LETTER_HEAD],
        size=len(value),
        digest=digest(value),
        failed_at=datetime.now(UTC),
        attempts=attempts,
        origin_topic=record.topic,
        origin_partition=record.partition,
        origin_offset=record.offset,
        producer_name=program,
        producer_version=__version__,
    )


class _Retry(NamedTuple):
    due: float
    record: Record
    on_published: Callable[[], None]


class DeadLetterPublisher:
    """Publishes dead letters, and retries each until Kafka has it.

    Args:
        publisher: publishes the records.
        topic: the dead-letter topic.
        codec: encodes the dead letters.
        program: name of the program that failed to process the records.
    """

    def __init__(
        self, publisher: Publisher, topic: str, codec: Codec, program: str
    ) -> None:
        self._publisher = publisher
        self._topic = topic
        self._codec = codec
        self._program = program
        self._retries: deque[_Retry] = deque()
        self._unpublished = 0

    def send(
        self,
        source: ConsumedRecord,
        reason: str,
        attempts: int,
        on_published: Callable[[], None],
    ) -> None:
        """Publish a record's dead letter; call *on_published* when Kafka has it."""
        letter = build_dead_letter(source, reason, attempts, self._program)
        value = self._codec.encode(letter, self._topic)
        origin = derived_id("deadletter", source.topic, source.partition, source.offset)
        headers = headers_for(letter, self._program, origin, letter.failed_at)
        self._unpublished += 1
        record = Record(self._topic, source.key, value, headers)
        self._publish(record, on_published)

    def poll(self) -> None:
        """Process Kafka's answers, and publish refused dead letters again."""
        self._publisher.poll(0)
        while self._retries and self._retries[0].due <= monotonic():
            retry = self._retries.popleft()
            self._publish(retry.record, retry.on_published)

    def flush(self, seconds: float) -> None:
        """Wait up to *seconds* for answers, if any are outstanding."""
        if self._unpublished > len(self._retries):
            self._publisher.flush(seconds)

    def _publish(self, record: Record, on_published: Callable[[], None]) -> None:
        def on_delivery(error: PublishError | None) -> None:
            if error is None:
                self._unpublished -= 1
                on_published()
            else:
                self._retry_later(error, record, on_published)

        try:
            self._publisher.publish(record, on_delivery)
        except PublishError as exc:
            self._retry_later(exc, record, on_published)

    def _retry_later(
        self, error: PublishError, record: Record, on_published: Callable[[], None]
    ) -> None:
        log.warning("publish_failed", topic=record.topic, error=error, retried=True)
        self._retries.append(_Retry(monotonic() + _PAUSE, record, on_published))
