"""Take what is in the spool to Kafka; the part that the relay and `notify` share.

An entry leaves the disk when Kafka has acknowledged its record, and not before: a
process that dies in between publishes it again, with the same `event_id`.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from time import monotonic, perf_counter, time
from typing import Final, NamedTuple

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
from fnm_bus.relay.reading_note import ReadingNote
from fnm_bus.relay.source import LISTING, EntrySource
from fnm_bus.relay.topic_queue import PendingEntry, TopicQueue
from fnm_bus.spool.spool import Spool

log = get_logger(__name__)

_AT_ONCE: Final = 256
"""Documents handed over between two looks at the reports."""
_STEP: Final = 0.2
"""Seconds after which a step begins nothing new. One document takes under a second, and
a suspect one 10 s at most (the starts of two children included), so a step ends well
before the watchdog's 30 s."""


@dataclass(frozen=True, slots=True)
class InFlightLimits:
    """How much may be in flight for one topic.

    Attributes:
        records: most records.
        size: most bytes, as stored in the spool or as encoded, whichever is more.
    """

    records: int = 10_000
    size: int = 16 * 1024 * 1024


class _Refused(NamedTuple):
    """What goes to the quarantine: see `Drain._set_aside`."""

    item: PendingEntry
    reason: Mapping[str, str]
    told: bool


class _Budget:
    """How much one step may begin: some of it always, whatever the clock says."""

    def __init__(self) -> None:
        self.taken = 0
        self._end = perf_counter() + _STEP / 2

    def take(self) -> bool:
        """Return whether one thing more may begin, and count it."""
        if self.taken and (self.taken >= _AT_ONCE or perf_counter() > self._end):
            return False
        self.taken += 1
        return True


