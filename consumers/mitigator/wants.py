"""Wants: the measures that a reason's record lists."""

from typing import Final

import msgspec

from consumers.mitigation.measure import Measure
from consumers.mitigator.demand import Terms
from consumers.policy.model import Action
from fnm_bus.event import Effect, Want

MAX_WANTS_BYTES: Final = 128_000
_NO_EFFECT: Final = Effect()


def want_of(measure: Measure, action: Action, *, fallback: bool = False) -> Want:
    """Return what an action wants of a measure."""
    return Want(
        kind=measure.kind,
        prefix=measure.prefix,
        flow=measure.flow,
        effect=Effect(
            then=measure.then,
            communities=tuple(sorted(set(measure.communities))),
            enforcers=tuple(sorted(set(action.enforcers))),
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


def terms_of_want(want: Want, *, dry_run: bool) -> Terms:
    """Return what is asked of the measure.

    Args:
        want: of a reason.
        dry_run: whether the whole mitigator is in dry run.
    """
    effect = want.effect or _NO_EFFECT
    return Terms(effect, dry_run=want.dry_run or dry_run, approval=want.approval)


def fits(wants: tuple[Want, ...]) -> bool:
    """Return whether a reason's record with these wants stays within its bound."""
    return len(msgspec.json.encode(wants)) <= MAX_WANTS_BYTES
