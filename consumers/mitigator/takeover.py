"""Takeover: the state from what both topics hold, and a policy that changed.

Pure. The leases of records run from the broker's time of each record, so nothing here
depends on the clock of the mitigator that wrote them, nor on ours.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from consumers.mitigation.measure import NOTIFY, measure_of
from consumers.mitigation.reason_key import ATTACK, OPERATOR, ReasonKey, key_of_reason
from consumers.mitigation.states import (
    ENDED,
    GUARDRAIL,
    PAUSE,
    POLICY,
    PROPOSED,
    WANTED,
)
from consumers.mitigator.counts import Counts
from consumers.mitigator.next_record import Cause, Moment
from consumers.mitigator.renew import narrow
from consumers.mitigator.start import cause_of
from consumers.mitigator.state import MitigationEntry, ReasonEntry, State
from consumers.mitigator.transition import DecisionContext, Transition
from consumers.mitigator.wants import action_of, key_of_want
from consumers.policy import guardrails
from consumers.policy.guardrails import HOLD
from consumers.policy.model import Action
from fnm_bus.event import EPOCH, Check, Mitigation, Reason, Want

_PRECISION: Final = 0.001
"""Seconds; records have leases in milliseconds."""
_LOST: Final = {
    POLICY: Cause(text="the policy does not want it any more", ended_because=POLICY),
    GUARDRAIL: Cause(text="a guardrail refuses it now", ended_because=GUARDRAIL),
}


@dataclass(frozen=True, slots=True)
class Stored:
    """The latest record of a key.

    Attributes:
        record: decoded.
        at: the broker's time of the record, UTC.
    """

    record: Reason | Mitigation
    at: datetime


def restore(
    context: DecisionContext,
    reasons: Iterable[Stored],
    mitigations: Iterable[Stored],
    moment: Moment,
) -> State:
    """Return the state that the latest records of both topics hold."""
    limits = context.policy.limits
    state = State(limits.own_networks, dry_run=context.dry_run)
    for stored in mitigations:
        record = stored.record
        if isinstance(record, Mitigation):
            _restore_mitigation(context, state, record, stored.at, moment)
    state.sort_waiting()
    for stored in sorted(reasons, key=lambda stored: stored.at):
        if isinstance(stored.record, Reason):
            _restore_reason(context, state, stored.record, stored.at, moment)
    return state


def recompute_all(change: Transition) -> None:
    """Compute every mitigation from its reasons; write what differs.

    A mitigation whose reasons are unknown is left alone: its lease ends it. One whose
    record was lost is written again, if limits allow its start.
    """
    state = change.state
    for key, entry in tuple(state.reasons.items()):
        change.set_fallback(key, cause_of(entry.reason))
    for name in tuple(state.demands):
        demand = state.demands.get(name)
        if not demand:
            continue  # it was a fallback, and what it stood for started
        reason = state.reasons[next(iter(demand))].reason
        change.recompute(name, cause_of(reason))


def apply_policy(change: Transition) -> None:
    """Narrow what is in force to what today's policy and guardrails allow.

    It never starts or widens anything.
    """
    holding = [pair for pair in change.state.reasons.items() if pair[1].holds]
    for key, entry in holding:
        _narrow(change, key, entry)
    # Whatever the reasons' digests: the policy before may have had higher limits, and
    # today's may be the one that decided about them before that.
    _apply_limits(change)


def _restore_reason(
    context: DecisionContext, state: State, reason: Reason, at: datetime, moment: Moment
) -> None:
    clock, age = moment.clock, max((moment.now - at).total_seconds(), 0.0)
    ends = clock + reason.lease_ms / 1000 - age
    holds = not reason.closed and ends > clock
    retention = context.closed_retention if reason.closed else context.ended_retention
    due = ends if holds else max(ends, clock - age) + retention
    keys = tuple(key_of_want(want) for want in reason.wants)
    fallback = holds and any(
        name in state.waiting
        for name, want in zip(keys, reason.wants, strict=True)
        if not want.fallback
    )
    entry = ReasonEntry(reason, keys, ends, due, holds, fallback)
    state.put_reason(key_of_reason(reason), entry)


def _restore_mitigation(
    context: DecisionContext,
    state: State,
    record: Mitigation,
    at: datetime,
    moment: Moment,
) -> None:
    clock, age = moment.clock, max((moment.now - at).total_seconds(), 0.0)
    ends = clock + record.lease_ms / 1000 - age
    due = ends
    if record.state == ENDED:
        due = clock - age + context.ended_retention
    state.put_mitigation(record.key, MitigationEntry(record, ends, due))
    if record.started_at != EPOCH and record.kind not in {NOTIFY, PAUSE}:
        state.counts[record.dry_run].start(record.started_at)


def _narrow(change: Transition, key: ReasonKey, entry: ReasonEntry) -> None:
    """Let a reason lose what today's policy does not want any more."""
    context, reason = change.context, entry.reason
    by_rule = key.scope != OPERATOR and reason.policy_digest != context.policy.digest
    wants: list[Want] = []
    left = lease = entry.ends - change.moment.clock
    lost: dict[str, str] = {}
    for want, name in zip(reason.wants, entry.keys, strict=True):
        kept, because = narrow(change, reason, want)
        if kept is None:
            lost[name] = because
            continue
        action = action_of(context.policy, reason, fallback=want.fallback)
        if by_rule and action is not None:
            lease = min(lease, _longest(context, reason, action))
        wants.append(kept)
    if tuple(wants) == reason.wants and left - lease < _PRECISION:
        return
    narrowed = replace(
        reason,
        wants=tuple(wants),
        lease_ms=max(round(lease * 1000), 0),
        # Without measures, the next status update is decided by today's policy.
        policy_digest=context.policy.digest if wants else "",
    )
    change.put_reason(key, narrowed, holds=True)
    for name in entry.keys:
        still = cause_of(narrowed, POLICY)
        change.recompute(name, _LOST[lost[name]] if name in lost else still)
    change.set_fallback(key, cause_of(narrowed, POLICY))


