"""Renew: how status updates keep the measures that their attack's ban wanted."""

from typing import Final

from msgspec.structs import replace

from consumers.mitigation.measure import NOTIFY
from consumers.mitigation.reason_key import ATTACK, OPERATOR, ReasonKey
from consumers.mitigation.states import GUARDRAIL, POLICY
from consumers.mitigator.decisions.start import cause_of, lease_of, start
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
"""Share of a lease; a status update before that changes nothing."""


def same_attack(reason: Reason, facts: AttackFacts) -> bool:
    """Return whether an event may be about the attack of a reason.

    It is not when both name an attack, and not the same one.
    """
    return "" in {reason.attack, facts.attack} or reason.attack == facts.attack


def renew(change: Transition, facts: AttackFacts, key: ReasonKey) -> None:
    """Let a status update renew one reason of its target.

    The policy decides anew where it ignored the attack, and where it changed and left
    the reason without measures.
    """
    entry = change.state.reasons[key]
    before = entry.reason
    is_attack = key.part == ATTACK
    if is_attack and not before.wants:
        if not before.rule or before.policy_digest != change.context.policy.digest:
            start(change, facts, ())
        return
    narrower = (narrow(change, before, want)[0] for want in before.wants)
    kept = without_lone_fallbacks(tuple(want for want in narrower if want is not None))
    if is_attack and not kept and before.policy_digest != change.context.policy.digest:
        start(change, facts, ())
        return
    lease = lease_of(change.context, before, renewed=is_attack)
    held = before.lease_ms / 1000
    used = change.moment.clock - (entry.ends - held)
    if entry.holds and before.renewals and used < min(lease, held) * _RENEW_AFTER:
        return
    renewed = replace(
        before,
        sequence=facts.sequence if is_attack else before.sequence,
        action=facts.action if is_attack else before.action,
        event_id=facts.event_id if is_attack else before.event_id,
        attack=before.attack or facts.attack,
        received_at=facts.received_at,
        lease_ms=round(lease * 1000),
        renewals=before.renewals + 1,
        wants=kept,
        producer_version=__version__,
    )
    change.put_reason(key, renewed, holds=True)
    cause = cause_of(renewed, GUARDRAIL)
    for name in entry.keys:
        change.recompute(name, cause)
    change.set_fallback(key, cause)


def narrow(change: Transition, reason: Reason, want: Want) -> tuple[Want | None, str]:
    """Return what today's policy leaves of a want; None, and why, if nothing.

    A policy that changed can only narrow it: to a dry run, to what needs approval.
    """
    policy = change.context.policy
    action = action_of(policy, reason, fallback=want.fallback)
    changed = reason.scope != OPERATOR and reason.policy_digest != policy.digest
    if changed and not _is_wanted(want, action):
        return None, POLICY
    if not is_allowed(change, reason, want):
        return None, GUARDRAIL
    if not changed or action is None:
        return want, ""
    dry_run = want.dry_run or action.dry_run
    return replace(want, dry_run=dry_run, approval=want.approval or action.approval), ""


def is_allowed(change: Transition, reason: Reason, want: Want) -> bool:
    """Return whether today's guardrails allow what a reason wants."""
    policy = change.context.policy
    action = action_of(policy, reason, fallback=want.fallback)
    checks = guardrails.check_measure(
        measure_of_want(want), policy.limits, named=action.prefixes if action else ()
    )
    return guardrails.worst_verdict(checks) != REFUSE


def _is_wanted(want: Want, action: Action | None) -> bool:
    """Return whether an action may still touch traffic in the way of a want."""
    if action is None:
        return False
    return want.kind == NOTIFY or action.action not in {NOTIFY, IGNORE}
