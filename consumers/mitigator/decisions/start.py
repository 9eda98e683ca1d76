"""Start: an attack's reason, with the measures of its start request."""

from typing import Final

from msgspec.structs import replace

from consumers.mitigation.reason_key import ATTACK
from consumers.mitigation.states import POLICY, SUPERSEDED
from consumers.mitigator.context import DecisionContext
from consumers.mitigator.decisions.lease import lease_of
from consumers.mitigator.decisions.start_request import StartRequest, request_start
from consumers.mitigator.state.call_order import STATUS, last_event_of
from consumers.mitigator.state.entries import ReasonEntry
from consumers.mitigator.state.next_record import ChangeCause
from consumers.mitigator.state.recompute import recompute, set_fallback
from consumers.mitigator.state.transition import Transition
from consumers.policy.facts import AttackFacts
from consumers.policy.flow_rules import refusal
from fnm_bus import __version__
from fnm_bus.event import Check, Reason, Want

MAX_REASONS: Final = 200_000


def start_mitigations(
    transition: Transition, facts: AttackFacts, checks: tuple[Check, ...]
) -> None:
    """Let the policy decide about an attack, and open its reason."""
    request = request_start(transition, facts, checks)
    reason_key = facts.reason_key
    entry = transition.state.reasons.get(reason_key)
    if request is None:
        _remove_wants(transition, facts, entry)
        return
    _report_refusals(transition, facts, request)
    rule, wants = request.rule.name, request.wants
    if not wants and request.refusals and entry is not None and entry.active:
        # A refused measure ends no allowed one. The hostgroup belongs to the rule.
        rule, wants = entry.reason.rule, entry.reason.wants
        facts = facts._replace(hostgroup=entry.reason.hostgroup)
    # A status update has no rules: it must not block more than a ban that was refused.
    if not wants and entry is None and not facts.has_rules:
        transition.ignore_attack(reason_key, last_event_of(facts))
        return
    if not _has_room(transition, facts, entry):
        return
    reason = _new_reason(transition.context, facts, rule, wants, entry)
    transition.put_reason(reason_key, reason, active=True)
    _recompute_wanted(transition, facts, request, entry, reason)


def _report_refusals(
    transition: Transition, facts: AttackFacts, request: StartRequest
) -> None:
    """Report all refused measures in one audit record."""
    if not request.refusals:
        return
    key, check = request.refusals[0]
    others = len(request.refusals) - 1
    if others:
        check = replace(check, text=f"{check.text}; {others} more were refused")
    refusals = (refusal for _key, refusal in request.refusals)
    checks = tuple(dict.fromkeys((*request.checks, *refusals)))
    transition.audit_refused(facts, check, checks, key=key, rule=request.rule.name)


def remember_old_ban(
    transition: Transition, facts: AttackFacts, entry: ReasonEntry | None
) -> None:
    """Remember the wants of a ban that is too old to start anything.

    A recent status update of its attack renews them.
    """
    if entry is not None and entry.active:
        return
    request = request_start(transition, facts, (), quiet=True)
    if request is None or not request.wants:
        return
    if not _has_room(transition, facts, entry):
        return
    context, rule = transition.context, request.rule.name
    reason = _new_reason(context, facts, rule, request.wants, entry)
    # Without a lease: the next mitigator must not take it for an active reason.
    reason = replace(reason, lease_ms=0)
    transition.put_reason(facts.reason_key, reason, active=False)


def _remove_wants(
    transition: Transition, facts: AttackFacts, entry: ReasonEntry | None
) -> None:
    """Remove the wants of an attack that the policy ignores.

    The reason's record remains, because it has the previous attack.
    """
    reason_key = facts.reason_key
    if entry is None:
        transition.ignore_attack(reason_key, last_event_of(facts))
        return
    reason = replace(_new_reason(transition.context, facts, "", (), entry), lease_ms=0)
    transition.put_reason(reason_key, reason, active=False)
    cause = ChangeCause(
        text="the policy ignores its attack now",
        ended_because=POLICY,
        closed_lease=entry.reason.lease_ms / 1000,
    )
    for key in entry.keys if entry.active else ():
        recompute(transition, key, cause, facts=facts)


