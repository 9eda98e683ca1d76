"""Recompute: a mitigation again from its reasons, with its record and audit record."""

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace as replace_frozen
from typing import Final

from msgspec.structs import replace

from consumers.mitigation.measure import Measure
from consumers.mitigation.reason_key import ReasonKey
from consumers.mitigation.states import ENDED, PROPOSED, SUPERSEDED, SUPPRESSED
from consumers.mitigator.state.demand import Demand
from consumers.mitigator.state.entries import APPROVAL, MitigationEntry
from consumers.mitigator.state.next_record import (
    ChangeCause,
    NextRecord,
    end_record,
    next_record,
)
from consumers.mitigator.state.record_content import (
    add_reason_summaries,
    content_of,
    has_same_counts,
    is_persons_decision,
    suppressed_check,
)
from consumers.mitigator.state.start_limits import StartLimits
from consumers.mitigator.state.transition import Transition
from consumers.policy import guardrails
from consumers.policy.facts import CLOSES, AttackFacts
from consumers.policy.flow_rules import refusal
from consumers.policy.model import Policy
from consumers.policy.rules import customer_of
from fnm_bus.event import Check, Mitigation

MAX_PROPOSALS: Final = 10_000
_RENEW_AFTER: Final = 1 / 3
"""Share of a lease by which its end has to move before it is written."""
_LAST_CHANCE: Final = 10.0
"""Seconds before its recorded end at which a longer lease is written in any case."""


def recompute(
    transition: Transition,
    key: str,
    cause: ChangeCause,
    *,
    facts: AttackFacts | None = None,
    checks: tuple[Check, ...] = (),
) -> str:
    """Compute a mitigation again; write and report the differences.

    Returns:
        The next state; "" if the mitigation does not exist.
    """
    state = transition.state
    demand = state.demands.get(key)
    if demand is not None:
        customer = _customer_of(demand.measure, transition.context.policy)
        cause = replace_frozen(cause, customer=customer)
    entry = state.mitigations.get(key)
    check_start = _start_check(transition, key, demand, cause)
    result = next_record(entry, demand, cause, transition.moment, check_start)
    was_limited = state.is_limited(key)
    if result.record is None:
        transition.mark_refused(key, refused=False)
        return ""
    update = _Update(transition, key, entry, demand, facts, checks)
    is_new_proposal = result.record.state == PROPOSED and (
        entry is None or entry.record.state != PROPOSED
    )
    if is_new_proposal and state.proposals >= MAX_PROPOSALS:
        _refuse_proposal(update, cause)
        is_limited = APPROVAL not in result.record.held_by
        transition.mark_refused(key, refused=is_limited)
        next_state = ""
    else:
        transition.mark_refused(key, refused=False)
        next_state = _apply(update, result)
    _switch_fallbacks(transition, key, cause, was_limited=was_limited)
    return next_state


def put_mitigation(
    transition: Transition, key: str, record: Mitigation, ends: float
) -> None:
    """Replace a mitigation by the record of a person's decision."""
    was_limited = transition.state.is_limited(key)
    transition.mark_refused(key, refused=False)
    transition.write_mitigation(key, record, ends, ends)
    cause = ChangeCause(text=record.cause, ended_because=SUPERSEDED)
    _switch_fallbacks(transition, key, cause, was_limited=was_limited)


def set_fallback(
    transition: Transition, reason_key: ReasonKey, cause: ChangeCause
) -> None:
    """Activate a reason's fallback wants while a limit holds its other wants."""
    state = transition.state
    entry = state.reasons[reason_key]
    wants = tuple(zip(entry.keys, entry.reason.wants, strict=True))
    fallback = entry.active and any(
        state.is_limited(key) for key, want in wants if not want.fallback
    )
    if fallback == entry.fallback:
        return
    transition.replace_reason(reason_key, entry._replace(fallback=fallback))
    for key, want in wants:
        if want.fallback:
            recompute(transition, key, cause)


def _switch_fallbacks(
    transition: Transition, key: str, cause: ChangeCause, *, was_limited: bool
) -> None:
    """Set the fallbacks of a mitigation that began or ceased to wait for a limit."""
    state = transition.state
    if was_limited != state.is_limited(key):
        for reason_key in tuple(state.demands.get(key, ())):
            set_fallback(transition, reason_key, cause)


def _customer_of(measure: Measure, policy: Policy) -> str | None:
    network = guardrails.attacked_network(measure, policy.limits.own)
    customer = customer_of(network, policy.customers) if network else None
    return customer.name if customer else None


