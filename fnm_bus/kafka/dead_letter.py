"""Dead letters of records: what nobody can deal with is told, and where it stands."""

import hashlib
import logging
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
from fnm_bus.kafka.publisher import Publisher
from fnm_bus.kafka.reader import ConsumedRecord, raw_record
from fnm_bus.kafka.record import Record
from fnm_bus.kafka.route import derived_id, headers_for

log = logging.getLogger(__name__)

HEAD: Final = 4096
"""Bytes of the value that a dead letter shows; the record itself stays on its topic."""
_REASON: Final = 1000
"""Characters of the reason: a handler's error may hold anything."""
_PAUSE: Final = 1.0
"""Seconds until a dead letter that was refused is tried again."""


def build_dead_letter(
    found: ConsumedRecord | Message, why: str, attempts: int, program: str
) -> DeadLetter:
    """Return the dead letter of a record: where it stands, and why nobody can use it.

    Args:
        found: the record.
        why: for people.
        attempts: how often it was tried.
        program: who gave up.
    """
    read = found if isinstance(found, ConsumedRecord) else raw_record(found)
    value = read.value or b""
    return DeadLetter(
        reason=why[:_REASON].encode(errors="replace").decode(),
        head=value[:HEAD],
        size=len(value),
        digest=f"sha256:{hashlib.sha256(value).hexdigest()}",
        failed_at=datetime.now(UTC),
        attempts=attempts,
        origin_topic=read.topic,
        origin_partition=read.partition,
        origin_offset=read.offset,
        producer_name=program,
        producer_version=__version__,
    )


class _Refused(NamedTuple):
    due: float
    record: Record
    done: Callable[[], None]


class DeadLetterPublisher:
    """Publishes dead letters, and does not stop before Kafka has them.

    Args:
        publisher: takes them.
        topic: where they go.
        codec: encodes them.
        program: who gives up.
    """

    def __init__(
        self, publisher: Publisher, topic: str, codec: Codec, program: str
    ) -> None:
        self._publisher = publisher
        self._topic = topic
        self._codec = codec
        self._program = program
        self._refused: deque[_Refused] = deque()
        self._open = 0

    def send(
        self, read: ConsumedRecord, why: str, attempts: int, done: Callable[[], None]
    ) -> None:
        """Publish the dead letter of a record; call *done* when Kafka has it."""
        letter = build_dead_letter(read, why, attempts, self._program)
        value = self._codec.encode(letter, self._topic)
        place = derived_id("deadletter", read.topic, read.partition, read.offset)
        headers = headers_for(letter, self._program, place, letter.failed_at)
        self._open += 1
        self._publish(Record(self._topic, read.key, value, headers), done)

    def turn(self) -> None:
        """Take answers, and send again what was refused a while ago."""
        self._publisher.poll(0)
        while self._refused and self._refused[0].due <= monotonic():
            it = self._refused.popleft()
            self._publish(it.record, it.done)

    def flush(self, seconds: float) -> None:
        """Wait up to *seconds* for answers, if some are awaited."""
        if self._open > len(self._refused):
            self._publisher.flush(seconds)

    def _publish(self, record: Record, done: Callable[[], None]) -> None:
        def answered(error: PublishError | None) -> None:
            if error is None:
                self._open -= 1
                done()
            else:
                self._again(error, record, done)

        try:
            self._publisher.publish(record, answered)
        except PublishError as exc:
            self._again(exc, record, done)

    def _again(
        self, error: PublishError, record: Record, done: Callable[[], None]
    ) -> None:
        log.warning("a dead letter is tried again: %s", error)
        self._refused.append(_Refused(monotonic() + _PAUSE, record, done))
