"""Mitigator: events and commands in, the wanted state out.

    stand by ▶ elected ▶ fence ▶ read the wanted state ▶ events ▶ judge ▶ commit
        ▲                                                                   │
        └──────────── overtaken, or the transaction failed ◀────────────────┘

Whatever fails, nothing is half done: the state is thrown away and read anew from what
was committed. Mitigations that stand meanwhile go on until their leases end.
"""

import logging
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Final

from confluent_kafka import Message

from consumers.metrics import MitigatorMetrics
from consumers.mitigation.clock import now as boottime
from consumers.mitigator.election import Election
from consumers.mitigator.journal import Fenced, Journal
from consumers.mitigator.judge import judge, review
from consumers.mitigator.lapse import lapse
from consumers.mitigator.orders import obey
from consumers.mitigator.state import State, rebuilt
from consumers.mitigator.turn import Terms, Turn
from consumers.policy.facts import facts_of
from fnm_bus.codec import Codec
from fnm_bus.deadletter import letter_of
from fnm_bus.errors import (
    BrokerUnavailable,
    InvalidRecord,
    RegistryError,
    TopicRefused,
)
from fnm_bus.event import (
    Command,
    HostEvent,
    HostgroupEvent,
    Mitigation,
    StatusEvent,
)
from fnm_bus.reader import Reader
from fnm_bus.record import Record
from fnm_bus.route import Topics

log = logging.getLogger(__name__)

_POLL: Final = 0.1
_TICK: Final = 1.0
"""Seconds between two looks at the leases."""
_COMMIT: Final = 5.0
"""Seconds after which offsets are committed although nothing changed."""
_PAUSE: Final = 1.0
"""Seconds before beginning anew after a failure."""
_BACK: Final = timedelta(minutes=10)
"""How far back the first mitigator ever looks; older events start nothing anyway."""


