"""State: every reason and mitigation in memory, with the indexes that decisions need.

The reason and mitigation topics hold the same. Each change replaces one entry, so that
the earlier entry undoes it.
"""

from collections import Counter, OrderedDict
from datetime import datetime
from typing import Final

from consumers.mitigation.measure import NOTIFY, Network, measure_of
from consumers.mitigation.reason_key import ATTACK, OPERATOR, ReasonKey
from consumers.mitigation.states import ENDED, PAUSE, PROPOSED, WANTED
from consumers.mitigator.state.call_order import NEVER, STATUS, LastEvent
from consumers.mitigator.state.counts import Counts
from consumers.mitigator.state.demand import Demand, WantLease
from consumers.mitigator.state.due_times import DueTimes
from consumers.mitigator.state.entries import APPROVAL, MitigationEntry, ReasonEntry
from consumers.mitigator.state.memory import Undo, remember
from consumers.mitigator.state.wants import measure_of_want, terms_of_want
from consumers.policy.guardrails import ActiveCounts, attacked_network
from fnm_bus.event import Mitigation

_MAX_ID: Final = 1_000
"""Characters of a command's id that are remembered."""


class State:
    """All reasons and mitigations.

    Attributes:
        demands: mitigation's key → the wants of active reasons for its measure.
        inactive: keys of closed and expired reasons, the oldest first.
        ended: keys of ended mitigations, the oldest first.
        waiting: keys of proposals that only limits hold, the oldest first.
        refused: keys of mitigations that limits hold, beyond the number of proposals.
        ignored: targets whose attack the policy ignored; in memory only.
        counts: numbers of active mitigations, by dry run.
    """

    def __init__(self, own_networks: tuple[Network, ...], *, dry_run: bool) -> None:
        self._own_networks = own_networks
        self._dry_run = dry_run
        self.reasons: dict[ReasonKey, ReasonEntry] = {}
        self.mitigations: dict[str, MitigationEntry] = {}
        self.demands: dict[str, Demand] = {}
        self.inactive: OrderedDict[ReasonKey, None] = OrderedDict()
        self.ended: OrderedDict[str, None] = OrderedDict()
        self.waiting: OrderedDict[str, None] = OrderedDict()
        self.refused: dict[str, None] = {}
        self.ignored: OrderedDict[ReasonKey, LastEvent] = OrderedDict()
        self.counts = {False: Counts(), True: Counts()}
        self._states: Counter[str] = Counter()
        self._parts: dict[tuple[str, str, str], set[ReasonKey]] = {}
        self._reasons_due: DueTimes[ReasonKey] = DueTimes()
        self._mitigations_due: DueTimes[str] = DueTimes()
        self._audit_texts: OrderedDict[ReasonKey, str] = OrderedDict()
        self._commands: OrderedDict[str, str] = OrderedDict()

    @property
    def paused(self) -> bool:
        """Whether the pause record masks every mitigation."""
        entry = self.mitigations.get(PAUSE)
        return entry is not None and entry.record.state == WANTED

    @property
    def proposals(self) -> int:
        """The number of proposed mitigations."""
        return self._states[PROPOSED]

    def put_reason(self, reason_key: ReasonKey, entry: ReasonEntry | None) -> None:
        """Replace a reason; None forgets it."""
        self._remove_reason(reason_key)
        self._reasons_due.set(reason_key, entry.due if entry else None)
        if entry is None:
            return
        self.reasons[reason_key] = entry
        if not entry.active:
            self.inactive[reason_key] = None
            return
        if reason_key.part not in {ATTACK, OPERATOR}:
            self._parts.setdefault(reason_key[:3], set()).add(reason_key)
        lease = WantLease(entry.ends, entry.reason.lease_ms / 1000)
        for want, key in zip(entry.reason.wants, entry.keys, strict=True):
            if want.fallback and not entry.fallback:
                continue
            demand = self.demands.get(key)
            if demand is None:
                demand = Demand(measure_of_want(want), want.place)
                self.demands[key] = demand
            demand.put(reason_key, terms_of_want(want, dry_run=self._dry_run), lease)

    def put_mitigation(self, key: str, entry: MitigationEntry | None) -> None:
        """Replace a mitigation; None forgets it."""
        previous = self.mitigations.pop(key, None)
        if previous is not None:
            self._states[previous.record.state] -= 1
            self._count(previous.record, active=False)
        if entry is None or entry.record.state != ENDED:
            self.ended.pop(key, None)
        is_waiting = entry is not None and _is_waiting(entry.record)
        if not is_waiting:
            self.waiting.pop(key, None)
        self._mitigations_due.set(key, entry.due if entry else None)
        if entry is None:
            return
        self.mitigations[key] = entry
        self._states[entry.record.state] += 1
        self._count(entry.record, active=True)
        if entry.record.state == ENDED and entry.record.kind != PAUSE:
            self.ended[key] = None
        if is_waiting:
            self.waiting.setdefault(key)

    def mark_refused(self, key: str, *, refused: bool) -> Undo | None:
        """Mark a mitigation that cannot even be proposed.

        Returns:
            How to undo it; None if nothing changed.
        """
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

    def last_event(self, reason_key: ReasonKey) -> LastEvent:
        """Return the event with the greatest sequence about a target."""
        entry = self.reasons.get(reason_key)
        if entry is not None:
            reason = entry.reason
            return LastEvent(
                reason.sequence,
                reason.attack,
                closes=reason.closed,
                is_status=reason.action == STATUS,
            )
        return self.ignored.get(reason_key, NEVER)

    def ignore(self, reason_key: ReasonKey, event: LastEvent) -> Undo:
        """Remember an event of an attack without a reason; return how to undo it."""
        return remember(self.ignored, reason_key, event)

    def parts(self, reason_key: ReasonKey) -> list[ReasonKey]:
        """Return the active reasons about single Flow Spec rules of a target."""
        return sorted(self._parts.get(reason_key[:3], ()))

    def active_counts(self, now: datetime, *, dry_run: bool) -> ActiveCounts:
        """Return the counts of live mitigations, or of dry runs."""
        return self.counts[dry_run].at(now)

    def active(self) -> list[Mitigation]:
        """Return every mitigation that has not ended, the oldest first."""
        records = [
            entry.record
            for entry in self.mitigations.values()
            if entry.record.state != ENDED and entry.record.kind != PAUSE
        ]
        return sorted(records, key=lambda record: (record.created_at, record.key))

    def due_reasons(self, clock: float, limit: int) -> list[ReasonKey]:
        """Take up to *limit* reasons that expired, or may be forgotten."""
        return self._reasons_due.take(clock, limit)

    def due_mitigations(self, clock: float, limit: int) -> list[str]:
        """Take up to *limit* mitigations that expired, or may be forgotten."""
        return self._mitigations_due.take(clock, limit)

    def sort_waiting(self) -> None:
        """Sort the proposals that only limits hold, the oldest first."""
        for key in sorted(self.waiting, key=self._age_of):
            self.waiting.move_to_end(key)

    def remember_audit_text(self, reason_key: ReasonKey, text: str) -> Undo | None:
        """Remember the last audit text about a target.

        Returns:
            How to undo it; None if the text equals the previous one.
        """
        if self._audit_texts.get(reason_key) == text:
            return None
        return remember(self._audit_texts, reason_key, text)

    def remember_command(self, command_id: str) -> Undo | None:
        """Remember a command; return how to undo it, None for a repeated one."""
        stored_id = command_id[:_MAX_ID]
        if stored_id in self._commands:
            return None
        return remember(self._commands, stored_id, stored_id)

    def _age_of(self, key: str) -> tuple[datetime, str]:
        return self.mitigations[key].record.created_at, key

    def _remove_reason(self, reason_key: ReasonKey) -> None:
        entry = self.reasons.pop(reason_key, None)
        if entry is None:
            return
        self.inactive.pop(reason_key, None)
        parts = self._parts.get(reason_key[:3])
        if parts is not None:
            parts.discard(reason_key)
            if not parts:
                del self._parts[reason_key[:3]]
        for key in entry.keys if entry.active else ():
            demand = self.demands.get(key)
            if demand is not None:
                demand.remove(reason_key)
                if not demand:
                    del self.demands[key]

    def _count(self, record: Mitigation, *, active: bool) -> None:
        if record.state != WANTED or record.kind in {NOTIFY, PAUSE}:
            return
        counts = self.counts[record.dry_run]
        network = attacked_network(measure_of(record), self._own_networks)
        count = counts.add if active else counts.remove
        count(network, record.customer)


def _is_waiting(record: Mitigation) -> bool:
    """Return whether only limits hold a proposal, so that it can start by itself."""
    return record.state == PROPOSED and APPROVAL not in record.held_by
