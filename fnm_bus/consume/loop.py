"""Consume: the loop of every consumer that only reacts.

    Kafka ▶ decode and check ▶ handler ▶ settle ▶ commit
                │                ├─ "later": the partition pauses, others go on
                └────────────────┴─ not valid, or fails again and again: dead letter

Offsets are committed by hand, after the handler is done. A consumer that is killed in
between sees the record again: whatever it does, it must be able to do twice.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Final

from fnm_bus.avro.codec import Codec
from fnm_bus.consume.group_member import GroupMember
from fnm_bus.consume.handler import AbortConsumer, Deferred, Handler, RetryLater
from fnm_bus.consume.metrics import ConsumeMetrics
from fnm_bus.consume.partition import PartitionState
from fnm_bus.errors import FnmBusError, InvalidRecord
from fnm_bus.event import Event
from fnm_bus.event.identifiers import check_event
from fnm_bus.kafka.dead_letter import DeadLetterPublisher
from fnm_bus.kafka.publisher import Publisher
from fnm_bus.kafka.reader import ConsumedRecord, decoded
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_POLL: Final = 0.2
"""Most seconds between two looks at everything else."""
_COMMIT: Final = 1.0
"""Seconds between two commits."""
_SHOW: Final = 5.0
"""Seconds between two looks at the lag."""
_LETTERS: Final = 100
"""Dead letters of a partition that may be on their way."""
_LOGGED: Final = 1000
"""Characters of a reason in a log line."""
_LEAVING: Final = 5.0
"""Seconds that dead letters, and then the last commit, get at the end."""


class ConsumerLoop:
    """Reads topics as a member of a consumer group.

    Args:
        settings: librdkafka's settings. A new group begins with the oldest records,
            unless `auto.offset.reset` says otherwise.
        group: name of the group.
        topics: names of the topics.
        codec: decodes the values.
        handler: deals with a record; it returns None when that is done, or a `Hold`. It
            raises `TryLater` (or another of our errors that may pass) when the time is
            not right, `GiveUp` to end everything, and anything else when it failed.
        deadletter_topic: gets what nobody can deal with.
        publisher: takes the dead letters; its owner closes it.
        metrics: the loop's figures.
        attempts: failures after which a record becomes a dead letter.
        turn: called between records; returns in how many seconds at most it wants to be
            called again.
        settle: called before offsets are committed, every second, and at the end;
            while it raises `TryLater`, they are not.
        tombstones: whether the handler gets records without a value.

    Attributes:
        turned_at: when the loop turned last, on the monotonic clock.

    A handler that needs longer than librdkafka's `max.poll.interval.ms` (5 minutes)
    loses its partitions to another member, which then does the same once more.
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
        self._codec = codec
        self._handler = handler
        self._publisher = publisher
        self._letters = DeadLetterPublisher(publisher, deadletter_topic, codec, group)
        self._metrics = metrics or ConsumeMetrics()
        self._attempts = attempts
        self._turn = turn or (lambda: _POLL)
        self._settle = settle or (lambda: None)
        self._unsettled = ""
        self._tombstones = tombstones
        self._member = GroupMember(
            settings,
            group,
            topics,
            take=self._take,
            leaving=lambda: self._commit(now=True),
            gone=self._metrics.forget,
        )
        self._stopping = threading.Event()
        self.turned_at = monotonic()

    def run(self) -> None:
        """Read until `stop`; commit what is done, and leave the group.

        Raises:
            ConfigError: librdkafka refuses the settings.
            TopicRefused: a topic does not exist, or it or the group must not be read.
            BrokerUnavailable: another process took this one's place in the group.
            GiveUp: the handler, turn or settle wants the end.
        """
        self._member.join()
        settled = False
        try:
            commit, show = monotonic(), 0.0
            while not self._stopping.is_set():
                now = self.turned_at = monotonic()
                if now - commit >= _COMMIT:
                    commit = now
                    self._commit(now=False)
                if now - show >= _SHOW:
                    show = now
                    self._show()
                self._once()
            self._letters.flush(_LEAVING)
            settled = self._settled()
        finally:
            self._member.leave(_LEAVING, commit=settled)

    def stop(self) -> None:
        """Ask `run` to end; may be called from a signal handler."""
        self._stopping.set()

    @property
    def problem(self) -> str:
        """Why the brokers reject this consumer, a topic or its dead letters, or ""."""
        return (
            self._member.connection.rejection
            or "; ".join(tuple(self._member.refusals.values()))
            or self._publisher.problem
        )

    def healthy(self) -> bool:
        """Return whether no person has to act before it can work."""
        return not self.problem

    def facts(self) -> Mapping[str, object]:
        """Return what /healthz shows."""
        return {"problem": self.problem}

    def _once(self) -> None:
        wait = max(min(self._turn(), _POLL, self._next_attempt()), 0.0)
        end = monotonic() + wait
        while self._member.poll(wait):
            wait = 0.0
            if self._stopping.is_set() or monotonic() >= end:
                break
        for part in self._member.parts():
            if part.again is not None and part.due <= monotonic():
                self._attempt(part, part.again)
        self._letters.turn()

    def _next_attempt(self) -> float:
        due = [it.due for it in self._member.parts() if it.again is not None]
        return min(due) - monotonic() if due else _POLL

    def _take(self, part: PartitionState, read: ConsumedRecord) -> None:
        part.progress.take(read.offset)
        self._attempt(part, read)

    def _attempt(self, part: PartitionState, read: ConsumedRecord) -> None:
        try:
            self._handle(part, read)
        except AbortConsumer:
            raise
        except RetryLater as exc:
            self._later(part, read, str(exc), exc.seconds)
        except Exception as exc:  # noqa: BLE001 - whatever a handler raises is its own
            if isinstance(exc, FnmBusError) and exc.retryable:
                self._later(part, read, str(exc), None)
            else:
                self._failed(part, read, exc)
        else:
            self._member.resume(part)

    def _handle(self, part: PartitionState, raw: ConsumedRecord) -> None:
        read = _checked(decoded(raw, self._codec))
        finish = partial(part.progress.finish, read.offset)
        if read.value and read.error:
            self._bury(part, read, read.error)
        elif read.value or self._tombstones:
            hold: Deferred | None = self._handler(read)
            self._metrics.handled.labels(read.topic).inc()
            age = (datetime.now(UTC) - read.at).total_seconds()
            self._metrics.age.labels(read.topic).set(max(age, 0.0))
            if hold is None:
                finish()
            else:
                hold.then(finish)
        else:
            finish()

    def _failed(
        self, part: PartitionState, read: ConsumedRecord, error: Exception
    ) -> None:
        self._metrics.errors.labels(read.topic).inc()
        part.failures += 1
        why = f"{type(error).__name__}: {error}"
        if part.failures < self._attempts:
            self._later(part, read, why, None)
            return
        try:
            self._bury(part, read, f"failed {part.failures} times: {why}")
        except RetryLater as exc:
            self._later(part, read, str(exc), exc.seconds)
        else:
            self._member.resume(part)

    def _later(
        self,
        part: PartitionState,
        read: ConsumedRecord,
        why: str,
        seconds: float | None,
    ) -> None:
        """Let a partition wait; the others go on."""
        self._metrics.retries.labels(read.topic).inc()
        if part.why != why:
            part.why = why
            log.warning("record_retried", record=_name(read), reason=why[:_LOGGED])
        self._member.pause(part)
        part.wait(read, monotonic(), seconds)

    def _bury(self, part: PartitionState, read: ConsumedRecord, why: str) -> None:
        """Publish a dead letter; its record is done when Kafka has it."""
        if part.letters >= _LETTERS:
            raise RetryLater(f"{part.letters} dead letters are on their way already")

        def done() -> None:
            part.letters -= 1
            part.progress.finish(read.offset)

        self._letters.send(read, why, max(part.failures, 1), done)
        part.letters += 1
        self._metrics.dead_letters.labels(read.topic).inc()
        log.warning("dead_letter", record=_name(read), reason=why[:_LOGGED])

    def _commit(self, *, now: bool) -> None:
        if self._settled():
            self._member.commit(now=now)

    def _settled(self) -> bool:
        try:
            self._settle()
        except RetryLater as exc:
            if self._unsettled != str(exc):
                log.warning("commit_delayed", error=exc)
            self._unsettled = str(exc)
            return False
        self._unsettled = ""
        return True

    def _show(self) -> None:
        self._member.check()
        for part, lag in self._member.lags():
            about = (part.topic, str(part.number))
            self._metrics.held.labels(*about).set(part.progress.waiting)
            if lag is not None:
                self._metrics.lag.labels(*about).set(lag)


def _checked(read: ConsumedRecord) -> ConsumedRecord:
    """Return *read*; without its event, and with the reason, if that is not valid."""
    if isinstance(read.event, Event):
        try:
            check_event(read.event)
        except InvalidRecord as exc:
            return read._replace(event=None, error=str(exc))
    return read


def _name(read: ConsumedRecord) -> str:
    return f"{read.topic}[{read.partition}]@{read.offset}"