@dataclass
class Mitigator:
    """Decides, while it is the active one.

    Attributes:
        settings: librdkafka's settings.
        name: transactional id; mitigators with one name fence each other.
        topics: names of the topics.
        codec: reads and writes records.
        terms: what is decided by.
        metrics: its figures.
        once: whether to end when all that stands on the topics is dealt with.
        leading: whether it is the active one and has read the whole state.
        turned_at: when its loop turned last, on the monotonic clock.
    """

    settings: Mapping[str, str]
    name: str
    topics: Topics
    codec: Codec
    terms: Terms
    metrics: MitigatorMetrics
    once: bool = False
    leading: bool = False
    turned_at: float = field(default_factory=monotonic)
    _stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Stand by, and lead while elected, until `stop`.

        Raises:
            ConfigError: librdkafka refuses the settings.
        """
        election = Election(self.settings, f"{self.name}-election", self.topics.command)
        if not self.once:  # the fence is enough for who does not stay
            election.open()
            log.info("standing by")
        try:
            while not self._stopping.is_set():
                self.turned_at = monotonic()
                if not self.once and not election.poll(_POLL):
                    continue
                try:
                    self._lead(election)
                except (BrokerUnavailable, TopicRefused) as exc:
                    self.metrics.begun_anew.inc()
                    log.warning("beginning anew: %s", exc)
                    self._stopping.wait(_PAUSE)
                self._leads(on=False)
        finally:
            election.close()

    def stop(self) -> None:
        """Ask `run` to end; may be called from a signal handler."""
        self._stopping.set()

    def _lead(self, election: Election) -> None:
        it = self.topics
        inputs = (it.host, it.hostgroup, it.status, it.command)
        journal = Journal(self.settings, self.name, inputs)
        try:
            journal.fence()
            state = rebuilt(self._records(), self.terms.policy.limits.own)
            journal.open(None if self.once else datetime.now(UTC) - _BACK)
            clock = _Clock()
            self._leads(on=True)
            log.info("active: mitigations=%d", len(state.standing()))
            turn = self._turn(state, clock)
            review(turn)
            if turn.changes:
                self._commit(journal, turn, [])
            self._decide(journal, state, clock, election)
        finally:
            journal.close()

    def _decide(
        self, journal: Journal, state: State, clock: "_Clock", election: Election
    ) -> None:
        tick = commit = monotonic()
        while not self._stopping.is_set() and (self.once or election.poll(0)):
            self.turned_at = monotonic()
            messages = journal.read(_POLL)
            turn = self._turn(state, clock)
            letters = [it for one in messages for it in self._take(journal, turn, one)]
            if monotonic() - tick >= _TICK:
                tick = monotonic()
                lapse(turn)
                self._show(state)
                journal.resume()
            old = journal.pending and monotonic() - commit >= _COMMIT
            if turn.changes or turn.audits or letters or old:
                commit = monotonic()
                self._commit(journal, turn, letters)
            if self.once and not messages and journal.caught_up():
                self.stop()

    def _take(self, journal: Journal, turn: Turn, message: Message) -> Iterator[Record]:
        """Let one message count; yield a dead letter if nobody can read it."""
        if journal.held(message):
            return
        try:
            event = self.codec.decode(message.value())
        except RegistryError as exc:
            log.warning("%s: cannot be read now: %s", message.topic(), exc)
            journal.again(message)
            return
        except InvalidRecord as exc:
            self.metrics.dead_letters.inc()
            log.warning("%s: dead letter: %s", message.topic(), exc)
            yield self._dead_letter(message, str(exc))
        else:
            self.metrics.events.labels(message.topic()).inc()
            match event:
                case HostEvent() | HostgroupEvent() | StatusEvent():
                    for facts in facts_of(event):
                        judge(turn, facts)
                    age = (turn.wall - event.receipt.received_at).total_seconds()
                    self.metrics.delay.observe(max(age, 0))
                case Command():
                    obey(turn, event)
        journal.done(message)

    def _commit(self, journal: Journal, turn: Turn, letters: list[Record]) -> None:
        journal.commit([*self._of(turn), *letters])
        for it in turn.audits:
            self.metrics.decisions.labels(it.what).inc()
            log.info("%s: %s %s", it.what, it.key or it.target or "", it.text)

    def _of(self, turn: Turn) -> Iterator[Record]:
        at = self.topics.mitigation
        for key, it in turn.changes.items():
            value = None if it is None else self.codec.encode(it, at)
            yield Record(at, key.encode(), value)
        at = self.topics.audit
        for audit in turn.audits:
            about = audit.key or audit.target or ""
            yield Record(at, about.encode(), self.codec.encode(audit, at))

    def _records(self) -> Iterator[tuple[str, Mitigation | None]]:
        topic = self.topics.mitigation
        with Reader(self.settings, [topic], self.codec, from_beginning=True) as reader:
            while not reader.at_end:
                self.turned_at = monotonic()
                if self._stopping.is_set():
                    raise Fenced("stopping")
                for it in reader.read(1.0):
                    key = (it.key or b"").decode(errors="replace")
                    if not it.value:
                        yield key, None
                    elif isinstance(it.event, Mitigation):
                        yield key, it.event
                    else:
                        # The record before it counts on, until its lease ends.
                        log.error("%s@%d: left out: %s", topic, it.offset, it.error)

    def _dead_letter(self, message: Message, reason: str) -> Record:
        letter = letter_of(message, reason, 1, self.name)
        topic = self.topics.deadletter
        return Record(topic, message.key(), self.codec.encode(letter, topic))

    def _turn(self, state: State, clock: "_Clock") -> Turn:
        return Turn(self.terms, state, clock.now(), datetime.now(UTC))

    def _leads(self, *, on: bool) -> None:
        self.leading = on
        self.metrics.active.set(on)

    def _show(self, state: State) -> None:
        found = Counter((it.kind, it.state) for it in state.standing())
        self.metrics.standing.clear()
        for (kind, name), count in found.items():
            self.metrics.standing.labels(kind, name).set(count)
        self.metrics.paused.set(state.paused)


class _Clock:
    """Time that goes on evenly from the wall clock at the start."""

    def __init__(self) -> None:
        self._start = datetime.now(UTC) - timedelta(seconds=boottime())

    def now(self) -> datetime:
        return self._start + timedelta(seconds=boottime())
