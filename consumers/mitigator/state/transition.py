"""Transition: what one event, command or moment changes, and how to undo it.

Every change of the state is made here. `rollback` puts every replaced entry back, so
that an event whose processing fails leaves nothing behind.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replace_frozen
from datetime import timedelta
from typing import Final

from msgspec.structs import replace

from consumers.mitigation.measure import NOTIFY, Measure
from consumers.mitigation.reason_key import ReasonKey
from consumers.mitigation.states import (
    ENDED,
    PAUSE,
    PROPOSED,
    SUPERSEDED,
    SUPPRESSED,
    WANTED,
)
from consumers.mitigator.context import DecisionContext
from consumers.mitigator.state.call_order import LastEvent
from consumers.mitigator.state.demand import Demand
from consumers.mitigator.state.next_record import (
    ChangeCause,
    Moment,
    NextRecord,
    end_record,
    next_record,
)
from consumers.mitigator.state.record_content import (
    bound,
    content_of,
    has_same_counts,
    is_persons_decision,
    is_start,
    suppressed_check,
    with_reasons,
)
from consumers.mitigator.state.start_limits import StartLimits
from consumers.mitigator.state.state import (
    APPROVAL,
    MitigationEntry,
    ReasonEntry,
    State,
    Undo,
)
from consumers.mitigator.state.wants import key_of_want
from consumers.policy import guardrails
from consumers.policy.facts import CLOSES, AttackFacts
from consumers.policy.rules import customer_of
from fnm_bus import __version__
from fnm_bus.event import Audit, Check, Mitigation, Reason

MAX_PROPOSALS: Final = 10_000
MAX_AUDIT_TEXT: Final = 1_000
MAX_CHECKS: Final = 100
_RENEW_AFTER: Final = 1 / 3
"""Share of a lease by which its end has to move before it is written."""
_LAST_CHANCE: Final = 10.0
"""Seconds before its recorded end at which a longer lease is written in any case."""


@dataclass(slots=True)
class Transition:
    """One event, command or moment at work on the state.

    Attributes:
        context: what is decided by.
        state: changed as the decision is made.
        moment: now.
        reasons: reasons to write, None for a tombstone.
        mitigations: mitigations to write, None for a tombstone.
        audits: what is reported, in order.
    """

    context: DecisionContext
    state: State
    moment: Moment
    reasons: dict[ReasonKey, Reason | None] = field(default_factory=dict)
    mitigations: dict[str, Mitigation | None] = field(default_factory=dict)
    audits: list[Audit] = field(default_factory=list)
    _undo: list[Undo] = field(default_factory=list)
    _starts: int = 0

    # -- reasons ---------------------------------------------------------------

    def put_reason(
        self, key: ReasonKey, reason: Reason, *, holds: bool, write: bool = True
    ) -> None:
        """Replace a reason; its lease runs from now.

        Args:
            key: of the reason.
            reason: its record.
            holds: whether it is neither closed nor expired.
            write: whether it is written; not, when only its lease is over.
        """
        keys = tuple(key_of_want(want) for want in reason.wants)
        clock = self.moment.clock
        ends = clock + reason.lease_ms / 1000
        retention = (
            self.context.closed_retention
            if reason.closed
            else self.context.ended_retention
        )
        due = ends if holds else clock + retention
        before = self.state.reasons.get(key)
        fallback = holds and before is not None and before.holds and before.fallback
        self._replace_reason(key, ReasonEntry(reason, keys, ends, due, holds, fallback))
        if write:
            self.reasons[key] = reason

    def set_fallback(self, key: ReasonKey, cause: ChangeCause) -> None:
        """Let a reason's fallback wants hold while a limit holds its other ones.

        Args:
            key: of the reason.
            cause: why the hostgroup's mitigation is computed again, if it is.
        """
        entry = self.state.reasons[key]
        pairs = tuple(zip(entry.keys, entry.reason.wants, strict=True))
        active = entry.holds and any(
            self.state.is_limited(name) for name, want in pairs if not want.fallback
        )
        if active == entry.fallback:
            return
        self._replace_reason(key, entry._replace(fallback=active))
        for name, want in pairs:
            if want.fallback:
                self.recompute(name, cause)

    def forget_reason(self, key: ReasonKey) -> None:
        """Forget a reason, with a tombstone."""
        self._replace_reason(key, None)
        self.reasons[key] = None

    def ignore_attack(self, key: ReasonKey, event: LastEvent) -> None:
        """Remember an event of an attack without a reason, in memory only."""
        self._undo.append(self.state.ignore(key, event))

    def note_command(self, command_id: str) -> bool:
        """Remember a command, in memory only; return whether it is a new one."""
        undo = self.state.note_command(command_id)
        if undo is not None:
            self._undo.append(undo)
        return undo is not None

    # -- mitigations -----------------------------------------------------------

    def recompute(
        self,
        key: str,
        cause: ChangeCause,
        *,
        facts: AttackFacts | None = None,
        checks: tuple[Check, ...] = (),
    ) -> str:
        """Compute a mitigation again; write and report what differs.

        Args:
            key: of the mitigation.
            cause: why.
            facts: the event that led to it.
            checks: what was checked before, for the report.

        Returns:
            The state that follows; "" where there is no mitigation.
        """
        before = self.state.mitigations.get(key)
        demand = self.state.demands.get(key)
        if demand is not None:
            cause = replace_frozen(cause, customer=self._customer_of(demand.measure))
        limits = self._limits_of(key, demand, cause)
        after = next_record(before, demand, cause, self.moment, limits)
        record = after.record
        waited = self.state.is_limited(key)
        if record is None:
            self._mark_refused(key, refused=False)
            return ""
        full = record.state == PROPOSED and (
            before is None or before.record.state != PROPOSED
        )
        if full and self.state.proposals >= MAX_PROPOSALS:
            self._refuse_proposal(key, before, cause, facts, checks)
            self._mark_refused(key, refused=APPROVAL not in record.held_by)
            self._switch_fallbacks(key, cause, waited=waited)
            return ""
        self._mark_refused(key, refused=False)
        state = self._take(key, before, demand, after, facts, checks)
        self._switch_fallbacks(key, cause, waited=waited)
        return state

    def put_mitigation(self, key: str, record: Mitigation, ends: float) -> None:
        """Replace a mitigation with a record that a person's decision made."""
        waited = self.state.is_limited(key)
        self._mark_refused(key, refused=False)
        self._write(key, record, ends, ends)
        cause = ChangeCause(text=record.cause, ended_because=SUPERSEDED)
        self._switch_fallbacks(key, cause, waited=waited)

    def forget_mitigation(self, key: str) -> None:
        """Forget a mitigation, with a tombstone."""
        self._replace_mitigation(key, None)
        self.mitigations[key] = None

    # -- reports ---------------------------------------------------------------

    def report(  # noqa: PLR0913 - what an audit record holds
        self,
        what: str,
        text: str,
        *,
        code: str = "",
        key: str | None = None,
        facts: AttackFacts | None = None,
        rule: str | None = None,
        checks: Sequence[Check] = (),
        by: str = "",
        event_id: str | None = None,
    ) -> None:
        """Add an audit record."""
        self.audits.append(
            Audit(
                at=self.moment.now,
                by=by or "mitigator",
                what=what,
                code=code,
                key=key,
                sensor=facts.sensor if facts else None,
                target=facts.target if facts else None,
                event_id=facts.event_id if facts else event_id,
                rule=rule,
                text=text[:MAX_AUDIT_TEXT],
                checks=tuple(checks[:MAX_CHECKS]),
                checks_omitted=max(len(checks) - MAX_CHECKS, 0),
                dry_run=self.context.dry_run,
                producer_version=__version__,
            )
        )

    def ignore(
        self, facts: AttackFacts, check: Check, checks: tuple[Check, ...] = ()
    ) -> None:
        """Report that an event changes nothing, once in a row for each target."""
        if self._is_news(facts, check.code + check.text):
            self.report(
                "ignored",
                check.text,
                code=check.code,
                facts=facts,
                checks=(*checks, check),
            )

    def refuse(
        self,
        facts: AttackFacts,
        refused: Check,
        checks: tuple[Check, ...],
        *,
        key: str | None = None,
        rule: str | None = None,
    ) -> None:
        """Report that a measure was refused, once in a row for each target."""
        text = f"refused by {refused.name}: {refused.text}"
        if self._is_news(facts, text):
            self.report(
                "refused",
                text,
                code=refused.code,
                key=key,
                facts=facts,
                rule=rule,
                checks=checks,
            )

    def rollback(self) -> None:
        """Undo every change of the state."""
        for step in reversed(self._undo):
            step()
        self._undo.clear()
        self.reasons.clear()
        self.mitigations.clear()
        self.audits.clear()

    # -- inside ----------------------------------------------------------------

    def _is_news(self, facts: AttackFacts, text: str) -> bool:
        """Return whether *text* differs from the last one reported about a target."""
        undo = self.state.note_report(facts.reason_key, text)
        if undo is not None:
            self._undo.append(undo)
        return undo is not None

    def _replace_reason(self, key: ReasonKey, entry: ReasonEntry | None) -> None:
        before = self.state.reasons.get(key)
        self.state.put_reason(key, entry)
        self._undo.append(lambda: self.state.put_reason(key, before))

    def _replace_mitigation(self, key: str, entry: MitigationEntry | None) -> None:
        before = self.state.mitigations.get(key)
        self.state.put_mitigation(key, entry)
        self._undo.append(lambda: self.state.put_mitigation(key, before))

    def _switch_fallbacks(self, key: str, cause: ChangeCause, *, waited: bool) -> None:
        """Switch fallbacks where a mitigation began or ceased to wait for a limit."""
        if waited != self.state.is_limited(key):
            for reason in tuple(self.state.demands.get(key, ())):
                self.set_fallback(reason, cause)

    def _mark_refused(self, key: str, *, refused: bool) -> None:
        undo = self.state.put_refused(key, refused=refused)
        if undo is not None:
            self._undo.append(undo)

    def _customer_of(self, measure: Measure) -> str | None:
        policy = self.context.policy
        network = guardrails.protected_network(measure, policy.limits.own)
        customer = customer_of(network, policy.customers) if network else None
        return customer.name if customer else None

    def _limits_of(
        self, key: str, demand: Demand | None, cause: ChangeCause
    ) -> Callable[[bool, bool], tuple[Check, ...]]:
        limits = StartLimits(
            self.context.policy, self.state, self.moment.now, self._starts
        )

        def check(dry_run: bool, fallback: bool) -> tuple[Check, ...]:  # noqa: FBT001 - as next_record calls it
            assert demand is not None  # noqa: S101 - nothing starts without reasons
            return limits.check(key, demand, cause, dry_run=dry_run, fallback=fallback)

        return check

    def _refuse_proposal(
        self,
        key: str,
        before: MitigationEntry | None,
        cause: ChangeCause,
        facts: AttackFacts | None,
        checks: tuple[Check, ...],
    ) -> None:
        check = Check(
            stage="limit",
            name="proposals",
            code="too_many_proposals",
            verdict="refuse",
            text=f"{MAX_PROPOSALS} mitigations are proposed already",
        )
        if facts is not None:
            self.refuse(facts, check, (*checks, check), key=key)
        if before is not None and before.record.state != ENDED:
            after = end_record(before.record, cause)
            self._take(key, before, None, after, facts, checks)

    def _take(  # noqa: PLR0913, PLR0917 - before and after of one mitigation
        self,
        key: str,
        before: MitigationEntry | None,
        demand: Demand | None,
        after: NextRecord,
        facts: AttackFacts | None,
        checks: tuple[Check, ...],
    ) -> str:
        record = after.record
        assert record is not None  # noqa: S101 - recompute saw to it
        old = before.record if before else None
        if demand is not None and record.state != SUPPRESSED:
            record = with_reasons(record, demand, after, self.state.reasons)
        changed = old is None or content_of(old) != content_of(record)
        if not changed and before is not None:
            if facts is None:  # nothing new happened: what began it is still its cause
                record = replace(record, cause=before.record.cause)
            # Without reasons nothing else remembers how long a suppression lasts.
            longer = demand is None and after.ends > before.ends + 1
            due = None if longer else self._recent_until(before, after, record)
            if due is not None:
                if due != before.due:
                    self._replace_mitigation(key, before._replace(due=due))
                self._report_change(key, old, record, after, facts, checks)
                return record.state
        revision = (old.revision if old else 0) + changed
        self._write(key, replace(record, revision=revision), after.ends, after.due)
        self._report_change(key, old, record, after, facts, checks)
        return record.state

    def _recent_until(
        self, before: MitigationEntry, after: NextRecord, record: Mitigation
    ) -> float | None:
        """Return until when the latest record is precise enough; None: not any more."""
        old = before.record
        gained = after.ends - before.ends
        same = has_same_counts(old, record) and old.held_by == record.held_by
        if not same or not -1.0 < gained < old.lease_ms / 1000 * _RENEW_AFTER:
            return None
        if gained <= 0:
            return after.due
        last_chance = before.ends - _LAST_CHANCE
        return min(after.due, last_chance) if last_chance > self.moment.clock else None

    def _write(self, key: str, record: Mitigation, ends: float, due: float) -> None:
        clock, now = self.moment
        over = record.state == ENDED
        left = 0.0 if over else max(ends - clock, 0.0)
        # A wanted record without a lease is one that enforcers refuse and report.
        least = 0 if over or record.kind == PAUSE else 1
        record = bound(
            replace(
                record,
                key=key,
                lease_ms=max(round(left * 1000), least),
                expires_at=now + timedelta(seconds=left),
                changed_at=now,
                producer_version=__version__,
            )
        )
        if over:
            due = clock + self.context.ended_retention
        before = self.state.mitigations.get(key)
        touches = record.state == WANTED and record.kind not in {NOTIFY, PAUSE}
        starts = touches and is_start(before.record if before else None, record)
        if starts:
            record = replace(record, limits_digest=self.context.policy.digest)
        self._replace_mitigation(key, MitigationEntry(record, clock + left, due))
        self.mitigations[key] = record
        if starts:
            self._count_start(record)

    def _count_start(self, record: Mitigation) -> None:
        counts = self.state.counts[record.dry_run]
        counts.start(record.started_at)
        self._undo.append(lambda: counts.unstart(record.started_at))
        self._starts += 1

    def _report_change(  # noqa: PLR0913, PLR0917 - what an audit record holds
        self,
        key: str,
        old: Mitigation | None,
        record: Mitigation,
        after: NextRecord,
        facts: AttackFacts | None,
        checks: tuple[Check, ...],
    ) -> None:
        same = old is not None and old.state == record.state
        differs = old is None or content_of(old) != content_of(record)
        if same and not differs and facts is None:
            return  # its lease alone
        if same and record.state == SUPPRESSED:
            if facts is not None:
                self.ignore(facts, suppressed_check(key, record))
            return
        what = record.state if not same else "changed" if differs else "renewed"
        held = ", ".join(record.held_by)
        text = f"{record.cause}; held by {held}" if held else record.cause
        if what == "renewed" and facts is not None and facts.action in CLOSES:
            what = "changed"
            text = f"{facts.action} by {facts.sensor}; other reasons hold it: {text}"
        if record.conflicts:
            text += f"; weaker: {', '.join(record.conflicts)}"
        self.report(
            what,
            text,
            code=record.ended_because or (record.held_by[0] if held else ""),
            key=key,
            facts=facts,
            rule=record.reasons[0].rule if record.reasons else None,
            checks=(*checks, *after.checks),
            by=record.by if is_persons_decision(old, record) else "",
        )
