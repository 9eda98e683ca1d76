"""Policy reach: rules that no event comes to, because of themselves or of others."""

from collections.abc import Iterator
from typing import Final

from consumers.policy.facts import OPENS
from consumers.policy.model import Match, Policy, within
from consumers.policy.file.mistakes import Problem

_SCOPES: Final = frozenset({"host", "hostgroup"})
_WORDS: Final = (
    ("scopes", _SCOPES),
    ("actions", OPENS),
    *((it, None) for it in ("hostgroups", "directions", "protocols")),
    *((it, None) for it in ("thresholds", "severities", "sensors")),
)
"""Conditions that are words, and all words that there are where that is certain."""
_SIZES: Final = ("pps", "bits")


def impossible(policy: Policy) -> Iterator[Problem]:
    """Yield the conditions that no event meets, or none that may be acted on."""
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
        for place, prefix in enumerate(match.prefixes):
            own = policy.limits.own
            if not any(within(prefix, it) or within(it, prefix) for it in own):
                text = f"{prefix} is outside your own networks: nothing may be done"
                yield Problem((*at, "prefix", place), text)


def unreachable(policy: Policy) -> Iterator[Problem]:
    """Yield the rules before which another one takes all that they match."""
    for number, rule in enumerate(policy.rules):
        for before in policy.rules[:number]:
            if covers(before.match, rule.match):
                text = (
                    f'is never asked: rule "{before.name}" before it matches all that'
                    " it does; move it up, or take it out"
                )
                yield Problem(("rule", number), text)
                break


def covers(wide: Match, narrow: Match) -> bool:
    """Return whether every event that *narrow* matches is matched by *wide*."""
    words = all(
        _words_cover(getattr(wide, name), getattr(narrow, name), every)
        for name, every in _WORDS
    )
    prefixes = not wide.prefixes or (
        bool(narrow.prefixes)
        and all(any(within(n, w) for w in wide.prefixes) for n in narrow.prefixes)
    )
    flow_spec = wide.flow_spec in {None, narrow.flow_spec}
    sizes = all(_sizes_cover(wide, narrow, unit) for unit in _SIZES)
    return words and prefixes and flow_spec and sizes


def _words_cover(
    wide: frozenset[str], narrow: frozenset[str], every: frozenset[str] | None
) -> bool:
    if not wide or (every is not None and wide >= every):
        return True
    return bool(narrow) and narrow <= wide


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
