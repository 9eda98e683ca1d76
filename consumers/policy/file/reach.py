"""Reach of rules: conditions that no event meets, and rules that are never tried."""

from collections.abc import Iterator
from typing import Final

from consumers.policy.facts import DEFAULT_HOSTGROUP, OPENS
from consumers.policy.file.problems import Problem
from consumers.policy.model import BLOCKING, Match, Policy, Rule
from consumers.policy.networks import is_within

_SCOPES: Final = frozenset({"host", "hostgroup"})
_WORDS: Final = (
    ("scopes", _SCOPES),
    ("actions", OPENS),
    *((name, None) for name in ("hostgroups", "protocols")),
    *((name, None) for name in ("thresholds", "severities", "sensors")),
)
"""Conditions that are words, each with all possible words if these are fixed."""
_SIZES: Final = ("pps", "bits")


def impossible_conditions(policy: Policy) -> Iterator[Problem]:
    """Yield the conditions that no event meets, or no event of an own network."""
    for number, rule in enumerate(policy.rules):
        at = ("rule", number, "match")
        match = rule.match
        for unit in _SIZES:
            low, high = getattr(match, f"min_{unit}"), getattr(match, f"max_{unit}")
            if low is not None and high is not None and low >= high:
                text = f"must be less than max_{unit} = {high}, got {low}"
                yield Problem((*at, f"min_{unit}"), text)
        if match.scopes == {"hostgroup"} and match.actions == {"partial_block"}:
            text = 'never matches: partial blocks are about hosts; scope = "host"'
            yield Problem((*at, "action"), text)
        if match.hostgroups == {DEFAULT_HOSTGROUP} and match.scopes == {"host"}:
            text = (
                f'never matches: "{DEFAULT_HOSTGROUP}" is FastNetMon\'s word for a host'
                ' in no hostgroup; write hostgroup = "none"'
            )
            yield Problem((*at, "hostgroup"), text)
        for place, prefix in enumerate(match.prefixes):
            if policy.limits.own.overlapping(prefix) is None:
                text = f"{prefix} is outside your own networks: no measure is allowed"
                yield Problem((*at, "prefix", place), text)


def unreachable_rules(policy: Policy) -> Iterator[Problem]:
    """Yield the rules whose events all match an earlier rule."""
    for number, rule in enumerate(policy.rules):
        for earlier in policy.rules[:number]:
            if covers(earlier, rule):
                text = (
                    f'is never tried: the earlier rule "{earlier.name}" matches each of'
                    " its events; move it up, or remove it"
                )
                yield Problem(("rule", number), text)
                break


def covers(wide: Rule, narrow: Rule) -> bool:
    """Return whether every event that *narrow* matches is matched by *wide*."""
    outer, inner = wide.match, narrow.match
    words = all(
        _words_cover(getattr(outer, name), getattr(inner, name), every)
        for name, every in _WORDS
    )
    prefixes = not outer.prefixes or (
        bool(inner.prefixes)
        and all(any(is_within(n, w) for w in outer.prefixes) for n in inner.prefixes)
    )
    return (
        words
        and prefixes
        and _directions_cover(wide, narrow)
        and outer.flow_spec in {None, inner.flow_spec}
        and all(_sizes_cover(outer, inner, unit) for unit in _SIZES)
    )


def _words_cover(
    wide: frozenset[str], narrow: frozenset[str], every: frozenset[str] | None
) -> bool:
    if not wide or (every is not None and wide >= every):
        return True
    return bool(narrow) and narrow <= wide


def _directions_cover(wide: Rule, narrow: Rule) -> bool:
    """A blocking rule without a direction matches no outgoing attack."""
    outer, inner = wide.match.directions, narrow.match.directions
    if outer:
        return bool(inner) and inner <= outer
    if wide.action.action not in BLOCKING:
        return True
    if inner:
        return "outgoing" not in inner
    return narrow.action.action in BLOCKING


def _sizes_cover(wide: Match, narrow: Match, unit: str) -> bool:
    low, high = getattr(wide, f"min_{unit}"), getattr(wide, f"max_{unit}")
    if low is None and high is None:
        return True
    least, most = getattr(narrow, f"min_{unit}"), getattr(narrow, f"max_{unit}")
    if least is None and most is None:  # an event without a size matches
        return False
    return (low is None or (least or 0) >= low) and (
        high is None or (most is not None and most <= high)
    )
