"""Renew: a status update renews the leases that its attack's ban started."""

from typing import Final

from msgspec.structs import replace

from consumers.mitigation.measure import NOTIFY
from consumers.mitigation.reason_key import ATTACK, OPERATOR, ReasonKey
from consumers.mitigation.states import GUARDRAIL, POLICY
from consumers.mitigator.decisions.lease import lease_of
from consumers.mitigator.decisions.start import cause_of, start_mitigations
from consumers.mitigator.state.recompute import recompute, set_fallback
from consumers.mitigator.state.transition import Transition
from consumers.mitigator.state.wants import (
    action_of,
    measure_of_want,
    without_lone_fallbacks,
)
from consumers.policy import guardrails
from consumers.policy.facts import AttackFacts
from consumers.policy.guardrails import REFUSE
from consumers.policy.model import IGNORE, Action
from fnm_bus import __version__
from fnm_bus.event import Reason, Want

_RENEW_AFTER: Final = 1 / 3
"""Share of a lease; an earlier status update changes nothing."""


def may_be_same_attack(reason: Reason, facts: AttackFacts) -> bool:
    """Return False if a reason and an event name two different attacks."""
    return "" in {reason.attack, facts.attack} or reason.attack == facts.attack


def renew_reason(
    transition: Transition, facts: AttackFacts, reason_key: ReasonKey
) -> None:
    """Renew one reason of a status update's target.

    The policy decides again if it ignored the attack, or if it changed and left the
    reason without measures.
    """
    policy = transition.context.policy
    entry = transition.state.reasons[reason_key]
    reason = entry.reason
    is_attack = reason_key.part == ATTACK
    has_new_policy = reason.policy_digest != policy.digest
    if is_attack and not reason.wants:
        if not reason.rule or has_new_policy:
            start_mitigations(transition, facts, ())
        return
    narrowed = (narrow_want(transition, reason, want)[0] for want in reason.wants)
    wants = without_lone_fallbacks(tuple(want for want in narrowed if want is not None))
    if is_attack and not wants and has_new_policy:
        start_mitigations(transition, facts, ())
        return
    lease = lease_of(transition.context, reason, renewed=is_attack)
    previous_lease = reason.lease_ms / 1000
    used = transition.moment.clock - (entry.ends - previous_lease)
    is_early = used < min(lease, previous_lease) * _RENEW_AFTER
    if entry.active and reason.renewals and is_early:
        return
    renewed = replace(
        reason,
        sequence=facts.sequence if is_attack else reason.sequence,
        action=facts.action if is_attack else reason.action,
        event_id=facts.event_id if is_attack else reason.event_id,
        attack=reason.attack or facts.attack,
        received_at=facts.received_at,
        lease_ms=round(lease * 1000),
        renewals=reason.renewals + 1,
        wants=wants,
        producer_version=__version__,
    )
    transition.put_reason(reason_key, renewed, active=True)
    cause = cause_of(renewed, GUARDRAIL)
    for key in entry.keys:
        recompute(transition, key, cause)
    set_fallback(transition, reason_key, cause)


def narrow_want(
    transition: Transition, reason: Reason, want: Want
) -> tuple[Want | None, str]:
    """Return a want as far as the present policy allows it.

    A changed policy can only narrow it: to a dry run, or to approval by a person.

    Returns:
        The want and "", or None and why the mitigation ends.
    """
    policy = transition.context.policy
    action = action_of(policy, reason, fallback=want.fallback)
    is_changed = reason.scope != OPERATOR and reason.policy_digest != policy.digest
    if is_changed and not _covers(action, want):
        return None, POLICY
    checks = guardrails.check_measure(
        measure_of_want(want), policy.limits, named=action.prefixes if action else ()
    )
    if guardrails.worst_verdict(checks) == REFUSE:
        return None, GUARDRAIL
    if not is_changed or action is None:
        return want, ""
    dry_run = want.dry_run or action.dry_run
    return replace(want, dry_run=dry_run, approval=want.approval or action.approval), ""


def _covers(action: Action | None, want: Want) -> bool:
    """Return whether an action still allows the effect of a want on traffic."""
    if action is None:
        return False
    return want.kind == NOTIFY or action.action not in {NOTIFY, IGNORE}
