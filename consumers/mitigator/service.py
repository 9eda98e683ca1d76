"""Mitigator: events and commands in, the wanted state out.

    stand by ▶ elected ▶ fence ▶ take over ▶ events ▶ decide ▶ commit
        ▲                                                        │
        └─────── overtaken, or the transaction failed ◀──────────┘

After any failure nothing is half done: the state is discarded and read again from what
was committed. Active mitigations continue meanwhile until their leases expire.
"""

import logging
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Final

from confluent_kafka import KafkaException, Message

from consumers.errors import RecordsRefused
from consumers.metrics import MitigatorMetrics
from consumers.mitigation.clock import BrokerClock
from consumers.mitigation.clock import now as boottime
from consumers.mitigator.context import DecisionContext
from consumers.mitigator.decisions.decide import apply_event
from consumers.mitigator.decisions.expire import expire_leases, start_proposals
from consumers.mitigator.decisions.operator_commands import apply_command
from consumers.mitigator.decisions.received_command import ReceivedCommand
from consumers.mitigator.decisions.takeover import take_over
from consumers.mitigator.kafka.batch import Batch
from consumers.mitigator.kafka.breaker import Breaker
from consumers.mitigator.kafka.leader_election import LeaderElection
from consumers.mitigator.kafka.leftovers import Leftovers
from consumers.mitigator.kafka.stored_state import (
    StoredState,
    read_state,
    with_remaining_lease,
)
from consumers.mitigator.kafka.transaction import (
    MAX_EVENTS,
    PartitionId,
    TransactionalJournal,
    partition_id,
)
from consumers.mitigator.state.next_record import Moment
from consumers.mitigator.state.state import State
from consumers.mitigator.state.transition import Transition
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import (
    BrokerUnavailable,
    ConfigError,
    InvalidRecord,
    RegistryError,
    SchemaError,
    TopicRefused,
)
from fnm_bus.event import Command, Event, HostEvent, HostgroupEvent, StatusEvent
from fnm_bus.kafka.dead_letter import build_dead_letter
from fnm_bus.kafka.reader import record_time
from fnm_bus.kafka.record import Record
from fnm_bus.kafka.route import Topics, derived_id, headers_for
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_POLL: Final = 0.1
_TICK: Final = 1.0
"""Seconds between two looks at the leases."""
_COMMIT: Final = 5.0
"""Seconds after which offsets are committed although nothing changed."""
_LOOK: Final = 30.0
"""Seconds between two looks at how many partitions the topics have."""
_SETTLED: Final = 120.0
"""Seconds after which every reader knows that a topic has more partitions."""
_PAUSE: Final = 1.0
"""Seconds before the next attempt after a failure; twice as many after the next."""
_MAX_PAUSE: Final = 8.0
_BACK: Final = timedelta(minutes=10)
"""How far back the first mitigator ever reads; older events start nothing anyway."""
_MAX_KEY: Final = 1_000
_ONE_BY_ONE: Final = 2 * MAX_EVENTS
"""Events that are committed one by one after Kafka refused a record."""
_NOT_OF_AN_EVENT: Final = (KafkaException, MemoryError, OSError, BrokerUnavailable)
"""Errors that belong to no event: nothing is committed."""