def make_room(transition: Transition) -> bool:
    """Return whether a reason can be added; forget the oldest inactive one if full."""
    state = transition.state
    if len(state.reasons) < MAX_REASONS:
        return True
    oldest = next(iter(state.inactive), None)
    if oldest is None:
        return False
    transition.forget_reason(oldest)
    return True


def _has_room(
    transition: Transition, facts: AttackFacts, entry: ReasonEntry | None
) -> bool:
    """Return whether an attack's reason can be stored; report it otherwise."""
    if entry is not None or make_room(transition):
        return True
    text = f"{MAX_REASONS} reasons are active already"
    check = refusal("reasons", "too_many_reasons", text, "limit")
    transition.audit_refused(facts, check, (check,))
    return False


def previous_attack(reason: Reason | None, attack: str) -> str:
    """Return the attack before *attack* on a reason's target, or ""."""
    if reason is None:
        return ""
    return reason.previous_attack if reason.attack == attack else reason.attack


def _new_reason(
    context: DecisionContext,
    facts: AttackFacts,
    rule: str,
    wants: tuple[Want, ...],
    entry: ReasonEntry | None,
) -> Reason:
    previous = entry.reason if entry else None
    reason = Reason(
        sensor=facts.sensor,
        scope=facts.scope,
        target=facts.target,
        part=facts.part,
        sequence=max(facts.sequence, previous.sequence if previous else 0),
        attack=facts.attack,
        previous_attack=previous_attack(previous, facts.attack),
        action=facts.action,
        event_id=facts.event_id,
        received_at=facts.received_at,
        rule=rule,
        policy_digest=context.policy.digest,
        hostgroup=facts.hostgroup,
        direction=facts.direction,
        pps=facts.pps,
        bits=facts.bits,
        wants=wants,
        producer_version=__version__,
    )
    renewed = facts.action == STATUS and facts.part == ATTACK
    lease = lease_of(context, reason, renewed=renewed)
    return replace(reason, lease_ms=round(lease * 1000), renewals=int(renewed))


def _recompute_wanted(
    transition: Transition,
    facts: AttackFacts,
    request: StartRequest,
    entry: ReasonEntry | None,
    reason: Reason,
) -> None:
    """Recompute every mitigation that the reason wants, or wanted before."""
    reason_key = facts.reason_key
    keys = transition.state.reasons[reason_key].keys
    cause, checks = cause_of(reason), request.checks
    for want, key in zip(reason.wants, keys, strict=True):
        if not want.fallback:
            guardrail_checks = request.guardrail_checks.get(key, ())
            all_checks = (*checks, *guardrail_checks)
            recompute(transition, key, cause, facts=facts, checks=all_checks)
            checks = checks[-1:]  # the first audit record has all of them
    set_fallback(transition, reason_key, cause)
    for want, key in zip(reason.wants, keys, strict=True):
        if want.fallback:
            recompute(transition, key, cause)
    if entry is None or not entry.active:
        return
    superseded = ChangeCause(
        text=f"rule {reason.rule} wants something else now",
        ended_because=SUPERSEDED,
        closed_lease=entry.reason.lease_ms / 1000,
    )
    for key in entry.keys:
        if key not in keys:
            recompute(transition, key, superseded, facts=facts)


def cause_of(reason: Reason, ended_because: str = SUPERSEDED) -> ChangeCause:
    """Return a reason as the cause of its mitigations' changes."""
    rule = f": rule {reason.rule}" if reason.rule else ""
    return ChangeCause(
        text=f"{reason.action} by {reason.sensor or reason.by}{rule}",
        ended_because=ended_because,
        hostgroup=reason.hostgroup,
    )
