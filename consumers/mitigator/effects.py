"""Effects: what several reasons together want done to one match.

The strongest action wins, communities and enforcers are united. An approval of an
effect covers the same effect and weaker ones.
"""

from collections.abc import Iterable
from typing import Final

from fnm_bus.event import Effect, FlowThen

MAX_COMMUNITIES: Final = 16
MAX_ENFORCERS: Final = 8
"""Bounds of a united effect; a mitigation record has to stay below 8 kB."""

_ACTIONS: Final = ("redirect", "rate-limit", "discard")
"""From weak to strong."""


def strength(then: FlowThen | None) -> tuple[int, int, int, int]:
    """Return a value that is greater for a stronger action.

    Discard is stronger than a rate limit, a lower rate is stronger than a higher one,
    and redirecting is the weakest, since the packets arrive somewhere.
    """
    if then is None:
        return (len(_ACTIONS), 0, 0, 0)
    rank = _ACTIONS.index(then.action) if then.action in _ACTIONS else -1
    target = (then.redirect_as or 0, then.redirect_value or 0)
    return (rank, -(then.rate or 0), *target)


def unite(effects: Iterable[Effect]) -> Effect:
    """Return the strongest action of *effects* with all communities and enforcers.

    No enforcers in one of the effects means every enforcer that supports the kind.

    Raises:
        ValueError: there are no effects.
    """
    chosen = tuple(effects)
    strongest = max(chosen, key=lambda effect: strength(effect.then))
    communities = {name for effect in chosen for name in effect.communities}
    enforcers = {name for effect in chosen for name in effect.enforcers}
    everywhere = any(not effect.enforcers for effect in chosen)
    if len(enforcers) > MAX_ENFORCERS:
        everywhere = True
    return Effect(
        then=strongest.then,
        communities=tuple(sorted(communities)[:MAX_COMMUNITIES]),
        enforcers=() if everywhere else tuple(sorted(enforcers)),
    )


def covers(approved: Effect | None, wanted: Effect) -> bool:
    """Return whether an approval of one effect is one of *wanted*, too."""
    if approved is None:
        return False
    same_target = _target(approved.then) == _target(wanted.then)
    return (
        strength(wanted.then) <= strength(approved.then)
        and (same_target or (wanted.then is not None and not _redirects(wanted.then)))
        and set(wanted.communities) <= set(approved.communities)
        and (
            not approved.enforcers
            or bool(wanted.enforcers)
            and set(wanted.enforcers) <= set(approved.enforcers)
        )
    )


def describe(then: FlowThen | None) -> str:
    """Return an action for people: `rate-limit 125000 bytes/s`."""
    if then is None:
        return "block"
    if then.action == "rate-limit":
        return f"rate-limit {then.rate} bytes/s"
    if _redirects(then):
        return f"redirect {then.redirect_as}:{then.redirect_value}"
    return then.action


def _redirects(then: FlowThen) -> bool:
    return then.action == "redirect"


def _target(then: FlowThen | None) -> tuple[int | None, int | None] | None:
    return (then.redirect_as, then.redirect_value) if then else None
