"""Takeover: the restored state under a policy that may have changed."""

from collections.abc import Callable, Iterator
from typing import Final

from msgspec.structs import replace

from consumers.mitigation.measure import NOTIFY, measure_of
from consumers.mitigation.reason_key import ATTACK, OPERATOR, ReasonKey
from consumers.mitigation.states import (
    ENDED,
    GUARDRAIL,
    PAUSE,
    POLICY,
    PROPOSED,
    WANTED,
)
from consumers.mitigator.decisions.expire import (
    EXPIRED,
    TransitionFactory,
    run_isolated,
)
from consumers.mitigator.decisions.lease import lease_of
from consumers.mitigator.decisions.renew import narrow_want
from consumers.mitigator.decisions.start import cause_of
from consumers.mitigator.state.counts import Counts
from consumers.mitigator.state.entries import ReasonEntry
from consumers.mitigator.state.next_record import ChangeCause
from consumers.mitigator.state.recompute import put_mitigation, recompute, set_fallback
from consumers.mitigator.state.start_limits import check_limits
from consumers.mitigator.state.state import State
from consumers.mitigator.state.transition import Transition
from consumers.mitigator.state.wants import without_lone_fallbacks
from consumers.policy import guardrails
from consumers.policy.guardrails import HOLD
from fnm_bus.event import Check, Mitigation, Want

_PRECISION: Final = 0.001
"""Seconds; records have leases in milliseconds."""
_LOST: Final = {
    POLICY: ChangeCause(
        text="the policy does not want it any more", ended_because=POLICY
    ),
    GUARDRAIL: ChangeCause(text="a guardrail refuses it now", ended_because=GUARDRAIL),
}


def take_over(state: State, new_transition: TransitionFactory) -> Iterator[Transition]:
    """Apply the present policy to every reason, and recompute every mitigation.

    Nothing starts or widens that was not in force. A mitigation without a known reason
    remains until its lease ends. An expired one ends before any event is read, so that
    the next attack inherits neither a person's decision nor an earlier start. A
    mitigation whose record was lost is written again, if limits allow its start.

    Yields:
        A transition for each reason and mitigation, empty where nothing differs. One
        whose processing fails is logged and undone; the mitigation's lease ends it.
    """

    def isolated(
        step: Callable[..., object], *arguments: object
    ) -> Iterator[Transition]:
        transition = run_isolated(new_transition, step, *arguments)
        if transition is not None:
            yield transition

    for reason_key, entry in tuple(state.reasons.items()):
        if entry.active:
            yield from isolated(_narrow, reason_key, entry)
    for record, codes in _limited_mitigations(state, new_transition()):
        yield from isolated(_limit, record, codes)
    state.sort_waiting()
    for key in tuple(state.mitigations):
        yield from isolated(_end_expired, key)
    for reason_key, entry in tuple(state.reasons.items()):
        yield from isolated(set_fallback, reason_key, cause_of(entry.reason))
    for key in tuple(state.demands):
        yield from isolated(_recompute, key)


def _end_expired(transition: Transition, key: str) -> None:
    entry = transition.state.mitigations[key]
    is_active = entry.record.state != ENDED and entry.record.kind != PAUSE
    is_expired = entry.ends <= transition.moment.clock
    if is_active and is_expired and key not in transition.state.demands:
        recompute(transition, key, EXPIRED)


def _recompute(transition: Transition, key: str) -> None:
    demand = transition.state.demands.get(key)
    if demand:  # a fallback has none any more if the host's own measure started
        reason = transition.state.reasons[next(iter(demand))].reason
        recompute(transition, key, cause_of(reason))


def _narrow(transition: Transition, reason_key: ReasonKey, entry: ReasonEntry) -> None:
    """Remove the wants that the present policy does not allow."""
    context, reason = transition.context, entry.reason
    is_changed = (
        reason_key.scope != OPERATOR and reason.policy_digest != context.policy.digest
    )
    kept: list[Want] = []
    left = lease = entry.ends - transition.moment.clock
    lost: dict[str, str] = {}
    for want, key in zip(reason.wants, entry.keys, strict=True):
        narrowed, ended_because = narrow_want(transition, reason, want)
        if narrowed is None:
            lost[key] = ended_because
            continue
        if is_changed:  # narrow_want made sure that the policy has its action
            renewed = reason.renewals > 0 and reason.part == ATTACK
            fallback = want.fallback
            longest = lease_of(context, reason, renewed=renewed, fallback=fallback)
            lease = min(lease, longest)
        kept.append(narrowed)
    wants = without_lone_fallbacks(tuple(kept))
    if wants == reason.wants and left - lease < _PRECISION:
        return
    reason = replace(
        reason,
        wants=wants,
        lease_ms=max(round(lease * 1000), 0),
        # Without measures, the present policy decides about the next status update.
        policy_digest=context.policy.digest if wants else "",
    )
    transition.put_reason(reason_key, reason, active=True)
    cause = cause_of(reason, POLICY)
    for key in entry.keys:
        recompute(transition, key, _LOST[lost[key]] if key in lost else cause)
    set_fallback(transition, reason_key, cause)


def _limited_mitigations(
    state: State, transition: Transition
) -> Iterator[tuple[Mitigation, tuple[Check, ...]]]:
    """Yield mitigations that started under other limits, with the checks that hold.

    The mitigations that started last are held first. A takeover with an unchanged
    policy ends no mitigation. Approved mitigations and hostgroups' fallbacks are not
    limited, and do not count here.
    """
    policy = transition.context.policy
    limitable = [record for record in state.active() if _is_limitable(state, record)]
    if all(record.limits_digest == policy.digest for record in limitable):
        return
    allowed = {dry_run: Counts() for dry_run in state.counts}
    for record in sorted(limitable, key=lambda record: record.started_at):
        counts = allowed[record.dry_run]
        active = counts.at(transition.moment.now)
        limits = check_limits(policy, measure_of(record), record.customer, active)
        checks = tuple(check for check in limits if check.verdict == HOLD)
        if not checks:
            network = guardrails.attacked_network(measure_of(record), policy.limits.own)
            counts.add(network, record.customer)
        if checks or record.limits_digest != policy.digest:
            yield record, checks


def _limit(
    transition: Transition, record: Mitigation, checks: tuple[Check, ...]
) -> None:
    """Write a mitigation that present limits allow, or hold with *checks*."""
    entry = transition.state.mitigations[record.key]
    limited = replace(record, limits_digest=transition.context.policy.digest)
    if checks:
        cause = f"lower limits: {', '.join(check.text for check in checks)}"
        limited = replace(
            limited,
            state=PROPOSED,
            held_by=tuple(check.code for check in checks),
            cause=cause,
            revision=record.revision + 1,
        )
        transition.add_audit(
            PROPOSED, cause, code=checks[0].code, key=record.key, checks=checks
        )
    put_mitigation(transition, record.key, limited, entry.ends)


def _is_limitable(state: State, record: Mitigation) -> bool:
    """Return whether a lower limit can end a mitigation."""
    if record.state != WANTED or record.kind == NOTIFY or record.approved is not None:
        return False
    demand = state.demands.get(record.key)
    return demand is None or not any(terms.fallback for terms in demand.terms())
