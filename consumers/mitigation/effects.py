"""Effects: the united effect of several reasons on one match.

The strongest action wins and communities are united. An approval of an effect covers
the same effect and weaker ones.
"""

from collections.abc import Iterable
from typing import Final

from consumers.mitigation.measure import MAX_COMMUNITIES, Measure
from fnm_bus.event import Effect, FlowThen

DISCARD: Final = "discard"
RATE_LIMIT: Final = "rate-limit"
REDIRECT: Final = "redirect"
_FROM_WEAK_TO_STRONG: Final = (REDIRECT, RATE_LIMIT, DISCARD)


def strength(then: FlowThen | None) -> tuple[int, int, int, int]:
    """Return a value that is greater for a stronger action.

    Discard is stronger than a rate limit, and a lower rate is stronger than a higher
    one. A redirect is the weakest, since redirected packets are not dropped.
    """
    if then is None:
        return (len(_FROM_WEAK_TO_STRONG), 0, 0, 0)
    known_action = then.action in _FROM_WEAK_TO_STRONG
    rank = _FROM_WEAK_TO_STRONG.index(then.action) if known_action else -1
    return (rank, -(then.rate or 0), then.redirect_as or 0, then.redirect_value or 0)


def effect_of(measure: Measure) -> Effect:
    """Return a measure's effect on the traffic that it matches."""
    return Effect(then=measure.then, communities=measure.communities)


def unite(effects: Iterable[Effect]) -> Effect:
    """Return the strongest action of *effects* with all their communities.

    Raises:
        ValueError: there are no effects.
    """
    effects = tuple(effects)
    strongest = max(effects, key=lambda effect: strength(effect.then))
    communities = {name for effect in effects for name in effect.communities}
    return Effect(
        then=strongest.then, communities=tuple(sorted(communities)[:MAX_COMMUNITIES])
    )


def covers(approved: Effect, wanted: Effect) -> bool:
    """Return whether an approval of one effect covers *wanted*.

    It covers the same action and each weaker action except another redirect, but no
    further communities.
    """
    if not set(wanted.communities) <= set(approved.communities):
        return False
    redirects = wanted.then is not None and wanted.then.action == REDIRECT
    if redirects or approved.then is None or wanted.then is None:
        return wanted.then == approved.then
    return strength(wanted.then) <= strength(approved.then)


def describe(then: FlowThen | None) -> str:
    """Return an action for people: `rate-limit 125000 bytes/s`."""
    if then is None:
        return "block"
    if then.action == RATE_LIMIT:
        return f"rate-limit {then.rate} bytes/s"
    if then.action == REDIRECT:
        return f"redirect {then.redirect_as}:{then.redirect_value}"
    return then.action
