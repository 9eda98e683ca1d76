"""Takeover: the state from what both topics hold, and a policy that changed.

Pure. The leases of records run from the broker's time of each record, so nothing here
depends on the clock of the mitigator that wrote them, nor on ours.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
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
from consumers.mitigator.context import DecisionContext
from consumers.mitigator.decisions.expire import EXPIRED, Begin, isolate
from consumers.mitigator.decisions.renew import narrow
from consumers.mitigator.decisions.start import cause_of
from consumers.mitigator.state.counts import Counts
from consumers.mitigator.state.next_record import ChangeCause, Moment
from consumers.mitigator.state.state import MitigationEntry, ReasonEntry, State
from consumers.mitigator.state.transition import Transition
from consumers.mitigator.state.wants import (
    action_of,
    key_of_want,
    without_lone_fallbacks,
)
from consumers.policy import guardrails
from consumers.policy.guardrails import HOLD, ActiveCounts
from consumers.policy.model import MAX_LEASE, Action, Policy
from fnm_bus.event import EPOCH, Check, Mitigation, Reason, Want

log = logging.getLogger(__name__)

_PRECISION: Final = 0.001
"""Seconds; records have leases in milliseconds."""
_MAX_LEASE_MS: Final = round(MAX_LEASE * 1000)
_MAX_REVISION: Final = 2**53
_LOST: Final = {
    POLICY: ChangeCause(
        text="the policy does not want it any more", ended_because=POLICY
    ),
    GUARDRAIL: ChangeCause(text="a guardrail refuses it now", ended_because=GUARDRAIL),
}


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """The latest record of a key.

    Attributes:
        record: decoded.
        at: the broker's time of the record, UTC.
    """

    record: Reason | Mitigation
    at: datetime


def restore(
    context: DecisionContext,
    reasons: Iterable[StoredRecord],
    mitigations: Iterable[StoredRecord],
    moment: Moment,
) -> State:
    """Return the state that the latest records of both topics hold.

    A record that cannot be used is logged and left out.
    """
    limits = context.policy.limits
    state = State(limits.own_networks, dry_run=context.dry_run)
    for stored in mitigations:
        _restore(context, state, stored, moment)
    state.sort_waiting()
    for stored in sorted(reasons, key=lambda stored: stored.at):
        _restore(context, state, stored, moment)
    return state


def _restore(
    context: DecisionContext, state: State, stored: StoredRecord, moment: Moment
) -> None:
    record = stored.record
    try:
        if isinstance(record, Mitigation):
            _restore_mitigation(context, state, record, stored.at, moment)
        else:
            _restore_reason(context, state, record, stored.at, moment)
    except Exception:
        log.exception("left out: %.200r", record)


def take_over(state: State, begin: Begin) -> Iterator[Transition]:
    """Narrow what is in force to today's policy, and compute every mitigation again.

    It never starts or widens anything that was not in force. A mitigation whose reasons
    are unknown is left alone: its lease ends it. Where that is over already, it ends
    before anything is read, so that what a person decided about it, and what limits
    allowed it, is not taken for the next attack's. One whose record was lost is written
    again, if limits allow its start.

    Yields:
        A transition for each reason and mitigation, empty where nothing differs. One
        whose processing fails is logged and left as it is; its lease ends it.
    """
    holding = [pair for pair in state.reasons.items() if pair[1].holds]
    for key, entry in holding:
        yield from _isolated(begin, _narrow, key, entry)
    yield from _apply_limits(state, begin)
    for name in tuple(state.mitigations):
        yield from _isolated(begin, _end_expired, name)
    for key, entry in tuple(state.reasons.items()):
        yield from _isolated(
            begin, Transition.set_fallback, key, cause_of(entry.reason)
        )
    for name in tuple(state.demands):
        yield from _isolated(begin, _recompute, name)


def _isolated(
    begin: Begin, step: Callable[..., None], *about: object
) -> Iterator[Transition]:
    change = isolate(begin, step, *about)
    if change is not None:
        yield change


def _end_expired(change: Transition, name: str) -> None:
    entry = change.state.mitigations[name]
    is_active = entry.record.state != ENDED and entry.record.kind != PAUSE
    is_over = entry.ends <= change.moment.clock
    if is_active and is_over and name not in change.state.demands:
        change.recompute(name, EXPIRED)


def _recompute(change: Transition, name: str) -> None:
    demand = change.state.demands.get(name)
    if demand:  # else it was a fallback, and what it stood for started
        reason = change.state.reasons[next(iter(demand))].reason
        change.recompute(name, cause_of(reason))


def _restore_reason(
    context: DecisionContext, state: State, reason: Reason, at: datetime, moment: Moment
) -> None:
    clock, age = moment.clock, max((moment.now - at).total_seconds(), 0.0)
    # Nobody asks for more; a record that claims it must not stop anything.
    reason = replace(reason, lease_ms=min(reason.lease_ms, _MAX_LEASE_MS))
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
    record = replace(
        record,
        # A suppression lasts one lease longer than its reasons.
        lease_ms=min(record.lease_ms, 2 * _MAX_LEASE_MS),
        revision=min(record.revision, _MAX_REVISION),
    )
    ends = clock + record.lease_ms / 1000 - age
    due = ends
    if record.state == ENDED:
        due = clock - age + context.ended_retention
    state.put_mitigation(record.key, MitigationEntry(record, ends, due))
    if record.started_at != EPOCH and record.kind not in {NOTIFY, PAUSE}:
        state.counts[record.started_dry_run].start(record.started_at)


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
    kept_wants = without_lone_fallbacks(tuple(wants))
    if kept_wants == reason.wants and left - lease < _PRECISION:
        return
    narrowed = replace(
        reason,
        wants=kept_wants,
        lease_ms=max(round(lease * 1000), 0),
        # Without measures, the next status update is decided by today's policy.
        policy_digest=context.policy.digest if kept_wants else "",
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


def _apply_limits(state: State, begin: Begin) -> Iterator[Transition]:
    """Let the mitigations that started last become proposals where a limit is lower.

    A takeover with the policy that allowed them ends none, whatever limits they exceed.
    What a person approved stays, and a hostgroup's measure that relieves a limit;
    neither uses up the others' limits here.
    """
    context, moment = begin().context, begin().moment
    digest = context.policy.digest
    subject = [record for record in state.active() if _is_subject(state, record)]
    if all(record.limits_digest == digest for record in subject):
        return
    kept = {dry_run: Counts() for dry_run in state.counts}
    for record in sorted(subject, key=lambda record: record.started_at):
        counts = kept[record.dry_run]
        held = _exceeded(context.policy, record, counts.view(moment.now))
        if not held:
            network = guardrails.protected_network(
                measure_of(record), context.policy.limits.own
            )
            counts.add(network, record.customer)
        if held or record.limits_digest != digest:
            yield from _isolated(begin, _limit, record, held)
    state.sort_waiting()


def _limit(change: Transition, record: Mitigation, held: tuple[Check, ...]) -> None:
    """Write a mitigation that today's limits allow, or that they hold."""
    entry = change.state.mitigations[record.key]
    limited = replace(record, limits_digest=change.context.policy.digest)
    if held:
        cause = f"lower limits: {', '.join(check.text for check in held)}"
        limited = replace(
            limited,
            state=PROPOSED,
            held_by=tuple(check.code for check in held),
            cause=cause,
            revision=record.revision + 1,
        )
        change.report(PROPOSED, cause, code=held[0].code, key=record.key, checks=held)
    change.put_mitigation(record.key, limited, entry.ends)


def _is_subject(state: State, record: Mitigation) -> bool:
    """Return whether a lower limit can end a mitigation."""
    if record.state != WANTED or record.kind == NOTIFY or record.approved is not None:
        return False
    demand = state.demands.get(record.key)
    return demand is None or not any(terms.fallback for terms in demand.terms())


def _exceeded(
    policy: Policy, record: Mitigation, counts: ActiveCounts
) -> tuple[Check, ...]:
    """Return the limits that hold a mitigation, whatever started before it."""
    customer = next((c for c in policy.customers if c.name == record.customer), None)
    checks = guardrails.check_limits(
        measure_of(record), counts, policy.limits, customer
    )
    return tuple(check for check in checks if check.verdict == HOLD)
