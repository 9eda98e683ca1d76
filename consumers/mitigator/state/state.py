"""State: every reason and mitigation in memory, and quick answers about them.

It is what the reason and mitigation topics hold. Each change is the replacement of one
entry, so that an earlier entry put back undoes it.
"""

import heapq
from collections import Counter, OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Final, Generic, NamedTuple, TypeVar

from consumers.mitigation.measure import NOTIFY, Network, measure_of
from consumers.mitigation.reason_key import ATTACK, OPERATOR, ReasonKey
from consumers.mitigation.states import ENDED, PAUSE, PROPOSED, WANTED
from consumers.mitigator.state.call_order import NEVER, STATUS, LastEvent
from consumers.mitigator.state.counts import Counts
from consumers.mitigator.state.demand import Demand, WantLease
from consumers.mitigator.state.wants import measure_of_want, terms_of_want
from consumers.policy.guardrails import ActiveCounts, protected_network
from fnm_bus.event import Mitigation, Reason

_MAX_REMEMBERED: Final = 100_000
"""Bound of what is only in memory: ignored attacks, and texts that were reported."""
_MAX_NAME: Final = 1_000
"""Characters of a command's name that are remembered."""

APPROVAL: Final = "approval"
"""Value of `held_by` when a person has to approve."""

Undo = Callable[[], object]
K = TypeVar("K", ReasonKey, str)
V = TypeVar("V")


class ReasonEntry(NamedTuple):
    """One reason in memory. Moments are seconds since boot.

    Attributes:
        reason: its latest record.
        keys: the mitigation of each of its wants, in their order.
        ends: when its lease expires.
        due: when it has to be looked at: it expires, or may be forgotten.
        holds: whether it is neither closed nor expired.
        fallback: whether its fallback wants hold: a limit holds the others.
    """

    reason: Reason
    keys: tuple[str, ...]
    ends: float
    due: float
    holds: bool
    fallback: bool = False


class MitigationEntry(NamedTuple):
    """One mitigation in memory. Moments are seconds since boot.

    Attributes:
        record: its latest record.
        ends: when that record's lease expires.
        due: when it has to be looked at: it expires, or may be forgotten.
    """

    record: Mitigation
    ends: float
    due: float