def _start_check(
    transition: Transition, key: str, demand: Demand | None, cause: ChangeCause
) -> Callable[[bool, bool], tuple[Check, ...]]:
    limits = StartLimits(
        transition.context.policy,
        transition.state,
        transition.moment.now,
        transition.starts,
    )

    def check(dry_run: bool, fallback: bool) -> tuple[Check, ...]:  # noqa: FBT001 - as next_record calls it
        assert demand is not None  # noqa: S101 - nothing starts without reasons
        return limits.check(key, demand, cause, dry_run=dry_run, fallback=fallback)

    return check


@dataclass(frozen=True, slots=True)
class _Update:
    """One mitigation that is computed again."""

    transition: Transition
    key: str
    entry: MitigationEntry | None
    demand: Demand | None
    facts: AttackFacts | None
    checks: tuple[Check, ...]

    @property
    def previous(self) -> Mitigation | None:
        """The latest record."""
        return self.entry.record if self.entry else None


def _refuse_proposal(update: _Update, cause: ChangeCause) -> None:
    text = f"{MAX_PROPOSALS} mitigations are proposed already"
    check = refusal("proposals", "too_many_proposals", text, "limit")
    if update.facts is not None:
        update.transition.audit_refused(
            update.facts, check, (*update.checks, check), key=update.key
        )
    previous = update.previous
    if previous is not None and previous.state != ENDED:
        _apply(replace_frozen(update, demand=None), end_record(previous, cause))


def _apply(update: _Update, result: NextRecord) -> str:
    """Write a mitigation's next record, if its difference matters; return its state."""
    record, previous = result.record, update.previous
    assert record is not None  # noqa: S101 - recompute checked it
    transition, entry, demand = update.transition, update.entry, update.demand
    if demand is not None and record.state != SUPPRESSED:
        reasons = transition.state.reasons
        record = add_reason_summaries(record, demand, result, reasons)
    is_changed = previous is None or content_of(previous) != content_of(record)
    if not is_changed and entry is not None:
        if update.facts is None:  # without an event, the earlier cause remains
            record = replace(record, cause=entry.record.cause)
        # Without reasons, only the record has the end of a suppression.
        is_extended = demand is None and result.ends > entry.ends + 1
        due = None if is_extended else _recent_until(update, result, record)
        if due is not None:
            if due != entry.due:
                transition.replace_mitigation(update.key, entry._replace(due=due))
            _report_change(update, record, result)
            return record.state
    revision = (previous.revision if previous else 0) + is_changed
    record = replace(record, revision=revision)
    transition.write_mitigation(update.key, record, result.ends, result.due)
    _report_change(update, record, result)
    return record.state


def _recent_until(
    update: _Update, result: NextRecord, record: Mitigation
) -> float | None:
    """Return how long the latest record is precise enough; None: it is not.

    The time is in seconds since boot.
    """
    entry = update.entry
    assert entry is not None  # noqa: S101 - only an existing record can be recent
    gained = result.ends - entry.ends
    is_same = (
        has_same_counts(entry.record, record) and entry.record.held_by == record.held_by
    )
    if not is_same or not -1.0 < gained < entry.record.lease_ms / 1000 * _RENEW_AFTER:
        return None
    if gained <= 0:
        return result.due
    last_chance = entry.ends - _LAST_CHANCE
    is_early = last_chance > update.transition.moment.clock
    return min(result.due, last_chance) if is_early else None


def _report_change(update: _Update, record: Mitigation, result: NextRecord) -> None:
    facts, previous, transition = update.facts, update.previous, update.transition
    is_same_state = previous is not None and previous.state == record.state
    is_changed = previous is None or content_of(previous) != content_of(record)
    if is_same_state and not is_changed and facts is None:
        return  # only its lease changed
    if is_same_state and record.state == SUPPRESSED:
        if facts is not None:
            transition.audit_ignored(facts, suppressed_check(update.key, record))
        return
    decision = record.state
    if is_same_state:
        decision = "changed" if is_changed else "renewed"
    codes = ", ".join(record.held_by)
    text = f"{record.cause}; held by {codes}" if codes else record.cause
    if decision == "renewed" and facts is not None and facts.action in CLOSES:
        decision = "changed"
        text = f"{facts.action} by {facts.sensor}; other reasons hold it: {text}"
    if record.conflicts:
        text += f"; weaker: {', '.join(record.conflicts)}"
    transition.add_audit(
        decision,
        text,
        code=record.ended_because or (record.held_by[0] if codes else ""),
        key=update.key,
        facts=facts,
        rule=record.reasons[0].rule if record.reasons else None,
        checks=(*update.checks, *result.checks),
        by=record.by if is_persons_decision(previous, record) else "",
    )
