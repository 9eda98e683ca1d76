"""Wants: the measures in a reason's record."""

from dataclasses import replace
from typing import Final

import msgspec

from consumers.mitigation.measure import Measure
from consumers.mitigation.reason_key import mitigation_key
from consumers.mitigator.state.demand import Terms
from consumers.policy.model import HOSTGROUP, Action, Policy
from fnm_bus.event import Effect, Reason, Want

MAX_WANTS_BYTES: Final = 120_000
"""A reason's record has at most 128 kB."""
_NO_EFFECT: Final = Effect()


def wants_of(
    measure: Measure, action: Action, *, fallback: bool = False
) -> tuple[Want, ...]:
    """Return an action's wants of a measure, one for each place."""
    communities = tuple(sorted(set(measure.communities)))
    return tuple(
        Want(
            place=place,
            kind=measure.kind,
            prefix=measure.prefix,
            flow=measure.flow,
            effect=Effect(then=measure.then, communities=communities),
            dry_run=action.dry_run,
            approval=action.approval,
            fallback=fallback,
        )
        for place in sorted(set(action.enforcers)) or ("",)
    )


def measure_of_want(want: Want) -> Measure:
    """Return the measure of a want."""
    effect = want.effect or _NO_EFFECT
    return Measure(
        kind=want.kind,
        prefix=want.prefix,
        flow=want.flow,
        then=effect.then,
        communities=effect.communities,
    )


def key_of_want(want: Want) -> str:
    """Return the key of a want's mitigation."""
    return mitigation_key(measure_of_want(want).key, want.place)


def terms_of_want(want: Want, *, dry_run: bool) -> Terms:
    """Return the terms of a want."""
    effect = want.effect or _NO_EFFECT
    return Terms(
        effect,
        dry_run=want.dry_run or dry_run,
        approval=want.approval,
        fallback=want.fallback,
    )


def is_within_bound(wants: tuple[Want, ...]) -> bool:
    """Return whether a reason's record has room for these wants."""
    return len(msgspec.json.encode(wants)) <= MAX_WANTS_BYTES


def without_lone_fallbacks(wants: tuple[Want, ...]) -> tuple[Want, ...]:
    """Return *wants*, or () if only fallbacks are left: these relieve nothing."""
    return () if all(want.fallback for want in wants) else wants


def action_of(
    policy: Policy, reason: Reason, *, fallback: bool = False
) -> Action | None:
    """Return the present action of a reason's rule, or None.

    Args:
        policy: today's policy.
        reason: made by this rule, or by an earlier one with the same name.
        fallback: whether to return the hostgroup's action that relieves a limit.
    """
    rule = policy.rule(reason.rule)
    if rule is None or (fallback and rule.action.when_limited != HOSTGROUP):
        return None
    if fallback or rule.action.action == HOSTGROUP:
        return action_of_hostgroup(policy, rule.action, reason.hostgroup)
    return rule.action


def action_of_hostgroup(
    policy: Policy, requesting: Action, hostgroup: str | None
) -> Action | None:
    """Return a hostgroup's action, limited by the action that requests it.

    If the host's own measure is a dry run or needs approval, so does the hostgroup's.
    """
    action = policy.hostgroups.get(hostgroup or "")
    if action is None or not (requesting.dry_run or requesting.approval):
        return action
    return replace(
        action,
        dry_run=action.dry_run or requesting.dry_run,
        approval=action.approval or requesting.approval,
    )