class State:
    """All reasons and mitigations.

    Args:
        own_networks: the operator's, for the share of them that is affected.
        dry_run: whether every want counts as a dry run.

    Attributes:
        reasons: by key; closed and expired ones until they are forgotten.
        mitigations: by key; ended ones until they are forgotten.
        demands: mitigation's key → what holding reasons want of its measure.
        idle: keys of reasons that do not hold, the oldest in front.
        ended: keys of ended mitigations, the oldest in front.
        waiting: keys of proposals that only limits hold, the oldest in front.
        refused: keys of what is held by limits, but is one proposal too many.
        ignored: targets whose attack the policy ignored; in memory only.
    """

    def __init__(self, own_networks: tuple[Network, ...], *, dry_run: bool) -> None:
        self._own_networks = own_networks
        self._dry_run = dry_run
        self.reasons: dict[ReasonKey, ReasonEntry] = {}
        self.mitigations: dict[str, MitigationEntry] = {}
        self.demands: dict[str, Demand] = {}
        self.idle: OrderedDict[ReasonKey, None] = OrderedDict()
        self.ended: OrderedDict[str, None] = OrderedDict()
        self.waiting: OrderedDict[str, None] = OrderedDict()
        self.refused: dict[str, None] = {}
        self.ignored: OrderedDict[ReasonKey, LastEvent] = OrderedDict()
        self.counts = {False: Counts(), True: Counts()}
        self._states: Counter[str] = Counter()
        self._parts: dict[tuple[str, str, str], set[ReasonKey]] = {}
        self._reasons_due: _Timers[ReasonKey] = _Timers()
        self._mitigations_due: _Timers[str] = _Timers()
        self._reported: OrderedDict[ReasonKey, str] = OrderedDict()
        self._commands: OrderedDict[str, str] = OrderedDict()

    @property
    def paused(self) -> bool:
        """Whether one record masks every mitigation."""
        entry = self.mitigations.get(PAUSE)
        return entry is not None and entry.record.state == WANTED

    @property
    def proposals(self) -> int:
        """How many mitigations are proposed."""
        return self._states[PROPOSED]

    def put_reason(self, key: ReasonKey, entry: ReasonEntry | None) -> None:
        """Replace a reason; None forgets it."""
        self._remove_reason(key)
        self._reasons_due.set(key, entry.due if entry else None)
        if entry is None:
            return
        self.reasons[key] = entry
        if not entry.holds:
            self.idle[key] = None
            return
        if key.part not in {ATTACK, OPERATOR}:
            self._parts.setdefault(key[:3], set()).add(key)
        hold = WantLease(entry.ends, entry.reason.lease_ms / 1000)
        for want, name in zip(entry.reason.wants, entry.keys, strict=True):
            if want.fallback and not entry.fallback:
                continue
            demand = self.demands.get(name)
            if demand is None:
                demand = Demand(measure_of_want(want), want.place)
                self.demands[name] = demand
            demand.put(key, terms_of_want(want, dry_run=self._dry_run), hold)

    def put_mitigation(self, key: str, entry: MitigationEntry | None) -> None:
        """Replace a mitigation; None forgets it."""
        before = self.mitigations.pop(key, None)
        if before is not None:
            self._states[before.record.state] -= 1
            self._count(before.record, active=False)
        if entry is None or entry.record.state != ENDED:
            self.ended.pop(key, None)
        waits = entry is not None and _waits(entry.record)
        if not waits:
            self.waiting.pop(key, None)
        self._mitigations_due.set(key, entry.due if entry else None)
        if entry is None:
            return
        self.mitigations[key] = entry
        self._states[entry.record.state] += 1
        self._count(entry.record, active=True)
        if entry.record.state == ENDED and entry.record.kind != PAUSE:
            self.ended[key] = None
        if waits:
            self.waiting.setdefault(key)

    def put_refused(self, key: str, *, refused: bool) -> Undo | None:
        """Mark what cannot even be proposed; return how to undo it, None if it was."""
        if refused == (key in self.refused):
            return None
        if refused:
            self.refused[key] = None
            return lambda: self.refused.pop(key, None)
        del self.refused[key]
        return lambda: self.refused.setdefault(key)

    def is_limited(self, key: str) -> bool:
        """Return whether only limits keep a mitigation from being in force."""
        return key in self.waiting or key in self.refused

    def last_event(self, key: ReasonKey) -> LastEvent:
        """Return the event with the greatest sequence about a target."""
        entry = self.reasons.get(key)
        if entry is not None:
            reason = entry.reason
            return LastEvent(
                reason.sequence,
                reason.attack,
                closes=reason.closed,
                is_status=reason.action == STATUS,
            )
        return self.ignored.get(key, NEVER)

    def ignore(self, key: ReasonKey, event: LastEvent) -> Undo:
        """Remember an event of an attack that has no reason; return how to undo it."""
        return _remember(self.ignored, key, event)

    def parts(self, key: ReasonKey) -> list[ReasonKey]:
        """Return the holding reasons about single Flow Spec rules of a target."""
        return sorted(self._parts.get(key[:3], ()))

    def active_counts(self, now: datetime, *, dry_run: bool) -> ActiveCounts:
        """Return what is active, of the live mitigations or of the dry runs."""
        return self.counts[dry_run].view(now)

    def active(self) -> list[Mitigation]:
        """Return every mitigation that has not ended, the oldest in front."""
        chosen = [
            entry.record
            for entry in self.mitigations.values()
            if entry.record.state != ENDED and entry.record.kind != PAUSE
        ]
        return sorted(chosen, key=lambda record: (record.created_at, record.key))

    def due_reasons(self, clock: float, most: int) -> list[ReasonKey]:
        """Take up to *most* reasons that have to be looked at."""
        return self._reasons_due.take(clock, most)

    def due_mitigations(self, clock: float, most: int) -> list[str]:
        """Take up to *most* mitigations that have to be looked at."""
        return self._mitigations_due.take(clock, most)

    def sort_waiting(self) -> None:
        """Put the proposals that only limits hold in order, the oldest in front."""
        for name in sorted(self.waiting, key=self._age_of):
            self.waiting.move_to_end(name)

    def note_report(self, key: ReasonKey, text: str) -> Undo | None:
        """Remember the last text that was reported about a target.

        Returns:
            How to undo it; None where the text is the same as the last.
        """
        if self._reported.get(key) == text:
            return None
        return _remember(self._reported, key, text)

    def note_command(self, command_id: str) -> Undo | None:
        """Remember a command; return how to undo it, None where it is known already."""
        name = command_id[:_MAX_NAME]
        if name in self._commands:
            return None
        return _remember(self._commands, name, name)

    def _age_of(self, name: str) -> tuple[datetime, str]:
        return self.mitigations[name].record.created_at, name

    def _remove_reason(self, key: ReasonKey) -> None:
        before = self.reasons.pop(key, None)
        if before is None:
            return
        self.idle.pop(key, None)
        parts = self._parts.get(key[:3])
        if parts is not None:
            parts.discard(key)
            if not parts:
                del self._parts[key[:3]]
        if before.holds:
            for name in before.keys:
                demand = self.demands.get(name)
                if demand is not None:
                    demand.remove(key)
                    if not demand:
                        del self.demands[name]

    def _count(self, record: Mitigation, *, active: bool) -> None:
        if record.state != WANTED or record.kind in {NOTIFY, PAUSE}:
            return
        counts = self.counts[record.dry_run]
        network = protected_network(measure_of(record), self._own_networks)
        change = counts.add if active else counts.remove
        change(network, record.customer)


class _Timers(Generic[K]):
    """The moment at which each key is due; the last one that was set counts."""

    def __init__(self) -> None:
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, K]] = []

    def set(self, key: K, due: float | None) -> None:
        """Set when a key is due; None: never."""
        if due is None:
            self._due.pop(key, None)
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, key))
        if len(self._heap) > 4 * len(self._due) + 8:  # mostly moments that moved
            self._heap = [(moment, name) for name, moment in self._due.items()]
            heapq.heapify(self._heap)

    def take(self, clock: float, most: int) -> list[K]:
        """Take up to *most* keys that are due; they are due again when set again."""
        taken: dict[K, None] = {}  # a moment may have been set twice
        while self._heap and self._heap[0][0] <= clock and len(taken) < most:
            due, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                taken[key] = None
        return list(taken)


def _waits(record: Mitigation) -> bool:
    """Return whether only limits hold a proposal: it starts once they are free."""
    return record.state == PROPOSED and APPROVAL not in record.held_by


def _remember(memory: OrderedDict[K, V], key: K, value: V) -> Undo:
    """Store a value at the end of a bounded memory; return how to undo it."""
    before = memory.get(key)
    memory[key] = value
    memory.move_to_end(key)
    full = len(memory) > _MAX_REMEMBERED
    oldest = memory.popitem(last=False) if full else None

    def undo() -> None:
        if before is None:
            del memory[key]
        else:
            memory[key] = before
        if oldest is not None:
            memory[oldest[0]] = oldest[1]
            memory.move_to_end(oldest[0], last=False)

    return undo