class Drain:
    """Takes entries from the spools to Kafka.

    Args:
        intake: finds entries and makes records of them.
        publisher: takes the records.
        flight: how much may be in flight.
    """

    def __init__(
        self, intake: EntrySource, publisher: Publisher, flight: InFlightLimits
    ) -> None:
        self._intake = intake
        self._quarantine = intake.quarantine
        self._metrics = intake.metrics
        self._publisher = publisher
        self._flight = flight
        self.disk = intake.disk
        """Errors of the disk that are retried."""
        self._note = ReadingNote(intake.spools[0].root / "state" / "reading")
        self._is_note_read = False
        self._is_note_old = False
        self._suspects: set[str] = set()
        self._known: set[str] = set()
        self._todo: deque[PendingEntry] = deque()
        self._held: deque[_Refused] = deque()
        self._to_quarantine: deque[_Refused] = deque()
        self._unread: list[PendingEntry] = []
        self._unremoved: list[PendingEntry] = []
        self._to_remove: deque[PendingEntry] = deque()
        self._gates: dict[str, TopicQueue] = {}
        self._rank = 0
        self.thinning = False
        """Whether status updates wait to be replaced by newer ones."""
        self._unthinned = False
        self.refused: dict[str, Mapping[str, str]] = {}
        """Names of the documents that were refused, with the reason; for `notify`."""

    @property
    def idle(self) -> bool:
        """Whether everything found so far is published or held."""
        return not (self._todo or self._due or self.disk_refused or self.untaken)

    @property
    def _due(self) -> bool:
        return bool(self._to_remove or self._to_quarantine)

    @property
    def disk_refused(self) -> int:
        """How many entries can now be neither read nor removed."""
        return len(self._unread) + len(self._unremoved)

    @property
    def on_trial(self) -> bool:
        """Whether a suspect entry is still being read."""
        return self._intake.trial.busy

    @property
    def unlisted(self) -> bool:
        """Whether the last `look` could not list everything."""
        return any(task.startswith(LISTING) for task in self.disk.current)

    @property
    def blind(self) -> bool:
        """Whether the last `look` could list nothing of any spool."""
        return self._intake.blind

    @property
    def untaken(self) -> bool:
        """Whether there are records that Kafka has not taken yet."""
        return not all(gate.idle for gate in self._gates.values())

    @property
    def known(self) -> int:
        """Notifications found and still on disk."""
        return len(self._known)

    @property
    def in_flight(self) -> int:
        """Records without an answer."""
        return sum(gate.in_flight for gate in self._gates.values())

    @property
    def refusals(self) -> str:
        """Which topics refuse what waits for them until a person acts, or ""."""
        gates = tuple(self._gates.values())  # asked by the thread of /healthz
        refused = (gate.refusal for gate in gates if gate.refusal and not gate.idle)
        return "; ".join(refused)

    @property
    def stuck(self) -> bool:
        """Whether all that is left waits for the end of a pause after a failure."""
        return not (self._todo or self._due) and all(
            gate.idle or (gate.blocked() and not gate.in_flight)
            for gate in self._gates.values()
        )

    def look(self) -> int:
        """Find what is new on disk; return how much that is.

        What cannot be listed is found by a later look: see `unlisted`.
        """
        if not self._is_note_read:
            with self.disk.caught("reading the note of what was read"):
                self._suspects |= self._note.read()
                self._is_note_read = True
        before = self._rank
        for name, spool in self._intake.names():
            if name not in self._known:
                self._add(name, spool)
        return self._rank - before

    def step(self, wait: float) -> None:
        """Hand over what may go, then wait up to *wait* seconds for reports."""
        now = monotonic()
        for topic, gate in self._gates.items():
            if gate.reopen(now):
                self._metrics.topic_blocked.labels(topic).set(0)
                log.info("topic_retried", topic=topic)
        if self.thinning and self._unthinned:
            self.thin()
        if self._work():
            self._publisher.poll(0)
        else:
            self._intake.trial.rest()
            # Nothing to add: what lingers for company goes out now.
            self._publisher.flush(wait)
        if self._is_note_old:
            self._write_note(())

    def close(self) -> None:
        """Release files and processes; the drain can be used again.

        It then uses what is in the directory of the spool, which may be another one.
        """
        self._intake.trial.close()
        self._note.close()
        self._is_note_read = False

    def thin(self) -> None:
        """Drop waiting status updates that a newer one of the same attack replaces."""
        self._unthinned = False
        for gate in self._gates.values():
            replaced = gate.thin()
            self._to_remove.extend(replaced)
            self._metrics.status_updates_coalesced.inc(len(replaced))

    def retry(self) -> None:
        """Let the next steps try again what the quarantine or the disk refused.

        Of what the quarantine refused only the first, so that thousands that it has no
        room for are not all read again each time.
        """
        for _ in range(min(len(self._held), _AT_ONCE - len(self._to_quarantine))):
            self._to_quarantine.append(self._held.popleft())
        self._todo.extend(self._unread)
        self._unread.clear()
        self._to_remove.extend(self._unremoved)
        self._unremoved.clear()
        if self._is_note_old:  # no step comes where there is nothing to do
            self._write_note(())

    def _work(self) -> int:
        """Do a step's share of what is due; return how much that was."""
        due = _Budget()
        while self._to_remove and due.take():
            self._forget(self._to_remove.popleft())
        while self._to_quarantine and due.take():
            item, reason, told = self._to_quarantine.popleft()
            self._set_aside(item, reason, told=told)
        names = self._next_names()
        if not names:
            return due.taken
        read = _Budget()
        self._write_note(names)
        for gate in tuple(self._gates.values()):
            while gate.waiting and gate.has_room() and read.take():
                self._take(gate.waiting.popleft(), gate)
        # Read on although a topic is full or refuses: what comes next may be for
        # another one, and status updates have to be found to be thinned out.
        while self._todo and read.take():
            self._take(self._todo.popleft(), None)
        # Not reached by a process that an entry kills, or whose code has a fault.
        self._write_note(())
        return due.taken + read.taken

    def _next_names(self) -> list[str]:
        """Return the names of all that this step may read, and a few more."""
        queues = [
            gate.waiting
            for gate in self._gates.values()
            if gate.waiting and gate.has_room()
        ]
        return [
            item.name
            for queue in (*queues, self._todo)
            for item in islice(queue, _AT_ONCE)
        ]

    def _write_note(self, names: Iterable[str]) -> None:
        self._is_note_old = True
        with self.disk.caught("writing the note of what is read"):
            self._note.write({*names, *self._suspects})
            self._is_note_old = False

    def show(self) -> None:
        """Set the gauges."""
        for topic, gate in self._gates.items():
            self._metrics.in_flight.labels(topic).set(gate.in_flight)
        self._metrics.quarantine_full.set(len(self._held))
        self._metrics.io_blocked.set(self.disk_refused)

    def _add(self, name: str, spool: Spool | None) -> None:
        self._known.add(name)
        self._rank += 1
        self._todo.append(PendingEntry(self._rank, name, spool))

    def _gate(self, topic: str) -> TopicQueue:
        gate = self._gates.get(topic)
        if gate is None:
            gate = TopicQueue(self._flight.records, self._flight.size)
            self._gates[topic] = gate
        return gate

    def _take(self, item: PendingEntry, gate: TopicQueue | None) -> None:
        """Read *item* and hand its record over, or let it wait at its gate.

        *gate* is the one at which it waited, or None when it was not read before.
        """
        suspect = item.name in self._suspects
        try:
            record = self._intake.record(item, first=gate is None, suspect=suspect)
        except FileNotFoundError:
            self._gone(item)
            return
        except InvalidNotification as exc:
            self._set_aside(item, exc.as_dict())
            return
        except (InvalidRecord, PoisonEntry) as exc:
            self._set_aside(item, {"reason": str(exc)})
            return
        except SpoolError as exc:
            self._complain("reading an entry", item, exc)
            self._unread.append(item)
            return
        if record is None:
            self._forget(item)
            return
        if gate is None:
            gate = self._gate(record.topic)
            thinned = self.thinning and item.attack is not None
            if gate.waiting or thinned or not gate.has_room():
                gate.waiting.append(item)
                self._unthinned |= item.attack is not None
                return
        self._hand_over(item, record, gate)

    def _hand_over(self, item: PendingEntry, record: Record, gate: TopicQueue) -> None:
        # What librdkafka holds: names of fields may be in a record more than once.
        item.size = max(item.size, len(record.value or b""))
        gate.left(item)
        report = partial(self._answered, item, record.topic, gate)
        try:
            self._publisher.publish(record, report)
        except PublishError as exc:
            report(exc)

    def _answered(
        self,
        item: PendingEntry,
        topic: str,
        gate: TopicQueue,
        error: PublishError | None,
    ) -> None:
        gate.answered(item)
        if error is None:
            gate.succeeded()
            self._acknowledged(item, topic)
        elif error.retryable:
            self._try_again(item, topic, gate, error)
        elif isinstance(error, RecordTooLarge) and not item.shrunk and item.source:
            item.shrunk = True
            gate.waiting.appendleft(item)
        else:
            self._set_aside(item, _refusal(error))

    def _acknowledged(self, item: PendingEntry, topic: str) -> None:
        self._metrics.published.labels(topic).inc()
        log.debug("published", topic=topic, entry=item.name)
        if item.source is None:
            self._forget(item)
            return
        self._metrics.delay.observe(max(time() - item.stored_at, 0.0))
        if item.shrunk:
            self._metrics.truncated.labels(topic).inc()
            reason = {"reason": "published without its packet samples"}
            self._set_aside(item, reason, told=True)
        else:
            self._forget(item)

    def _try_again(
        self, item: PendingEntry, topic: str, gate: TopicQueue, error: PublishError
    ) -> None:
        if not gate.blocked():
            log.warning(
                "topic_refused"
                if isinstance(error, TopicRefused)
                else "publish_failed",
                topic=topic,
                error=error,
                retried=True,
            )
            self._metrics.topic_blocked.labels(topic).set(1)
        self._metrics.retried.labels(topic, type(error).__name__).inc()
        gate.refusal = str(error) if isinstance(error, TopicRefused) else ""
        gate.failed(item, monotonic())

    def _set_aside(
        self, item: PendingEntry, reason: Mapping[str, str], *, told: bool = False
    ) -> None:
        """Put *item* into the quarantine; its dead letter follows unless *told*."""
        if item.source is None:
            # The dead letter itself is refused; the document is in the quarantine.
            log.error("dead_letter_refused", entry=item.name, **reason)
            self._forget(item)
            return
        try:
            entry = item.source.read(item.name)
            self._quarantine.put(entry, reason, published=told)
        except FileNotFoundError:
            self._gone(item)
            return
        except SpoolError as exc:
            self._complain("writing to the quarantine", item, exc)
            self._held.append(_Refused(item, reason, told))
            return
        self._forget(item)
        self._metrics.quarantined.labels("truncated" if told else "refused").inc()
        log.warning("quarantined", entry=item.name, **reason)
        if not told:
            self.refused[item.name] = reason
            self._add(item.name, None)

    def _forget(self, item: PendingEntry) -> None:
        """Remove what is on Kafka or in the quarantine, or a dead letter that is."""
        try:
            self._intake.forget(item)
        except SpoolError as exc:
            # A process that ended for this would publish it once more each time.
            self._complain("removing an entry", item, exc)
            self._unremoved.append(item)
        else:
            self._gone(item)

    def _gone(self, item: PendingEntry) -> None:
        self._known.discard(item.name)
        if item.name in self._suspects:
            self._suspects.discard(item.name)
            self._is_note_old = True

    def _complain(self, task: str, item: PendingEntry, error: SpoolError) -> None:
        self._metrics.disk_errors.labels(task).inc()
        if item.trouble != str(error):
            item.trouble = str(error)
            log.warning(
                "disk_error", task=task, entry=item.name, error=error, retried=True
            )


def _refusal(error: PublishError) -> dict[str, str]:
    return {"reason": f"Kafka refuses it for good: {error}"}
