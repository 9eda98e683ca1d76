"""The notifier's work: records in, storms, notices to all sinks, offsets out.

An offset is released when every sink has finished with the notices about its record. A
restart repeats the notices that were not finished, with the same keys.
"""

import logging
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Any, Final

import msgspec

from consumers.mitigation.clock import BrokerClock
from consumers.mitigation.clock import now as boottime
from consumers.notifier.delivery import DeliveryQueue
from consumers.notifier.metrics import NotifierMetrics
from consumers.notifier.notice import notice_of
from consumers.notifier.recall import lease_end, members_of
from consumers.notifier.record_check import LATEST, Problem, problem_of
from consumers.notifier.sink import OutgoingNotice
from consumers.storms.grouper import StormGrouper
from consumers.storms.update import PAUSED, RENEWED, Position, StormUpdate
from fnm_bus.consume.handler import Deferred, RetryLater
from fnm_bus.event import EPOCH, Mitigation
from fnm_bus.kafka.reader import ConsumedRecord
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_LONGEST: Final = 1.0
_PROMPT: Final = 0.1
"""Seconds until the next turn, at most, and while notices are being sent."""
_MAX_HELD: Final = 100_000
_MAX_BEHIND: Final = 500_000
"""Changes that wait for a notice; records of a partition since the oldest of them."""
_RETRY: Final = 1.0
"""Seconds until a record that exceeded these bounds is handled again."""


class Notifier:
    """Turns records of the mitigation topic into notices.

    Attributes:
        clock: the broker's time, from the records.
    """

    def __init__(
        self,
        storms: StormGrouper,
        queues: Sequence[DeliveryQueue],
        metrics: NotifierMetrics,
    ) -> None:
        self.storms = storms
        self.queues = queues
        self.metrics = metrics
        self.clock = BrokerClock()
        self._held: dict[int, dict[int, list[Deferred]]] = {}
        self._last_read: dict[int, ConsumedRecord] = {}

    def recall(self, records: Iterable[ConsumedRecord]) -> None:
        """Take over the latest record of each key that was reported before a restart.

        Invalid records are skipped.
        """
        valid = []
        for record in records:
            self._witness(record)
            if self._is_valid(record):
                valid.append(record)
        now = self.clock.datetime().timestamp()
        self.storms.recall(members_of(valid, now), boottime())

    def handle(self, record: ConsumedRecord) -> Deferred | None:
        """Apply one record; the offset of a change waits for its notice.

        Raises:
            RetryLater: too many changes wait; the record was not applied.
        """
        self._witness(record)
        if not isinstance(record.event, Mitigation):
            return None
        held = self._held.setdefault(record.partition, {})
        if not self._was_applied(record):
            self._check_room(record, held)
            if self._is_valid(record) and self._apply(record, record.event):
                held[record.offset] = []
            # Only now: after an exception the record is applied again.
            self._last_read[record.partition] = record
        if record.offset not in held:
            return None
        deferred = Deferred()
        held[record.offset].append(deferred)
        return deferred

    def turn(self) -> float:
        """Hand over the due notices; return the seconds until the next call."""
        self.settle()
        has_room = not any(queue.is_full for queue in self.queues)
        if has_room:
            for update in self.storms.due(boottime()):
                self._send(update, self.queues)
        # Alerts of an attack that continues must not resolve because of another sink.
        renewing = [
            queue
            for queue in self.queues
            if queue.sink.renews and not queue.is_retrying and not queue.is_full
        ]
        if renewing:
            for update in self.storms.renewals(boottime()):
                self._send(update, renewing)
        if not has_room:
            return _PROMPT
        is_idle = all(queue.is_idle for queue in self.queues)
        longest = _LONGEST if is_idle else _PROMPT
        return min(max(self.storms.next_due() - boottime(), 0.0), longest)

    def settle(self) -> None:
        """Release the offsets of finished notices.

        Raises:
            Exception: a fault that ended a sink's thread.
        """
        for queue in self.queues:
            queue.settle()

    def close(self, timeout: float) -> None:
        """Let current attempts end within *timeout* seconds; start no other."""
        for queue in self.queues:
            queue.stop()
        deadline = monotonic() + timeout
        for queue in self.queues:
            queue.join(max(deadline - monotonic(), 0.0))

    def _send(self, update: StormUpdate, queues: Sequence[DeliveryQueue]) -> None:
        try:
            notice = notice_of(update, self.clock.datetime())
            body = msgspec.json.encode(notice)
        except MemoryError:
            raise
        except Exception as exc:
            # A fault in one notice must not silence other storms.
            log.exception("notice_failed", group=update.group)
            self._skip("notice", f"notice of {update.group}", repr(exc))
            self._release(update.positions)
            return
        is_pause_repeated = notice.status == PAUSED and not update.positions
        is_repeated = notice.status == RENEWED or is_pause_repeated
        level = logging.DEBUG if is_repeated else logging.INFO
        log.log(level, "notice_written", notice=notice.key, title=notice.title)
        unfinished = len(queues)

        def finished() -> None:
            nonlocal unfinished
            unfinished -= 1
            if not unfinished:
                self._release(update.positions)

        for queue in queues:
            queue.put(OutgoingNotice(notice, body, update.ends_at), finished)

    def _release(self, positions: Iterable[Position]) -> None:
        for partition, offset in positions:
            for deferred in self._held.get(partition, {}).pop(offset, ()):
                deferred.release()

    def _apply(self, record: ConsumedRecord, mitigation: Mitigation) -> bool:
        """Return whether a notice will report the record."""
        end = lease_end(mitigation, record.at, self.clock.datetime().timestamp())
        skipped = self.storms.skipped
        position = Position(record.partition, record.offset)
        is_news = self.storms.apply(mitigation, boottime(), end, position)
        if self.storms.skipped > skipped:
            self._skip("bound", _name(record), "too many mitigations")
        return is_news

    def _is_valid(self, record: ConsumedRecord) -> bool:
        problem = None
        if record.error:
            problem = Problem("decode", f"{record.error:.200}")
        elif isinstance(record.event, Mitigation):
            problem = problem_of(record.event, len(record.value or b""))
        if problem is not None:
            self._skip(problem.code, _name(record), problem.text)
        return problem is None and isinstance(record.event, Mitigation)

    def _skip(self, reason: str, name: str, text: str) -> None:
        self.metrics.skipped.labels(reason).inc()
        log.warning("record_skipped", code=reason, record=name, reason=text)

    def _check_room(self, record: ConsumedRecord, held: dict[int, Any]) -> None:
        count = sum(map(len, self._held.values()))
        if count >= _MAX_HELD:
            raise RetryLater(f"{count} changes wait for a notice", _RETRY)
        behind = record.offset - next(iter(held), record.offset)
        if behind >= _MAX_BEHIND:
            text = f"{behind} records wait behind a change without a notice"
            raise RetryLater(text, _RETRY)

    def _witness(self, record: ConsumedRecord) -> None:
        # An impossible time would remain the broker's time until the next start.
        if EPOCH <= record.at < LATEST:
            self.clock.witness(record.at.timestamp())

    def _was_applied(self, record: ConsumedRecord) -> bool:
        """Return whether a record is read again after its partition was reassigned.

        On a topic that was created again offsets are small, and times are not.
        """
        last = self._last_read.get(record.partition)
        if last is None:
            return False
        return record.offset <= last.offset and record.at <= last.at


def _name(record: ConsumedRecord) -> str:
    return f"{record.topic}[{record.partition}]@{record.offset}"
