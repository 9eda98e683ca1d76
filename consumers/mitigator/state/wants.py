"""Wants: the measures that a reason's record lists."""

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
    """Return what an action wants of a measure: one want for each place."""
    return tuple(
        _want(measure, action, place, fallback=fallback)
        for place in sorted(set(action.enforcers)) or ("",)
    )


def _want(measure: Measure, action: Action, place: str, *, fallback: bool) -> Want:
    return Want(
        place=place,
        kind=measure.kind,
        prefix=measure.prefix,
        flow=measure.flow,
        effect=Effect(
            then=measure.then,
            communities=tuple(sorted(set(measure.communities))),
        ),
        dry_run=action.dry_run,
        approval=action.approval,
        fallback=fallback,
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
    """Return the key of the mitigation that a want is about."""
    return mitigation_key(measure_of_want(want).key, want.place)


def terms_of_want(want: Want, *, dry_run: bool) -> Terms:
    """Return what is asked of the measure.

    Args:
        want: of a reason.
        dry_run: whether the whole mitigator is in dry run.
    """
    effect = want.effect or _NO_EFFECT
    return Terms(
        effect,
        dry_run=want.dry_run or dry_run,
        approval=want.approval,
        fallback=want.fallback,
    )


def fits(wants: tuple[Want, ...]) -> bool:
    """Return whether a reason's record with these wants stays within its bound."""
    return len(msgspec.json.encode(wants)) <= MAX_WANTS_BYTES


def without_lone_fallbacks(wants: tuple[Want, ...]) -> tuple[Want, ...]:
    """Return *wants*, or none if only fallbacks are left: they relieve nothing."""
    return () if all(want.fallback for want in wants) else wants


def action_of(
    policy: Policy, reason: Reason, *, fallback: bool = False
) -> Action | None:
    """Return the action that a reason's rule has now; None if there is none any more.

    Args:
        policy: today's.
        reason: made by a rule, today's or an earlier one of the same name.
        fallback: whether the hostgroup's action is meant that relieves a limit.
    """
    rule = policy.rule(reason.rule)
    if rule is None or (fallback and rule.action.when_limited != HOSTGROUP):
        return None
    if fallback or rule.action.action == HOSTGROUP:
        return action_of_hostgroup(policy, rule.action, reason.hostgroup)
    return rule.action


def action_of_hostgroup(
    policy: Policy, asking: Action, hostgroup: str | None
) -> Action | None:
    """Return a hostgroup's action, as far as the action that asks for it allows it.

    A trial or an approval of the host's own measure holds for the hostgroup's, too.
    """
    action = policy.hostgroups.get(hostgroup or "")
    if action is None or not (asking.dry_run or asking.approval):
        return action
    return replace(
        action,
        dry_run=action.dry_run or asking.dry_run,
        approval=action.approval or asking.approval,
    )