def _longest(context: DecisionContext, reason: Reason, action: Action) -> float:
    """Return the longest lease that an action allows a reason, in seconds."""
    if reason.renewals and reason.part == ATTACK:
        return action.lease
    return max(action.lease, context.fastnetmon_ban_time)


def _apply_limits(change: Transition) -> None:
    """Let the mitigations that started last become proposals where a limit is lower.

    What a person approved stays, and a hostgroup's measure that relieves a limit;
    neither uses up the others' limits here.
    """
    state = change.state
    kept = {dry_run: Counts() for dry_run in state.counts}
    subject = [record for record in state.active() if _is_subject(state, record)]
    for record in sorted(subject, key=lambda record: record.started_at):
        counts = kept[record.dry_run]
        held = _exceeded(change, record, counts)
        if not held:
            network = guardrails.protected_network(
                measure_of(record), change.context.policy.limits.own
            )
            counts.add(network, record.customer)
            continue
        entry = state.mitigations[record.key]
        cause = f"lower limits: {', '.join(check.text for check in held)}"
        lower = replace(
            record,
            state=PROPOSED,
            held_by=tuple(check.code for check in held),
            cause=cause,
            revision=record.revision + 1,
        )
        change.put_mitigation(record.key, lower, entry.ends)
        change.report(PROPOSED, cause, code=held[0].code, key=record.key, checks=held)
    state.sort_waiting()


def _is_subject(state: State, record: Mitigation) -> bool:
    """Return whether a lower limit can end a mitigation."""
    if record.state != WANTED or record.kind == NOTIFY or record.approved is not None:
        return False
    demand = state.demands.get(record.key)
    return demand is None or not any(terms.fallback for terms in demand.terms())


def _exceeded(
    change: Transition, record: Mitigation, counts: Counts
) -> tuple[Check, ...]:
    """Return the limits that hold a mitigation, whatever started before it."""
    policy = change.context.policy
    customer = next((c for c in policy.customers if c.name == record.customer), None)
    checks = guardrails.check_limits(
        measure_of(record), counts.view(change.moment.now), policy.limits, customer
    )
    return tuple(check for check in checks if check.verdict == HOLD)
