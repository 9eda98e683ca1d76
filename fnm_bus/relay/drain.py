"""The loop that publishes the spool's entries; the relay and `notify` share it.

An entry is removed from disk after Kafka has acknowledged its record. A process that
dies before the removal publishes the entry again, with the same `event_id`.
"""

import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from time import monotonic, perf_counter, time
from typing import Final

from fnm_bus.errors import (
    InvalidNotification,
    InvalidRecord,
    PoisonEntry,
    PublishError,
    RecordTooLarge,
    SpoolError,
    TopicRefused,
)
from fnm_bus.kafka.publisher import Publisher
from fnm_bus.kafka.record import Record
from fnm_bus.ops.log import get_logger
from fnm_bus.relay.disposal import EntryDisposal
from fnm_bus.relay.reading_note import ReadingNote
from fnm_bus.relay.source import LISTING, EntrySource
from fnm_bus.relay.topic_queue import PendingEntry, TopicQueue
from fnm_bus.spool.spool import Spool

log = get_logger(__name__)

_BATCH: Final = 256
"""Most entries that are read between two polls of the publisher."""
_MAX_RUN: Final = 0.2
"""Seconds after which one run starts nothing new. A document takes under one second,
and a suspect one at most 10 s (with the starts of two children). One run thus ends well
before the watchdog's 30 s."""


@dataclass(frozen=True, slots=True)
class InFlightLimits:
    """Limits of the records in flight for one topic.

    Attributes:
        records: most records.
        size: most bytes, as stored in the spool or as encoded, whichever is more.
    """

    records: int = 10_000
    size: int = 16 * 1024 * 1024


class _Budget:
    """Limits the work of one run; the first unit is always allowed."""

    def __init__(self) -> None:
        self.used = 0
        self._end = perf_counter() + _MAX_RUN / 2

    def take(self) -> bool:
        """Return whether one more unit may start, and count it."""
        if self.used and (self.used >= _BATCH or perf_counter() > self._end):
            return False
        self.used += 1
        return True


