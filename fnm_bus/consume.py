"""Consume: the loop of every consumer that only reacts.

    Kafka ▶ decode ▶ handler ▶ commit
              │         ├─ "later": the partition pauses, others go on
              └─────────┴─ cannot be decoded, or fails again and again: dead letter

Offsets are committed by hand, after the handler is done. A consumer that is killed in
between sees the record again: whatever it does, it must be able to do twice.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final

from confluent_kafka import (
    Consumer,
    KafkaException,
    Message,
    TopicPartition,
)

from fnm_bus.codec import Codec
from fnm_bus.consume_metrics import ConsumeMetrics
from fnm_bus.deadletter import letter_of
from fnm_bus.errors import (
    BrokerUnavailable,
    ConfigError,
    PublishError,
    RegistryError,
    TopicRefused,
)
from fnm_bus.handling import Handler, Hold, TryLater
from fnm_bus.progress import Progress
from fnm_bus.publish import Publisher
from fnm_bus.reader import REFUSED, read_of
from fnm_bus.record import Record

log = logging.getLogger(__name__)

_POLL: Final = 0.2
"""Most seconds between two looks at everything else."""
_COMMIT: Final = 1.0
"""Seconds between two commits."""
_SHOW: Final = 5.0
_FIRST: Final = 0.1
_LONGEST: Final = 30.0
"""Seconds of the first pause after a failure, doubled each time, and of the longest."""
_AT_ONCE: Final = 500
_PROMPT: Final = {
    # What a dead member had is read by another one after this, not after 45 s.
    "session.timeout.ms": "10000",
}


@dataclass(slots=True)
class _Part:
    """One partition that is ours."""

    place: TopicPartition
    progress: Progress = field(default_factory=Progress)
    again: Message | None = None
    due: float = 0.0
    tries: int = 0
    failures: int = 0
    why: str = ""


class Loop:
    """Reads topics as a member of a consumer group.

    Args:
        settings: librdkafka's settings.
        group: name of the group.
        topics: names of the topics.
        codec: decodes the values.
        handler: deals with a record; it returns None when that is done, or a `Hold`. It
            raises `TryLater`, or anything else when it failed.
        deadletter_topic: gets what nobody can deal with.
        publisher: takes the dead letters.
        metrics: the loop's figures.
        attempts: failures after which a record becomes a dead letter.
        turn: called between records; returns in how many seconds at most it wants to be
            called again.
        settle: called before offsets are committed; when it raises, they are not.
        tombstones: whether the handler gets records without a value.
    """

    def __init__(  # noqa: PLR0913 - everything that consumers differ in
        self,
        settings: Mapping[str, str],
        group: str,
        topics: Sequence[str],
        codec: Codec,
        handler: Handler,
        *,
        deadletter_topic: str,
        publisher: Publisher,
        metrics: ConsumeMetrics | None = None,
        attempts: int = 5,
        turn: Callable[[], float] | None = None,
        settle: Callable[[], None] | None = None,
        tombstones: bool = False,
    ) -> None:
        self._settings: dict[str, Any] = {
            "auto.offset.reset": "earliest",
            **({} if settings.get("group.protocol") == "consumer" else _PROMPT),
            # What fails is raised or said here; each attempt to connect is no news.
            "log_level": "2",
            **settings,
            "group.id": group,
            "enable.auto.commit": "false",
            "enable.auto.offset.store": "false",
        }
        self._group = group
        self._topics = list(topics)
        self._codec = codec
        self._handler = handler
        self._deadletter_topic = deadletter_topic
        self._publisher = publisher
        self._metrics = metrics or ConsumeMetrics()
        self._attempts = attempts
        self._turn = turn or (lambda: _POLL)
        self._settle = settle or (lambda: None)
        self._tombstones = tombstones
        self._consumer: Consumer | None = None
        self._parts: dict[tuple[str, int], _Part] = {}
        self._stopping = threading.Event()
        self.turned_at = monotonic()

    def run(self) -> None:
        """Read until `stop`; commit what is done, and leave the group.

        Raises:
            ConfigError: librdkafka refuses the settings.
            TopicRefused: a topic does not exist, or must not be read.
            BrokerUnavailable: another process took this one's place in the group.
        """
        try:
            consumer = Consumer(self._settings)
        except KafkaException as exc:
            raise ConfigError(f"[kafka]: {exc.args[0].str()}") from exc
        self._consumer = consumer
        consumer.subscribe(
            self._topics,
            on_assign=self._given,
            on_revoke=self._taken,
            on_lost=self._lost,
        )
        commit = show = monotonic()
        try:
            while not self._stopping.is_set():
                self.turned_at = monotonic()
                wait = min(self._turn(), _POLL)
                self._read(consumer, max(wait, 0.0))
                self._again(consumer)
                self._publisher.poll(0)
                if monotonic() - commit >= _COMMIT:
                    commit = monotonic()
                    self._commit(consumer, asynchronous=True)
                if monotonic() - show >= _SHOW:
                    show = monotonic()
                    self._show(consumer)
        finally:
            self._publisher.flush(_COMMIT)
            self._commit(consumer, asynchronous=False)
            consumer.close()
            self._consumer = None

    def stop(self) -> None:
        """Ask `run` to end; may be called from a signal handler."""
        self._stopping.set()

    def _read(self, consumer: Consumer, wait: float) -> None:
        for number in range(_AT_ONCE):
            message = consumer.poll(0 if number else wait)
            if message is None:
                return
            error = message.error()
            if error is None:
                self._take(consumer, message)
            elif error.code() in REFUSED and not error.retriable():
                raise TopicRefused(f"{message.topic()}: {error.str()}")
            elif error.fatal():
                raise BrokerUnavailable(f"this consumer is shut out: {error.str()}")
            else:
                log.warning("reading: %s", error.str())

    def _take(self, consumer: Consumer, message: Message) -> None:
        part = self._parts.get(_place(message))
        if part is None:
            return  # it was taken away meanwhile; whoever has it now reads it again
        part.progress.take(_offset(message))
        self._attempt(consumer, part, message)

    def _attempt(self, consumer: Consumer, part: _Part, message: Message) -> None:
        try:
            hold = self._handle(part, message)
        except TryLater as exc:
            self._later(consumer, part, message, str(exc), exc.seconds)
        except RegistryError as exc:
            self._later(consumer, part, message, str(exc), None)
        except Exception as exc:  # noqa: BLE001 - whatever a handler raises is its own
            part.failures += 1
            self._metrics.errors.labels(message.topic()).inc()
            why = f"{type(exc).__name__}: {exc}"
            if part.failures < self._attempts:
                self._later(consumer, part, message, why, None)
            else:
                self._bury(part, message, f"failed {part.failures} times: {why}")
                self._on(consumer, part)
        else:
            self._on(consumer, part)
            if hold is not None:
                offset = _offset(message)
                hold.then(lambda: part.progress.finish(offset))

    def _handle(self, part: _Part, message: Message) -> Hold | None:
        read = read_of(message, self._codec)
        hold: Hold | None = None
        if read.error and read.value:
            self._bury(part, message, read.error)
            return Hold()  # done when the dead letter is acknowledged
        if read.value or self._tombstones:
            hold = self._handler(read)
            self._metrics.handled.labels(read.topic).inc()
            age = (datetime.now(UTC) - read.at).total_seconds()
            self._metrics.age.labels(read.topic).set(max(age, 0.0))
        if hold is None:
            part.progress.finish(read.offset)
        return hold

    def _later(
        self,
        consumer: Consumer,
        part: _Part,
        message: Message,
        why: str,
        seconds: float | None,
    ) -> None:
        """Let a partition wait; the others go on."""
        pause = min(_FIRST * 2**part.tries, _LONGEST) if seconds is None else seconds
        part.tries = min(part.tries + 1, 20)
        if part.again is None:
            consumer.pause([part.place])
        part.again, part.due = message, monotonic() + pause
        self._metrics.retries.labels(message.topic()).inc()
        if part.why != why:
            part.why = why
            log.warning("%s: will be tried again: %s", _name(message), why)

    def _again(self, consumer: Consumer) -> None:
        now = monotonic()
        for part in tuple(self._parts.values()):
            if part.again is not None and part.due <= now:
                self._attempt(consumer, part, part.again)

    @staticmethod
    def _on(consumer: Consumer, part: _Part) -> None:
        """Let a partition that waited go on."""
        if part.again is not None:
            part.again = None
            consumer.resume([part.place])
        part.tries = part.failures = 0
        part.why = ""

    def _bury(self, part: _Part, message: Message, why: str) -> None:
        """Publish a dead letter; its record is done when Kafka has it."""
        log.warning("%s: dead letter: %s", _name(message), why)
        self._metrics.dead_letters.labels(message.topic()).inc()
        letter = letter_of(message, why, max(part.failures, 1), self._group)
        topic = self._deadletter_topic
        record = Record(topic, message.key(), self._codec.encode(letter, topic))

        def answered(error: PublishError | None) -> None:
            if error is None:
                part.progress.finish(_offset(message))
            elif not self._stopping.is_set():
                log.warning("no dead letter yet: %s", error)
                self._send(record, answered)

        self._send(record, answered)

    def _send(
        self, record: Record, answered: Callable[[PublishError | None], None]
    ) -> None:
        try:
            self._publisher.publish(record, answered)
        except PublishError as exc:
            # The record is not done, so a restart reads it again.
            log.warning("no dead letter: %s", exc)

    def _commit(self, consumer: Consumer, *, asynchronous: bool) -> None:
        try:
            self._settle()
        except TryLater as exc:
            log.warning("offsets wait: %s", exc)
            return
        offsets = [
            TopicPartition(it.place.topic, it.place.partition, offset)
            for it in self._parts.values()
            if (offset := it.progress.committable()) is not None
        ]
        if not offsets:
            return
        try:
            if asynchronous:
                consumer.commit(offsets=offsets, asynchronous=True)
            else:
                consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as exc:
            # They are read again then; each was done, and is done once more.
            log.warning("offsets were not committed: %s", exc.args[0].str())

    def _given(self, _consumer: Consumer, places: list[TopicPartition]) -> None:
        for it in places:
            self._parts[it.topic, it.partition] = _Part(
                TopicPartition(it.topic, it.partition)
            )
        log.info("reading %d partitions", len(self._parts))

    def _taken(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        self._commit(consumer, asynchronous=False)
        self._lost(consumer, places)

    def _lost(self, _consumer: Consumer, places: list[TopicPartition]) -> None:
        for it in places:
            self._parts.pop((it.topic, it.partition), None)

    def _show(self, consumer: Consumer) -> None:
        for (topic, number), part in self._parts.items():
            _low, high = consumer.get_watermark_offsets(part.place, cached=True)
            at = consumer.position([part.place])[0].offset
            if high >= 0 and at >= 0:
                self._metrics.lag.labels(topic, number).set(max(high - at, 0))
            self._metrics.held.labels(topic, number).set(part.progress.waiting)


def _place(message: Message) -> tuple[str, int]:
    return message.topic() or "", message.partition() or 0


def _offset(message: Message) -> int:
    return message.offset() or 0


def _name(message: Message) -> str:
    return f"{message.topic()}[{message.partition()}]@{message.offset()}"
