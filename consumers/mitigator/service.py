"""Mitigator: events and commands in, the wanted state out.

    stand by ▶ elected ▶ fence ▶ take over ▶ events ▶ decide ▶ commit
        ▲                                                        │
        └── another mitigator is active, or the commit failed ◀──┘

After any failure the state is discarded, and read again from the committed records.
Active mitigations continue meanwhile until their leases expire.
"""

import logging
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic
from typing import Final

from confluent_kafka import Message

from consumers.errors import RecordsRefused
from consumers.metrics import MitigatorMetrics
from consumers.mitigation.clock import BrokerClock
from consumers.mitigation.clock import now as boottime
from consumers.mitigator.context import DecisionContext, Moment
from consumers.mitigator.decisions.expire import expire_leases, start_proposals
from consumers.mitigator.decisions.takeover import take_over
from consumers.mitigator.kafka.batch import Batch
from consumers.mitigator.kafka.input_reader import MAX_EVENTS
from consumers.mitigator.kafka.leader_election import LeaderElection
from consumers.mitigator.kafka.leftovers import Leftovers
from consumers.mitigator.kafka.stored_state import (
    StoredState,
    moved_records,
    read_state,
)
from consumers.mitigator.kafka.transaction import TransactionalJournal
from consumers.mitigator.message_processor import ENVIRONMENT_ERRORS, MessageProcessor
from consumers.mitigator.state.state import State
from consumers.mitigator.state.transition import Transition
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import ConfigError, InvalidRecord, TopicRefused
from fnm_bus.kafka.addressing import Topics
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_POLL: Final = 0.1
_TICK: Final = 1.0
"""Seconds between two checks of the leases."""
_COMMIT: Final = 5.0
"""Seconds after which offsets without records are committed."""
_PARTITION_CHECK: Final = 30.0
"""Seconds between two checks of the topics' numbers of partitions."""
_SETTLED: Final = 120.0
"""Seconds after which every reader has a topic's new partitions."""
_PAUSE: Final = 1.0
"""Seconds before the attempt after a failure; doubled after each further one."""
_MAX_PAUSE: Final = 8.0
_MAX_AGE: Final = timedelta(minutes=10)
"""Age of the oldest events that the first mitigator reads; older ones start nothing."""


