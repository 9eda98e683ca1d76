"""Transition: what one event, command or moment changes, and how to undo it.

Every change of the state is made here. `rollback` puts every replaced entry back, so
that an event whose processing fails leaves nothing behind.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replace_cause
from datetime import timedelta
from typing import Final

import msgspec
from msgspec.structs import replace

from consumers.mitigation.effects import describe
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
from consumers.mitigator.call_order import LastEvent
from consumers.mitigator.demand import Demand
from consumers.mitigator.next_record import (
    Cause,
    Moment,
    Next,
    end_record,
    next_record,
)
from consumers.mitigator.state import MitigationEntry, ReasonEntry, State
from consumers.mitigator.wants import key_of_want
from consumers.policy import guardrails
from consumers.policy.facts import AttackFacts
from consumers.policy.guardrails import HOLD, PASS
from consumers.policy.model import Policy
from consumers.policy.rules import customer_of
from fnm_bus import __version__
from fnm_bus.event import Audit, Check, Mitigation, Reason, ReasonSummary

MAX_PROPOSALS: Final = 10_000
MAX_RECORD_BYTES: Final = 8_000
MAX_TEXT: Final = 300
"""Characters of a sentence in a mitigation; audit records take `MAX_AUDIT_TEXT`."""
MAX_AUDIT_TEXT: Final = 1_000
MAX_CHECKS: Final = 100
_EXAMPLES: Final = 5
_NAME: Final = 100
"""Characters of a name in an example."""
_RENEW_AFTER: Final = 1 / 3
"""Share of a lease by which its end has to move before it is written."""
_LAST_CHANCE: Final = 10.0
"""Seconds before its recorded end at which a longer lease is written in any case."""
_SHARE_OF_EVENT: Final = 4
"""One event starts at most this part of `max_new_per_minute`."""


@dataclass(frozen=True, slots=True)
class DecisionContext:
    """What decisions are made by.

    Attributes:
        policy: rules and limits.
        dry_run: whether the whole mitigator is in dry run.
        fastnetmon_ban_time: seconds; a ban's lease until its first status update.
        ended_retention: seconds for which ended mitigations and expired reasons are
            remembered.
    """

    policy: Policy
    dry_run: bool = True
    fastnetmon_ban_time: float = 1900.0
    ended_retention: float = 86_400.0

    @property
    def closed_retention(self) -> float:
        """Seconds for which a closed reason is remembered: no event is older."""
        limits = self.policy.limits
        return limits.max_event_age + limits.max_clock_skew + 60.0


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
    _undo: list[Callable[[], None]] = field(default_factory=list)
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

    def set_fallback(self, key: ReasonKey, cause: Cause) -> None:
        """Let a reason's fallback wants hold while a limit holds its other ones.

        Args:
            key: of the reason.
            cause: why the hostgroup's mitigation is computed again, if it is.
        """
        entry = self.state.reasons[key]
        pairs = tuple(zip(entry.keys, entry.reason.wants, strict=True))
        active = entry.holds and any(
            name in self.state.waiting for name, want in pairs if not want.fallback
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

    # -- mitigations -----------------------------------------------------------

    def recompute(
        self,
        key: str,
        cause: Cause,
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
            cause = replace_cause(cause, customer=self._customer_of(demand.measure))
        limits = self._limits_of(demand, cause)
        after = next_record(before, demand, cause, self.moment, limits)
        record = after.record
        if record is None:
            return ""
        full = record.state == PROPOSED and (
            before is None or before.record.state != PROPOSED
        )
        if full and self.state.proposals >= MAX_PROPOSALS:
            self._refuse_proposal(key, before, cause, facts, checks)
            return ""
        waited = key in self.state.waiting
        state = self._take(key, before, demand, after, facts, checks)
        self._switch_fallbacks(key, cause, waited=waited)
        return state

    def put_mitigation(self, key: str, record: Mitigation, ends: float) -> None:
        """Replace a mitigation with a record that a person's decision made."""
        waited = key in self.state.waiting
        self._write(key, record, ends, ends)
        cause = Cause(text=record.cause, ended_because=SUPERSEDED)
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

    def _switch_fallbacks(self, key: str, cause: Cause, *, waited: bool) -> None:
        """Switch fallbacks where a mitigation began or ceased to wait for a limit."""
        if waited != (key in self.state.waiting):
            for reason in tuple(self.state.demands.get(key, ())):
                self.set_fallback(reason, cause)

    def _customer_of(self, measure: Measure) -> str | None:
        policy = self.context.policy
        network = guardrails.protected_network(measure, policy.limits.own)
        customer = customer_of(network, policy.customers) if network else None
        return customer.name if customer else None

    def _limits_of(
        self, demand: Demand | None, cause: Cause
    ) -> Callable[[bool, bool], tuple[Check, ...]]:
        def check(dry_run: bool, fallback: bool) -> tuple[Check, ...]:  # noqa: FBT001 - as next_record calls it
            assert demand is not None  # noqa: S101 - nothing starts without reasons
            checks = self._check_limits(demand.measure, cause, dry_run=dry_run)
            if fallback:
                checks = tuple(c for c in checks if c.code == "max_affected_share")
            return checks

        return check

    def _check_limits(
        self, measure: Measure, cause: Cause, *, dry_run: bool
    ) -> tuple[Check, ...]:
        policy, now = self.context.policy, self.moment.now
        counts = self.state.active_counts(now, dry_run=dry_run)
        customer = next((c for c in policy.customers if c.name == cause.customer), None)
        checks = guardrails.check_limits(measure, counts, policy.limits, customer)
        if not checks:
            return ()
        most = max(policy.limits.max_new_per_minute // _SHARE_OF_EVENT, 1)
        share = Check(
            stage="limit",
            name="max_new_per_minute",
            code="max_new_per_event",
            verdict=PASS if self._starts < most else HOLD,
            text=f"{self._starts} of {most} that one event may start",
        )
        return (*checks, share)

    def _refuse_proposal(
        self,
        key: str,
        before: MitigationEntry | None,
        cause: Cause,
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
        after: Next,
        facts: AttackFacts | None,
        checks: tuple[Check, ...],
    ) -> str:
        record = after.record
        assert record is not None  # noqa: S101 - recompute saw to it
        old = before.record if before else None
        if demand is not None and record.state != SUPPRESSED:
            record = self._with_reasons(record, demand, after)
        changed = old is None or _content(old) != _content(record)
        if not changed and before is not None:
            due = self._recent_until(before, after, record)
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
        self, before: MitigationEntry, after: Next, record: Mitigation
    ) -> float | None:
        """Return until when the latest record is precise enough; None: not any more."""
        old = before.record
        gained = after.ends - before.ends
        counts = (
            (old.live_reasons, record.live_reasons),
            (old.pending_reasons, record.pending_reasons),
            (old.dry_reasons, record.dry_reasons),
        )
        same = all(_magnitude(one) == _magnitude(other) for one, other in counts)
        same = same and old.held_by == record.held_by
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
        record = replace(
            record,
            key=key,
            lease_ms=round(left * 1000),
            expires_at=now + timedelta(seconds=left),
            changed_at=now,
            cause=record.cause[:MAX_TEXT],
            by=record.by[:_NAME],
            producer_version=__version__,
        )
        if len(msgspec.json.encode(record)) > MAX_RECORD_BYTES:
            record = replace(record, reasons=(), conflicts=())
        if over:
            due = clock + self.context.ended_retention
        before = self.state.mitigations.get(key)
        self._replace_mitigation(key, MitigationEntry(record, clock + left, due))
        self.mitigations[key] = record
        touches = record.state == WANTED and record.kind not in {NOTIFY, PAUSE}
        if touches and _starts(before.record if before else None, record):
            self._count_start(record)

    def _count_start(self, record: Mitigation) -> None:
        counts = self.state.counts[record.dry_run]
        counts.start(record.started_at)
        self._undo.append(lambda: counts.unstart(record.started_at))
        self._starts += 1

    def _with_reasons(
        self, record: Mitigation, demand: Demand, after: Next
    ) -> Mitigation:
        """Return the record with counts, examples and conflicts."""
        live = pending = dry = 0
        conflicts = []
        for terms in demand.terms():
            count = demand.count(terms)
            if terms.dry_run:
                dry += count
            elif terms in after.pending:
                pending += count
            else:
                live += count
            if terms in after.chosen and terms.effect.then != record.then:
                conflicts.append(f"{describe(terms.effect.then)} ({count})")
        terms_shown = dict.fromkeys((*after.chosen, *after.pending))
        shown = demand.first(terms_shown, _EXAMPLES)
        return replace(
            record,
            live_reasons=live,
            pending_reasons=pending,
            dry_reasons=dry,
            reasons=tuple(self._example(name, demand) for name in shown),
            conflicts=tuple(conflicts[:_EXAMPLES]),
        )

    def _example(self, key: ReasonKey, demand: Demand) -> ReasonSummary:
        reason = self.state.reasons[key].reason
        return ReasonSummary(
            sensor=reason.sensor[:_NAME],
            scope=reason.scope,
            target=reason.target[:_NAME],
            part=reason.part[:_NAME],
            rule=reason.rule[:_NAME],
            by=reason.by[:_NAME],
            action=reason.action[:_NAME],
            event_id=reason.event_id[:_NAME],
            attack=reason.attack[:_NAME],
            received_at=reason.received_at,
            dry_run=demand.terms_of(key).dry_run,
            direction=reason.direction[:_NAME],
            pps=reason.pps,
            bits=reason.bits,
        )

    def _report_change(  # noqa: PLR0913, PLR0917 - what an audit record holds
        self,
        key: str,
        old: Mitigation | None,
        record: Mitigation,
        after: Next,
        facts: AttackFacts | None,
        checks: tuple[Check, ...],
    ) -> None:
        same = old is not None and old.state == record.state
        differs = old is None or _content(old) != _content(record)
        if same and not differs and facts is None:
            return  # its lease alone
        if same and record.state == SUPPRESSED:
            if facts is not None:
                self.ignore(facts, _suppressed(key, record))
            return
        what = record.state if not same else "changed" if differs else "renewed"
        held = ", ".join(record.held_by)
        text = f"{record.cause}; held by {held}" if held else record.cause
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
            by=record.by if record.state in {SUPPRESSED, ENDED} else "",
        )


def _starts(old: Mitigation | None, record: Mitigation) -> bool:
    """Return whether a wanted mitigation starts: anew, or live after a dry run."""
    if old is None or old.state != WANTED:
        return True
    return old.dry_run and not record.dry_run


def _content(record: Mitigation) -> tuple[object, ...]:
    """Return what a person approves or sees change; renewals keep it."""
    return (
        record.state,
        record.then,
        record.communities,
        record.dry_run,
        record.pending,
        record.approved,
        record.started_at,
    )


def _suppressed(key: str, record: Mitigation) -> Check:
    return Check(
        stage="order",
        name=SUPPRESSED,
        code=SUPPRESSED,
        verdict="refuse",
        text=f"{key} is suppressed: {record.cause}",
    )


def _magnitude(count: int) -> int:
    """Return 0 and 1 for themselves, and the number of digits + 1 of all others."""
    return count if count <= 1 else len(str(count)) + 1