@dataclass
class Mitigator:
    """Decides, while it is the active one.

    Attributes:
        settings: librdkafka's settings.
        name: transactional id; mitigators with one name fence each other.
        topics: names of the topics.
        codec: reads and writes records.
        context: what is decided by.
        metrics: its metrics.
        once: whether to end when everything on the topics is dealt with.
        leading: whether it is the active one and has read the whole state.
        problem: why it cannot work now, or "".
        turned_at: when its loop ran last, on the monotonic clock.
    """

    settings: Mapping[str, str]
    name: str
    topics: Topics
    codec: Codec
    context: DecisionContext
    metrics: MitigatorMetrics
    once: bool = False
    leading: bool = False
    problem: str = ""
    turned_at: float = field(default_factory=monotonic)
    _broker: BrokerClock = field(default_factory=BrokerClock)
    _breaker: Breaker = field(default_factory=Breaker)
    _single: int = 0
    _leftovers: Leftovers = field(default_factory=Leftovers)
    _failures: int = 0
    _election: LeaderElection | None = None
    _unreadable: dict[PartitionId, str] = field(default_factory=dict)
    _current: Message | None = None
    _refused: set[tuple[PartitionId, int]] = field(default_factory=set)
    _stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Stand by, and lead while elected, until `stop`.

        Raises:
            ConfigError: the settings or the transactional id cannot be used.
        """
        election = LeaderElection(
            self.settings, f"{self.name}-election", self.topics.command
        )
        self._election = election
        if not self.once:  # the fence is enough for one that does not stay
            election.open()
            log.info("standby")
        try:
            while not self._stopping.is_set():
                self.turned_at = monotonic()
                if not self.once and not election.poll(_POLL):
                    self.problem = ""  # another one is active
                    continue
                try:
                    self._lead(election)
                except ConfigError:
                    raise
                except RecordsRefused as exc:
                    self._look_for_refused()
                    self._fail(exc)
                except (*_NOT_OF_AN_EVENT, TopicRefused) as exc:
                    self._fail(exc)
                except Exception as exc:
                    log.exception("unexpected error outside of an event")
                    self._fail(exc)
                self._set_leading(active=False)
        finally:
            election.close()

    def stop(self) -> None:
        """Ask `run` to end; may be called from a signal handler."""
        self._stopping.set()

    def healthy(self) -> bool:
        """Return whether it can do its work now, as the active one or standing by."""
        return not self._current_problem()

    def facts(self) -> Mapping[str, object]:
        """Return what /healthz shows."""
        return {"active": self.leading, "problem": self._current_problem()}

    def _current_problem(self) -> str:
        election = self._election
        return self.problem or (election.problem if election else "")

    def _fail(self, error: Exception) -> None:
        self.metrics.state_reloads.inc()
        self.problem = f"{type(error).__name__}: {error}"[:500]
        log.warning("starting over: %s", self.problem)
        self._stopping.wait(min(_PAUSE * 2**self._failures, _MAX_PAUSE))
        self._failures = min(self._failures + 1, 8)

    # -- leading ---------------------------------------------------------------

    def _lead(self, election: LeaderElection) -> None:
        names = self.topics
        inputs = (names.command, names.host, names.hostgroup, names.status)
        compacted = names.reason, names.mitigation
        journal = TransactionalJournal(
            self.settings, self.name, inputs, self._broker, compacted
        )
        try:
            journal.open(None if self.once else datetime.now(UTC) - _BACK)
            journal.fence()
            self._learn_time(journal)
            state = self._take_over(journal)
            self.problem = ""
            self._set_leading(active=True)
            log.info("active", mitigations=len(state.active()))
            self._decide(journal, state, election)
        finally:
            journal.close()

    def _learn_time(self, journal: TransactionalJournal) -> None:
        """Write a record whose answer holds the broker's time."""
        batch, transition = self._batch(), self._begin(self._empty())
        transition.add_audit("started", "reading the reasons and mitigations")
        batch.add(transition)
        journal.commit(batch.records())

    def _take_over(self, journal: TransactionalJournal) -> State:
        """Read the state, and write what differs from what follows from it."""
        stored = read_state(self.settings, self.topics, is_stopping=self._is_stopping)
        # A tombstone for a leftover could meet the key's only live record otherwise.
        journal.check_counts(stored.partitions)
        latest = stored.latest()
        if latest is not None:
            self._broker.witness(latest.timestamp())
        for key, error in stored.unreadable:
            self.metrics.unreadable_records.inc()
            log.error("left out: %s: %s", key, error)
        state = stored.restore(self.context, self._moment())
        self._move(journal, stored)
        batch = self._batch()
        for transition in take_over(state, lambda: self._begin(state)):
            _add(batch, transition)
            if batch.is_full:
                self._commit(journal, batch, logging.DEBUG)
                batch = self._batch()
        # The audit topic has each change; thousands of lines would hide the next one.
        self._commit(journal, batch, logging.DEBUG)
        return state

    def _move(self, journal: TransactionalJournal, stored: StoredState) -> None:
        """Write records to where their keys are now; what they leave goes later.

        A topic was given more partitions. Readers that know the old ones only would
        take a tombstone for the end of a mitigation.
        """
        now = self._moment().now
        moved = []
        for topic, key, record in stored.misplaced:
            content = with_remaining_lease(record, now)
            name = derived_id("moved", topic, key.hex(), record.at.isoformat())
            headers = headers_for(content, self.name, name, now)
            value = self.codec.encode(content, topic)
            moved.append(Record(topic, key, value, headers))
        for first in range(0, len(moved), MAX_EVENTS):
            journal.commit(moved[first : first + MAX_EVENTS])
        self._leftovers = Leftovers(stored.leftovers, monotonic() + _SETTLED)
        if self._leftovers:
            log.warning(
                "topics have more partitions: records moved=%d; %d left behind get"
                " tombstones in %.0f s",
                len(stored.misplaced),
                len(self._leftovers),
                _SETTLED,
            )

    def _clean(self, journal: TransactionalJournal) -> None:
        """Write tombstones to the partitions that keys have left."""
        if self._leftovers.is_due(monotonic()):
            journal.check_partitions()
            journal.commit(self._leftovers.take(MAX_EVENTS))

    def _is_stopping(self) -> bool:
        self.turned_at = monotonic()
        return self._stopping.is_set()

    def _decide(
        self, journal: TransactionalJournal, state: State, election: LeaderElection
    ) -> None:
        tick = committed = looked = monotonic()
        due = False
        while not self._stopping.is_set() and (self.once or election.poll(0)):
            self.turned_at = monotonic()
            limit = 1 if self._single else MAX_EVENTS
            messages = journal.read(0 if due else _POLL, limit)
            batch = self._batch()
            for message in messages:
                self._take(journal, state, batch, message)
                if batch.is_full:
                    self._commit(journal, batch)
                    batch = self._batch()
            if self._single and batch:  # what Kafka refuses is then the event's own
                self._commit(journal, batch)
                batch = self._batch()
            second = monotonic() - tick >= _TICK  # however much is due
            if due or second:
                due = self._pass_time(journal, state, batch, second=second)
            if second:
                tick = monotonic()
            old = journal.pending and monotonic() - committed >= _COMMIT
            if batch or old:
                committed = monotonic()
                self._commit(journal, batch)
                self._failures = 0
            self._single = max(self._single - len(messages), 0)
            self._clean(journal)
            if monotonic() - looked >= _LOOK:
                looked = monotonic()
                journal.check_partitions()
            if self.once and not messages and not due and journal.is_caught_up():
                self.stop()

    def _take(
        self,
        journal: TransactionalJournal,
        state: State,
        batch: Batch,
        message: Message,
    ) -> None:
        """Let one message count; one that cannot becomes a dead letter."""
        if journal.is_paused(message):
            return
        place = partition_id(message)
        if self._breaker.is_open(place, boottime()):
            journal.hold(message)
            return
        self._current = message
        transition = self._begin(state)
        try:
            self._apply(transition, journal, message)
            batch.add(transition)
        except RegistryError as exc:
            transition.rollback()
            log.warning("%s: cannot be read now: %s", message.topic(), exc)
            self._unreadable[place] = str(exc)
            journal.hold(message)
            return
        except (*_NOT_OF_AN_EVENT, ConfigError):
            raise
        except (InvalidRecord, SchemaError) as exc:
            transition.rollback()
            self._bury(batch, message, str(exc))
        except Exception as exc:
            transition.rollback()
            log.exception("%s@%s", message.topic(), message.offset())
            self.metrics.unexpected_errors.inc()
            self._breaker.count(place, boottime())
            self._bury(batch, message, f"unexpected {type(exc).__name__}: {exc}")
        journal.done(message)

    def _apply(
        self, transition: Transition, journal: TransactionalJournal, message: Message
    ) -> None:
        if (partition_id(message), message.offset() or 0) in self._refused:
            raise InvalidRecord("Kafka refuses the records that follow from it")
        event = self.codec.decode(message.value())
        self.metrics.events.labels(message.topic()).inc()
        names = self.topics
        # Who may write to one topic may not do what another one is for.
        match event, message.topic():
            case HostEvent(), names.host:
                apply_event(transition, event)
            case HostgroupEvent(), names.hostgroup:
                apply_event(transition, event)
            case StatusEvent(), names.status:
                bans = (names.host, names.hostgroup)
                apply_event(transition, event, behind=lambda: journal.is_behind(bans))
            case Command(), names.command:
                at = record_time(message.timestamp()[1])
                apply_command(
                    transition, ReceivedCommand(event, at, message.offset() or 0)
                )
            case _, topic:
                raise InvalidRecord(
                    f"a {type(event).__name__} on {topic} is not for it"
                )
        if isinstance(event, Event):
            age = transition.moment.now - event.receipt.received_at
            self.metrics.delay.observe(max(age.total_seconds(), 0))

    def _pass_time(
        self, journal: TransactionalJournal, state: State, batch: Batch, *, second: bool
    ) -> bool:
        """Expire leases, start what waits; return whether more is due already."""

        def new_transition() -> Transition:
            return self._begin(state)

        count = 0
        for transition in expire_leases(state, new_transition):
            batch.add(transition)
            count += 1
        if second:
            for transition in start_proposals(state, new_transition):
                batch.add(transition)
            self._show(state)
            self._unreadable.clear()  # until it is tried again
            journal.release()
        return count > 0

    def _look_for_refused(self) -> None:
        """Find the event whose records Kafka refuses: alone in a transaction."""
        if self._single and self._current is not None:
            place, offset = partition_id(self._current), self._current.offset() or 0
            self._refused.add((place, offset))
        self._single = _ONE_BY_ONE
        self._current = None

    def _commit(
        self, journal: TransactionalJournal, batch: Batch, level: int = logging.INFO
    ) -> None:
        # A leftover would be what the next takeover finds of a key that ended.
        journal.commit(self._leftovers.with_tombstones(batch.records()))
        self._current = None
        for audit in batch.audits:
            self.metrics.decisions.labels(audit.action).inc()
            log.log(
                level,
                audit.action,
                mitigation=audit.key,
                target=None if audit.key else audit.target,
                text=audit.text,
            )

    def _bury(self, batch: Batch, message: Message, reason: str) -> None:
        """Add a dead letter for a message that cannot be processed."""
        self.metrics.dead_letters.inc()
        log.warning(
            "dead_letter",
            topic=message.topic(),
            offset=message.offset(),
            reason=reason,
        )
        place, offset = partition_id(message), message.offset() or 0
        self._refused.discard((place, offset))
        letter = build_dead_letter(message, reason, 1, self.name)
        topic = self.topics.deadletter
        name = f"{place[0]}/{place[1]}@{offset}"
        headers = headers_for(letter, self.name, name, letter.failed_at)
        value = self.codec.encode(letter, topic)
        batch.append(Record(topic, (message.key() or b"")[:_MAX_KEY], value, headers))

    # -- helpers ---------------------------------------------------------------

    def _begin(self, state: State) -> Transition:
        return Transition(self.context, state, self._moment())

    def _moment(self) -> Moment:
        return Moment(boottime(), self._broker.datetime())

    def _batch(self) -> Batch:
        return Batch(self.topics, self.codec, self.name)

    def _empty(self) -> State:
        networks = self.context.policy.limits.own_networks
        return State(networks, dry_run=self.context.dry_run)

    def _set_leading(self, *, active: bool) -> None:
        self.leading = active
        self.metrics.active.set(active)

    def _show(self, state: State) -> None:
        counts = Counter((record.kind, record.state) for record in state.active())
        self.metrics.mitigations.clear()
        for (kind, name), number in counts.items():
            self.metrics.mitigations.labels(kind, name).set(number)
        self.metrics.paused.set(state.paused)
        self.metrics.reasons.set(len(state.reasons))
        held = self._breaker.open_partitions(boottime())
        self.metrics.suspended_partitions.set(len(held))
        names = ", ".join(f"{topic}/{number}" for topic, number in held)
        problems = [f"too many unexpected errors: {names}"] if held else []
        problems += [f"{topic}: {why}" for (topic, _), why in self._unreadable.items()]
        self.problem = "; ".join(dict.fromkeys(problems))[:500]


def _add(batch: Batch, transition: Transition) -> None:
    """Add a change that no event led to; one that cannot be encoded is undone."""
    try:
        batch.add(transition)
    except InvalidRecord:
        log.exception(
            "left as it was: %s", [*transition.mitigations, *transition.reasons][:1]
        )
        transition.rollback()