@dataclass
class Mitigator:
    """Decides while it is active; stands by otherwise.

    Attributes:
        name: transactional id; of the mitigators with one name, one can write.
        once: whether to stop after the last message of every topic.
        leading: whether it is active and has read the whole state.
        problem: why it cannot work now, or "".
        iterated_at: when its loop ran last, on the monotonic clock.
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
    iterated_at: float = field(default_factory=monotonic)
    _processor: MessageProcessor = field(init=False)
    _broker: BrokerClock = field(default_factory=BrokerClock)
    _leftovers: Leftovers = field(default_factory=Leftovers)
    _failures: int = 0
    _election: LeaderElection | None = None
    _stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        """Build the parts that need the other fields."""
        self._processor = MessageProcessor(
            self.topics, self.codec, self.name, self.metrics, self._new_transition
        )

    def run(self) -> None:
        """Stand by, and lead while elected, until `stop`.

        Raises:
            ConfigError: the settings or the transactional id cannot be used.
        """
        election = LeaderElection(
            self.settings, f"{self.name}-election", self.topics.command
        )
        self._election = election
        if not self.once:  # a run that stops by itself needs the fence only
            election.open()
            log.info("standby")
        try:
            while not self._stopping.is_set():
                self.iterated_at = monotonic()
                if not self.once and not election.poll(_POLL):
                    self.problem = ""  # another mitigator is active
                    continue
                try:
                    self._lead(election)
                except ConfigError:
                    raise
                except RecordsRefused as exc:
                    self._processor.isolate_messages()
                    self._fail(exc)
                except (*ENVIRONMENT_ERRORS, TopicRefused) as exc:
                    self._fail(exc)
                except Exception as exc:
                    log.exception("iteration_failed")
                    self._fail(exc)
                self._set_leading(active=False)
        finally:
            election.close()

    def stop(self) -> None:
        """End `run` soon; may be called from a signal handler."""
        self._stopping.set()

    def health(self) -> tuple[bool, Mapping[str, object]]:
        """Return whether it can work now, active or standing by; values to show."""
        election = self._election
        problem = self.problem or (election.problem if election else "")
        return not problem, {"active": self.leading, "problem": problem}

    def _fail(self, error: Exception) -> None:
        self.metrics.state_reloads.inc()
        self.problem = f"{type(error).__name__}: {error}"[:500]
        log.warning("state_reloaded", problem=self.problem)
        self._stopping.wait(min(_PAUSE * 2**self._failures, _MAX_PAUSE))
        self._failures = min(self._failures + 1, 8)

    # -- leading ---------------------------------------------------------------

    def _lead(self, election: LeaderElection) -> None:
        topics = self.topics
        journal = TransactionalJournal(
            self.settings,
            self.name,
            (topics.command, topics.host, topics.hostgroup, topics.status),
            self._broker,
            compacted=(topics.reason, topics.mitigation),
        )
        try:
            journal.open(None if self.once else datetime.now(UTC) - _MAX_AGE)
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
        """Write a record, because Kafka's answer contains the broker's time."""
        networks = self.context.policy.limits.own_networks
        state = State(networks, dry_run=self.context.dry_run)
        batch, transition = self._new_batch(), self._new_transition(state)
        transition.add_audit("started", "reading the reasons and mitigations")
        batch.add(transition)
        journal.commit(batch.records())

    def _take_over(self, journal: TransactionalJournal) -> State:
        """Read the state, and write the differences that the policy requires."""
        stored = read_state(self.settings, self.topics, is_stopping=self._is_stopping)
        # Otherwise a leftover's tombstone could delete the key's only active record.
        journal.check_counts(stored.partitions)
        if latest := stored.latest():
            self._broker.witness(latest.timestamp())
        for key, error in stored.unreadable:
            self.metrics.unreadable_records.inc()
            log.error("record_left_out", key=key, error=error)
        state = stored.restore(self.context, self._moment())
        self._move(journal, stored)
        batch = self._new_batch()
        # The audit topic has each change; in the log, thousands of lines would hide the
        # next one.
        for transition in take_over(state, lambda: self._new_transition(state)):
            _add_safely(batch, transition)
            if batch.is_full:
                self._commit(journal, batch, logging.DEBUG)
                batch = self._new_batch()
        self._commit(journal, batch, logging.DEBUG)
        return state

    def _move(self, journal: TransactionalJournal, stored: StoredState) -> None:
        """Write misplaced records to their keys' partitions, after a topic grew.

        The leftovers get tombstones later: a reader without the new partitions would
        take a tombstone for the end of a mitigation.
        """
        moved = moved_records(stored, self.codec, self.name, self._moment().now)
        for first in range(0, len(moved), MAX_EVENTS):
            journal.commit(moved[first : first + MAX_EVENTS])
        self._leftovers = Leftovers(stored.leftovers, monotonic() + _SETTLED)
        if self._leftovers:
            log.warning(
                "records_moved_to_new_partitions",
                records=len(moved),
                leftovers=len(self._leftovers),
                seconds_until_tombstones=_SETTLED,
            )

    def _delete_leftovers(self, journal: TransactionalJournal) -> None:
        """Write tombstones to the partitions that keys have left."""
        if self._leftovers.is_due(monotonic()):
            journal.check_partitions()
            journal.commit(self._leftovers.take(MAX_EVENTS))

    def _is_stopping(self) -> bool:
        self.iterated_at = monotonic()
        return self._stopping.is_set()

    def _decide(
        self, journal: TransactionalJournal, state: State, election: LeaderElection
    ) -> None:
        processor = self._processor
        new_transition = partial(self._new_transition, state)
        ticked = committed = checked = monotonic()
        is_due = False
        while not self._stopping.is_set() and (self.once or election.poll(0)):
            self.iterated_at = monotonic()
            limit = 1 if processor.isolated else MAX_EVENTS
            messages = journal.inputs.read(0 if is_due else _POLL, limit)
            batch = self._process(journal, state, messages)
            is_tick = monotonic() - ticked >= _TICK  # even while leases are due
            if is_due or is_tick:
                is_due = False
                for transition in expire_leases(state, new_transition):
                    batch.add(transition)
                    is_due = True  # more may be due already
            if is_tick:
                self._start_proposals(journal, state, batch)
                ticked = monotonic()
            is_old = journal.has_offsets and monotonic() - committed >= _COMMIT
            if batch or is_old:
                committed = monotonic()
                self._commit(journal, batch)
                self._failures = 0
            processor.isolated = max(processor.isolated - len(messages), 0)
            self._delete_leftovers(journal)
            if monotonic() - checked >= _PARTITION_CHECK:
                checked = monotonic()
                journal.check_partitions()
            is_idle = not messages and not is_due
            if self.once and is_idle and journal.inputs.is_caught_up():
                self.stop()

    def _process(
        self, journal: TransactionalJournal, state: State, messages: list[Message]
    ) -> Batch:
        """Process messages; return the records that are not committed yet."""
        batch, processor = self._new_batch(), self._processor
        for message in messages:
            processor.process(journal, state, batch, message)
            if batch.is_full:
                self._commit(journal, batch)
                batch = self._new_batch()
        if processor.isolated and batch:  # so that a refusal has one possible cause
            self._commit(journal, batch)
            batch = self._new_batch()
        return batch

    def _start_proposals(
        self, journal: TransactionalJournal, state: State, batch: Batch
    ) -> None:
        """Start proposals that limits allow now, and read paused partitions again."""
        for transition in start_proposals(state, lambda: self._new_transition(state)):
            batch.add(transition)
        self._update_metrics(state)
        self._processor.unreadable.clear()
        journal.inputs.resume()

    def _commit(
        self, journal: TransactionalJournal, batch: Batch, level: int = logging.INFO
    ) -> None:
        # Without its tombstone, the next takeover would read an ended key's leftover.
        journal.commit(self._leftovers.with_tombstones(batch.records()))
        self._processor.current = None
        for audit in batch.audits:
            self.metrics.decisions.labels(audit.action).inc()
            log.log(
                level,
                "audit_record",
                action=audit.action,
                mitigation=audit.key,
                target=None if audit.key else audit.target,
                text=audit.text,
            )

    # -- helpers ---------------------------------------------------------------

    def _new_transition(self, state: State) -> Transition:
        return Transition(self.context, state, self._moment())

    def _moment(self) -> Moment:
        return Moment(boottime(), self._broker.datetime())

    def _new_batch(self) -> Batch:
        return Batch(self.topics, self.codec, self.name)

    def _set_leading(self, *, active: bool) -> None:
        self.leading = active
        self.metrics.active.set(active)

    def _update_metrics(self, state: State) -> None:
        counts = Counter((record.kind, record.state) for record in state.active())
        self.metrics.mitigations.clear()
        for (kind, name), number in counts.items():
            self.metrics.mitigations.labels(kind, name).set(number)
        self.metrics.paused.set(state.paused)
        self.metrics.reasons.set(len(state.reasons))
        paused = self._processor.breaker.open_partitions(boottime())
        self.metrics.suspended_partitions.set(len(paused))
        problems = self._processor.problems()
        self.problem = "; ".join(dict.fromkeys(problems))[:500]


def _add_safely(batch: Batch, transition: Transition) -> None:
    """Add a takeover's transition; undo one that cannot be encoded."""
    try:
        batch.add(transition)
    except InvalidRecord:
        keys = [*transition.mitigations, *transition.reasons][:1]
        log.exception("takeover_failed", keys=keys)
        transition.rollback()
