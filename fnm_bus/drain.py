"""Take what is in the spool to Kafka; the part that the relay and `notify` share.

An entry leaves the disk when Kafka has acknowledged its record, and not before: a
process that dies in between publishes it again, with the same `event_id`.
"""

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic, time
from typing import Final

from fnm_bus.errors import (
    InvalidNotification,
    InvalidRecord,
    PublishError,
    RecordTooLarge,
    SpoolError,
)
from fnm_bus.gate import Gate, Item
from fnm_bus.intake import Intake
from fnm_bus.publish import Publisher
from fnm_bus.record import Record
from fnm_bus.spool import Spool

log = logging.getLogger(__name__)

_AT_ONCE: Final = 256
"""Documents handed over between two looks at the reports."""


@dataclass(frozen=True, slots=True)
class Flight:
    """How much may be in flight for one topic.

    Attributes:
        records: most records.
        size: most bytes, as stored in the spool.
    """

    records: int = 10_000
    size: int = 64 * 1024 * 1024


class Drain:
    """Takes entries from the spools to Kafka.

    Args:
        intake: finds entries and makes records of them.
        publisher: takes the records.
        flight: how much may be in flight.
    """

    def __init__(self, intake: Intake, publisher: Publisher, flight: Flight) -> None:
        self._intake = intake
        self._quarantine = intake.quarantine
        self._metrics = intake.metrics
        self._publisher = publisher
        self._flight = flight
        self._known: set[str] = set()
        self._todo: deque[Item] = deque()
        self._held: list[tuple[Item, Mapping[str, str], bool]] = []
        self._unread: list[Item] = []
        self._unremoved: list[Item] = []
        self._gates: dict[str, Gate] = {}
        self._rank = 0
        self.thinning = False
        """Whether status updates wait to be replaced by newer ones."""
        self.refused: dict[str, Mapping[str, str]] = {}
        """Names of the documents that were refused, with the reason; for `notify`."""

    @property
    def idle(self) -> bool:
        """Whether everything found so far is published or held."""
        left = self._todo or self.disk_refused
        return not left and all(gate.idle for gate in self._gates.values())

    @property
    def disk_refused(self) -> int:
        """How many entries can now be neither read nor removed."""
        return len(self._unread) + len(self._unremoved)

    @property
    def known(self) -> int:
        """Notifications found and still on disk."""
        return len(self._known)

    @property
    def in_flight(self) -> int:
        """Records without an answer."""
        return sum(gate.in_flight for gate in self._gates.values())

    @property
    def stuck(self) -> bool:
        """Whether all that is left waits for the end of a pause after a failure."""
        return not self._todo and all(
            gate.idle or (gate.blocked() and not gate.in_flight)
            for gate in self._gates.values()
        )

    def look(self) -> int:
        """Find what is new on disk; return how much that is."""
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
                log.info("trying again: topic=%s", topic)
        moved = 0
        for gate in tuple(self._gates.values()):
            while gate.waiting and gate.has_room() and moved < _AT_ONCE:
                if self.thinning and gate.waiting[0].attack is not None:
                    self.thin()
                self._take(gate.waiting.popleft(), gate)
                moved += 1
        # Read on although a topic is full or refuses: what comes next may be for
        # another one, and status updates have to be found to be thinned out.
        while self._todo and moved < _AT_ONCE:
            self._take(self._todo.popleft(), None)
            moved += 1
        if moved:
            self._publisher.poll(0)
        else:
            # Nothing to add: what lingers for company goes out now.
            self._publisher.flush(wait)

    def thin(self) -> None:
        """Drop waiting status updates that a newer one of the same attack replaces."""
        for gate in self._gates.values():
            for item in gate.thin():
                self._forget(item)
                self._metrics.status_skipped.inc()

    def retry(self) -> None:
        """Try once more what the quarantine had no room for, and the disk refused."""
        held, self._held = self._held, []
        for item, reason, told in held:
            self._set_aside(item, reason, told=told)
        self._todo.extend(self._unread)
        self._unread.clear()
        unremoved, self._unremoved = self._unremoved, []
        for item in unremoved:
            self._forget(item)

    def show(self) -> None:
        """Set the gauges."""
        for topic, gate in self._gates.items():
            self._metrics.in_flight.labels(topic).set(gate.in_flight)
        self._metrics.held.set(len(self._held))
        self._metrics.disk_refused.set(self.disk_refused)

    def _add(self, name: str, spool: Spool | None) -> None:
        self._known.add(name)
        self._rank += 1
        self._todo.append(Item(self._rank, name, spool))

    def _gate(self, topic: str) -> Gate:
        gate = self._gates.get(topic)
        if gate is None:
            gate = Gate(self._flight.records, self._flight.size)
            self._gates[topic] = gate
        return gate

    def _take(self, item: Item, gate: Gate | None) -> None:
        """Read *item* and hand its record over, or let it wait at its gate.

        *gate* is the one at which it waited, or None when it was not read before.
        """
        try:
            record = self._intake.record(item, first=gate is None)
        except FileNotFoundError:
            self._known.discard(item.name)
            return
        except InvalidNotification as exc:
            self._set_aside(item, exc.as_dict())
            return
        except InvalidRecord as exc:
            self._set_aside(item, {"reason": str(exc)})
            return
        except SpoolError as exc:
            self._complain("cannot be read", item, exc)
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
                return
        self._hand_over(item, record, gate)

    def _hand_over(self, item: Item, record: Record, gate: Gate) -> None:
        gate.left(item)
        report = partial(self._answered, item, record.topic, gate)
        try:
            self._publisher.publish(record, report)
        except PublishError as exc:
            report(exc)

    def _answered(
        self, item: Item, topic: str, gate: Gate, error: PublishError | None
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

    def _acknowledged(self, item: Item, topic: str) -> None:
        self._metrics.published.labels(topic).inc()
        if item.source is None:
            self._quarantine.told(item.name)
            self._known.discard(item.name)
            return
        self._metrics.delay.observe(max(time() - item.stored_at, 0.0))
        if item.shrunk:
            self._metrics.truncated.labels(topic).inc()
            reason = {"reason": "published without its packet samples"}
            self._set_aside(item, reason, told=True)
        else:
            self._forget(item)

    def _try_again(
        self, item: Item, topic: str, gate: Gate, error: PublishError
    ) -> None:
        if not gate.blocked():
            log.warning("not taken, will be tried again: %s", error)
            self._metrics.topic_blocked.labels(topic).set(1)
        self._metrics.retried.labels(topic, type(error).__name__).inc()
        gate.failed(item, monotonic())

    def _set_aside(
        self, item: Item, reason: Mapping[str, str], *, told: bool = False
    ) -> None:
        """Put *item* into the quarantine; its dead letter follows unless *told*."""
        if item.source is None:
            # The dead letter itself is refused; the document is in the quarantine.
            log.error("no dead letter: entry=%s %s", item.name, reason["reason"])
            self._quarantine.told(item.name)
            self._known.discard(item.name)
            return
        try:
            entry = item.source.read(item.name)
            self._quarantine.put(entry, reason, told=told)
        except FileNotFoundError:
            self._known.discard(item.name)
            return
        except SpoolError as exc:
            log.warning("kept in the spool: entry=%s %s", item.name, exc)
            self._held.append((item, reason, told))
            return
        self._forget(item)
        self._metrics.quarantined.labels("truncated" if told else "refused").inc()
        log.warning("quarantined: entry=%s %s", item.name, reason["reason"])
        if not told:
            self.refused[item.name] = reason
            self._add(item.name, None)

    def _forget(self, item: Item) -> None:
        try:
            self._intake.forget(item)
        except SpoolError as exc:
            # It is on Kafka. A process that ended for this would publish it once more
            # with each start.
            self._complain("cannot be removed", item, exc)
            self._unremoved.append(item)
        else:
            self._known.discard(item.name)

    def _complain(self, what: str, item: Item, error: SpoolError) -> None:
        if item.trouble != str(error):
            item.trouble = str(error)
            log.warning("%s, will be tried again: %s", what, error)


def _refusal(error: PublishError) -> dict[str, str]:
    return {"reason": f"Kafka refuses it for good: {error}"}