class Drain:
    """Publishes entries from the spools to Kafka.

    Args:
        source: lists entries and makes records of them.
        publisher: publishes the records.
        limits: of the records in flight.

    Attributes:
        disk_errors: errors of the disk that are retried.
        is_coalescing: whether newer status updates replace waiting ones.
        quarantined: name → reason of the latest quarantined documents, for `notify`.
    """

    def __init__(
        self, source: EntrySource, publisher: Publisher, limits: InFlightLimits
    ) -> None:
        self._source = source
        self._metrics = source.metrics
        self._publisher = publisher
        self._limits = limits
        self.disk_errors = source.disk_errors
        self._note = ReadingNote(source.spools[0].root / "state" / "reading")
        self._is_note_read = False
        self._is_note_outdated = False
        self._suspects: set[str] = set()
        self._names: set[str] = set()
        self._unread: deque[PendingEntry] = deque()
        self._unreadable: list[PendingEntry] = []
        self._disposal = EntryDisposal(
            source, self._drop, lambda name: self._add(name, None)
        )
        self._queues: dict[str, TopicQueue] = {}
        self._rank = 0
        self.is_coalescing = False
        self._has_new_status = False
        self.quarantined = self._disposal.quarantined

    @property
    def is_idle(self) -> bool:
        """Whether every listed entry is published, or waits for the quarantine."""
        return not (
            self._unread
            or self._disposal.has_work
            or self.io_blocked
            or self.has_unpublished
        )

    @property
    def io_blocked(self) -> int:
        """Number of entries that cannot be read or removed now."""
        return len(self._unreadable) + self._disposal.unremoved_count

    @property
    def is_reading_suspect(self) -> bool:
        """Whether a child process is still reading a suspect entry."""
        return self._source.isolated.is_busy

    @property
    def is_scan_incomplete(self) -> bool:
        """Whether the last `scan` could not list every directory."""
        return any(task.startswith(LISTING) for task in self.disk_errors.current)

    @property
    def is_spool_unreadable(self) -> bool:
        """Whether the last `scan` could list no spool at all."""
        return self._source.is_unreadable

    @property
    def has_unpublished(self) -> bool:
        """Whether a record waits, has failed or is in flight."""
        return not all(queue.is_idle for queue in self._queues.values())

    @property
    def entry_count(self) -> int:
        """Number of listed entries that are still on disk."""
        return len(self._names)

    @property
    def in_flight(self) -> int:
        """Number of records that Kafka has not acknowledged."""
        return sum(queue.in_flight for queue in self._queues.values())

    @property
    def topic_refusals(self) -> str:
        """The errors of topics that take no record until an operator acts, or ""."""
        queues = tuple(self._queues.values())  # called by the thread of /healthz
        refusals = (
            queue.refusal for queue in queues if queue.refusal and not queue.is_idle
        )
        return "; ".join(refusals)

    @property
    def is_backing_off(self) -> bool:
        """Whether all remaining entries wait for the end of a pause."""
        return not (self._unread or self._disposal.has_work) and all(
            queue.is_idle or (queue.is_backing_off and not queue.in_flight)
            for queue in self._queues.values()
        )

    def scan(self) -> int:
        """List the entries on disk; return the number of new ones.

        A later scan lists the directories that fail now: see `is_scan_incomplete`.
        """
        if not self._is_note_read:
            with self.disk_errors.catch("reading state/reading"):
                self._suspects |= self._note.read()
                self._is_note_read = True
        before = self._rank
        for name, spool in self._source.list_entries():
            if name not in self._names:
                self._add(name, spool)
        return self._rank - before

    def run_once(self, wait: float) -> None:
        """Publish entries, then wait up to *wait* seconds for acknowledgements."""
        now = monotonic()
        for topic, queue in self._queues.items():
            if queue.release_due(now):
                self._metrics.topic_blocked.labels(topic).set(0)
                log.info("topic_retried", topic=topic)
        if self.is_coalescing and self._has_new_status:
            self.coalesce_status()
        if self._work():
            self._publisher.poll(0)
        else:
            self._source.isolated.close_if_idle()
            # No more records follow now, so batches need not wait for `linger.ms`.
            self._publisher.flush(wait)
        if self._is_note_outdated:
            self._write_note(())

    def close(self) -> None:
        """Close files and the child process; the drain can be used again.

        Its next scan opens the spool's directory again, which may be a new one.
        """
        self._source.isolated.close()
        self._note.close()
        self._is_note_read = False

    def coalesce_status(self) -> None:
        """Drop waiting status updates that a newer one of the same attack replaces."""
        self._has_new_status = False
        for queue in self._queues.values():
            replaced = queue.coalesce_status()
            self._disposal.remove_later(replaced)
            self._metrics.status_updates_coalesced.inc(len(replaced))

    def retry_blocked(self) -> None:
        """Let the next runs try again after a full quarantine or a disk error."""
        self._disposal.retry(_BATCH)
        self._unread.extend(self._unreadable)
        self._unreadable.clear()
        if self._is_note_outdated:  # an idle relay does not call `run_once`
            self._write_note(())

    def update_metrics(self) -> None:
        """Set the gauges."""
        for topic, queue in self._queues.items():
            self._metrics.in_flight.labels(topic).set(queue.in_flight)
        self._disposal.update_metrics()
        self._metrics.io_blocked.set(self.io_blocked)

    def _work(self) -> int:
        """Do the work of one run; return the number of processed entries."""
        disposal = _Budget()
        self._disposal.work(disposal.take)
        names = self._next_names()
        if not names:
            return disposal.used
        reading = _Budget()
        self._write_note(names)
        for queue in tuple(self._queues.values()):
            while queue.waiting and queue.has_room() and reading.take():
                self._read_and_publish(queue.waiting.popleft(), queue)
        # Read on even if a topic has no room: the next entry may be for another topic,
        # and only status updates that were read can be coalesced.
        while self._unread and reading.take():
            self._read_and_publish(self._unread.popleft(), None)
        # A process that dies or fails above leaves the note for its successor.
        self._write_note(())
        return disposal.used + reading.used

    def _next_names(self) -> list[str]:
        """Return the names of all entries that this run may read, and a few more."""
        queues = [
            queue.waiting
            for queue in self._queues.values()
            if queue.waiting and queue.has_room()
        ]
        return [
            entry.name
            for queue in (*queues, self._unread)
            for entry in islice(queue, _BATCH)
        ]

    def _write_note(self, names: Iterable[str]) -> None:
        self._is_note_outdated = True
        with self.disk_errors.catch("writing state/reading"):
            self._note.write({*names, *self._suspects})
            self._is_note_outdated = False

    def _add(self, name: str, spool: Spool | None) -> None:
        self._names.add(name)
        self._rank += 1
        self._unread.append(PendingEntry(self._rank, name, spool))

    def _queue(self, topic: str) -> TopicQueue:
        queue = self._queues.get(topic)
        if queue is None:
            queue = TopicQueue(self._limits.records, self._limits.size)
            self._queues[topic] = queue
        return queue

    def _read_and_publish(self, entry: PendingEntry, queue: TopicQueue | None) -> None:
        """Read *entry* and publish its record, or add it to its topic's queue.

        *queue* is the queue in which the entry waited, or None at its first reading.
        """
        is_suspect = entry.name in self._suspects
        try:
            record = self._source.make_record(
                entry, first=queue is None, suspect=is_suspect
            )
        except FileNotFoundError:
            self._drop(entry)
            return
        except InvalidNotification as exc:
            self._disposal.quarantine(entry, exc.as_dict())
            return
        except (InvalidRecord, PoisonEntry) as exc:
            self._disposal.quarantine(entry, {"reason": str(exc)})
            return
        except SpoolError as exc:
            self._disposal.log_disk_error("reading an entry", entry, exc)
            self._unreadable.append(entry)
            return
        if record is None:
            self._disposal.remove(entry)
            return
        if queue is None:
            queue = self._queue(record.topic)
            may_be_replaced = self.is_coalescing and entry.attack is not None
            if queue.waiting or may_be_replaced or not queue.has_room():
                queue.waiting.append(entry)
                self._has_new_status |= entry.attack is not None
                return
        self._publish(entry, record, queue)

    def _publish(self, entry: PendingEntry, record: Record, queue: TopicQueue) -> None:
        # The size in librdkafka's queue: a record may repeat names of fields.
        entry.size = max(entry.size, len(record.value or b""))
        queue.sent(entry)
        on_delivery = partial(self._on_delivery, entry, record.topic, queue)
        try:
            self._publisher.publish(record, on_delivery)
        except PublishError as exc:
            on_delivery(exc)

    def _on_delivery(
        self,
        entry: PendingEntry,
        topic: str,
        queue: TopicQueue,
        error: PublishError | None,
    ) -> None:
        queue.acknowledged(entry)
        is_too_large = isinstance(error, RecordTooLarge)
        if error is None:
            queue.reset_backoff()
            self._on_acknowledged(entry, topic)
        elif error.retryable:
            self._retry_later(entry, topic, queue, error)
        elif is_too_large and not entry.without_samples and entry.spool:
            entry.without_samples = True
            queue.waiting.appendleft(entry)
        else:
            reason = {"reason": f"Kafka refuses the record permanently: {error}"}
            self._disposal.quarantine(entry, reason)

    def _on_acknowledged(self, entry: PendingEntry, topic: str) -> None:
        self._metrics.published.labels(topic).inc()
        if log.isEnabledFor(logging.DEBUG):  # for every record
            log.debug("published", topic=topic, entry=entry.name)
        if entry.spool is not None:
            self._metrics.delay.observe(max(time() - entry.stored_at, 0.0))
        if entry.spool is not None and entry.without_samples:
            self._metrics.truncated.labels(topic).inc()
            reason = {"reason": "published without its packet samples"}
            self._disposal.quarantine(entry, reason, with_dead_letter=False)
        else:
            self._disposal.remove(entry)

    def _retry_later(
        self, entry: PendingEntry, topic: str, queue: TopicQueue, error: PublishError
    ) -> None:
        if not queue.is_backing_off:
            refused = isinstance(error, TopicRefused)
            log.warning(
                "topic_refused" if refused else "publish_failed",
                topic=topic,
                error=error,
                retried=True,
            )
            self._metrics.topic_blocked.labels(topic).set(1)
        self._metrics.retried.labels(topic, type(error).__name__).inc()
        queue.refusal = str(error) if isinstance(error, TopicRefused) else ""
        queue.retry_later(entry, monotonic())

    def _drop(self, entry: PendingEntry) -> None:
        """Drop the state of an entry that is no longer on disk."""
        self._names.discard(entry.name)
        if entry.name in self._suspects:
            self._suspects.discard(entry.name)
            self._is_note_outdated = True
