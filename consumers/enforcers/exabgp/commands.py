"""ExaBGP's commands for measures.

The form of a measure is the text of its route's attributes. A route is withdrawn with
the attributes of its announcement. ExaBGP has one queue for each set of attributes,
without an order between queues. A withdrawal in another queue may overtake the
announcement and leave a route that no listing shows.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, NamedTuple

from consumers.enforcers.backend import UnsupportedMeasure, require_supported
from consumers.enforcers.exabgp import route_text
from consumers.enforcers.exabgp import vocabulary as words
from consumers.mitigation.measure import BLACKHOLE, FLOWSPEC, Measure

KINDS: Final = frozenset({BLACKHOLE, FLOWSPEC})
"""The kinds of measures that ExaBGP supports."""

_PREFIXES_PER_COMMAND: Final = 1000
_CACHE_SIZE: Final = 1 << 16
_V6: Final = 6


class BlackholeAttributes(NamedTuple):
    """The attributes of all blackhole routes."""

    ipv4_next_hop: str
    ipv6_next_hop: str
    communities: tuple[str, ...]


def form_of(measure: Measure, blackhole: BlackholeAttributes) -> str:
    """Return the attributes of the measure's route, as ExaBGP's text.

    Raises:
        UnsupportedMeasure: no such route exists; the text begins with the key.
    """
    return _route(measure, blackhole).form


def announce_commands(
    measures: Iterable[Measure], blackhole: BlackholeAttributes
) -> list[str]:
    """Return the commands that announce *measures*.

    Raises:
        UnsupportedMeasure: as for `form_of`.
    """
    return _commands("announce", (_route(measure, blackhole) for measure in measures))


def withdraw_commands(
    measures: Iterable[Measure],
    blackhole: BlackholeAttributes,
    forms: Mapping[str, str],
) -> list[str]:
    """Return the commands that withdraw *measures*; unsupported ones are ignored."""
    routes = []
    for measure in measures:
        try:
            form = forms.get(measure.key)
            if form is None:
                routes.append(_route(measure, blackhole))
            else:
                routes.append(_Route(route_text.match_text(measure), form))
        except (UnsupportedMeasure, ValueError):  # was never announced
            continue
    return _commands("withdraw", routes)


class _Route(NamedTuple):
    """One route; *match* is a prefix or a FlowSpec match."""

    match: str
    form: str


def _commands(verb: str, routes: Iterable[_Route]) -> list[str]:
    """Return one command for prefixes with the same form, and one for each rule."""
    size = _PREFIXES_PER_COMMAND
    forms = {route.match: route.form for route in routes}  # the last one counts
    prefixes: dict[str, list[str]] = {}
    rules = []
    for match, form in forms.items():
        if match.startswith("{"):
            rules.append(f"{verb} flow route {{ match {match} then {{ {form} }} }}")
        else:
            prefixes.setdefault(form, []).append(match)
    return [
        f"{verb} attributes {form} nlri {' '.join(matches[start : start + size])}"
        for form, matches in prefixes.items()
        for start in range(0, len(matches), size)
    ] + rules


# An enforcer compares all measures every few seconds, and most have not changed.
@lru_cache(_CACHE_SIZE)
def _route(measure: Measure, blackhole: BlackholeAttributes) -> _Route:
    require_supported(measure, KINDS)
    try:
        match = route_text.match_text(measure)
    except UnsupportedMeasure as exc:
        raise UnsupportedMeasure(f"{measure.key}: {exc}") from exc
    own = measure.communities
    if measure.kind == BLACKHOLE:
        is_v6 = measure.networks[0].version == _V6
        hop = blackhole.ipv6_next_hop if is_v6 else blackhole.ipv4_next_hop
        communities = words.canonical_communities((*blackhole.communities, *own))
        form = f"next-hop {ip_address(hop)}" + words.community_attributes(communities)
        return _Route(match, form)
    attributes = words.community_attributes(words.canonical_communities(own), ";")
    return _Route(match, f"{route_text.action_text(measure.then)};{attributes}")
