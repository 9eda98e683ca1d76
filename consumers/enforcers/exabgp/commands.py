"""ExaBGP's commands for measures.

ExaBGP also answers `done` to commands that it did not execute, so every value is
checked before it is sent. The form of a measure is the text of its route's attributes.
A route is withdrawn with the attributes of its announcement. ExaBGP has one queue for
each set of attributes, without an order between queues. A withdrawal in another queue
may overtake the announcement and leave a route that no listing shows.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Final, NamedTuple

from consumers.enforcers.backend import UnsupportedMeasure
from consumers.enforcers.exabgp import ports
from consumers.enforcers.exabgp import vocabulary as words
from consumers.mitigation.measure import (
    BLACKHOLE,
    FLOWSPEC,
    Measure,
    Network,
    canonical,
)
from fnm_bus.event import FlowMatch, FlowThen

_PREFIXES_PER_COMMAND: Final = 1000
_CACHE_SIZE: Final = 1 << 16
_MAX_VALUES: Final = 400
"""Maximum number of values of one rule. An UPDATE has at most 4,096 bytes; a longer
one ends the session."""
_V6: Final = 6
_MAX_RATE: Final = 1_000_000_000_000
"""Bytes/s; ExaBGP silently lowers higher limits to this one."""
_U16: Final = 0xFFFF
_U32: Final = 0xFFFF_FFFF


class BlackholeAttributes(NamedTuple):
    """The attributes of all blackhole routes.

    Attributes:
        ipv4_next_hop: next hop of IPv4 prefixes.
        ipv6_next_hop: next hop of IPv6 prefixes.
        communities: added to the measure's own communities.
    """

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
    """Return the commands that withdraw *measures*; unsupported ones are ignored.

    Args:
        measures: if *forms* has a measure's key, its match is enough.
        blackhole: the attributes of blackhole routes.
        forms: key → form of the last announcement, as far as known.
    """
    routes = []
    for measure in measures:
        try:
            form = forms.get(_key(measure))
            routes.append(
                _route(measure, blackhole)
                if form is None
                else _Route(_match(measure), form)
            )
        except UnsupportedMeasure:  # was never announced
            continue
    return _commands("withdraw", routes)


def _key(measure: Measure) -> str:
    """Return the measure's key.

    Raises:
        UnsupportedMeasure: a prefix of its match is not a network.
    """
    try:
        return measure.key
    except ValueError as exc:
        raise UnsupportedMeasure(f"{measure.kind}: {exc}") from exc


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
    key = _key(measure)
    try:
        match = _match(measure)
        own = words.canonical_communities(measure.communities)
        if measure.kind == BLACKHOLE:
            network = _network("prefix", measure.prefix)
            hop = (
                blackhole.ipv6_next_hop
                if network.version == _V6
                else blackhole.ipv4_next_hop
            )
            communities = words.canonical_communities((*blackhole.communities, *own))
            form = f"next-hop {_next_hop(hop, network)}"
            return _Route(match, form + words.community_attributes(communities))
        form = f"{_action(measure.then)};" + words.community_attributes(own, ";")
        return _Route(match, form)
    except UnsupportedMeasure as exc:
        raise UnsupportedMeasure(f"{key}: {exc}") from exc


def _match(measure: Measure) -> str:
    if measure.kind == BLACKHOLE:
        if measure.flow is not None:  # its key would be the key of another match
            raise UnsupportedMeasure("flow: a blackhole has no flow")
        return str(_network("prefix", measure.prefix))
    if measure.kind != FLOWSPEC or measure.flow is None:
        raise UnsupportedMeasure(
            f"kind: ExaBGP supports {BLACKHOLE}, and {FLOWSPEC} with a flow"
        )
    flow = canonical(measure.flow)
    version = _version(flow)
    parts = {
        "destination": [flow.destination_prefix] if flow.destination_prefix else [],
        "source": [flow.source_prefix] if flow.source_prefix else [],
        "next-header" if version == _V6 else "protocol": words.protocol_terms(
            flow.protocols, version
        ),
        "source-port": ports.port_terms("source_ports", flow.source_ports),
        "destination-port": ports.port_terms(
            "destination_ports", flow.destination_ports
        ),
        "packet-length": [
            f"={length}"
            for length in words.check_u16("packet_lengths", flow.packet_lengths)
        ],
        "fragment": words.fragment_terms(flow.fragmentation_flags, version),
        "tcp-flags": words.tcp_flag_terms(flow.tcp_flags),
    }
    if sum(map(len, parts.values())) > _MAX_VALUES:
        raise UnsupportedMeasure(f"flow: more than {_MAX_VALUES} values")
    match = " ".join(
        f"{part} {_list(terms)};" for part, terms in parts.items() if terms
    )
    return f"{{ {match} }}"


def _list(terms: Sequence[str]) -> str:
    # Without brackets ExaBGP uses the first term only, and answers done.
    return terms[0] if len(terms) == 1 else f"[ {' '.join(terms)} ]"


def _version(flow: FlowMatch) -> int:
    networks = [
        _network(field, getattr(flow, field))
        for field in ("destination_prefix", "source_prefix")
        if getattr(flow, field)
    ]
    if not networks:
        raise UnsupportedMeasure("flow: needs a destination_prefix or a source_prefix")
    if len({network.version for network in networks}) > 1:
        raise UnsupportedMeasure("flow: the prefixes are IPv4 and IPv6")
    return networks[0].version


def _network(field: str, text: str | None) -> Network:
    try:
        network = ip_network(text or "")
    except ValueError as exc:
        raise UnsupportedMeasure(f"{field}: {exc}") from exc
    # Also refuses scopes, which Python accepts in an address: "fe80::1%anything".
    if str(network) != text or "%" in str(network):
        raise UnsupportedMeasure(f"{field}: {text} is not in canonical text")
    return network


def _next_hop(text: str, network: Network) -> str:
    try:
        hop = ip_address(text)
    except ValueError as exc:
        raise UnsupportedMeasure(
            f"consumers.exabgp.ipv{network.version}_next_hop: {exc}"
        ) from exc
    if hop.version != network.version:
        # ExaBGP answers done, and the neighbor discards the route.
        raise UnsupportedMeasure(
            f"consumers.exabgp.ipv{network.version}_next_hop: {hop} is not"
            f" IPv{network.version}"
        )
    return str(hop)


def _action(then: FlowThen | None) -> str:
    if then is None or then.action not in {"discard", "rate-limit", "redirect"}:
        raise UnsupportedMeasure("then.action: use discard, rate-limit or redirect")
    if then.action == "discard":
        return "discard"
    if then.action == "rate-limit":
        if then.rate is None or not 0 <= then.rate <= _MAX_RATE:
            raise UnsupportedMeasure(f"then.rate: use bytes/s from 0 to {_MAX_RATE}")
        # Both are sent as a rate of 0, and listed alike.
        return f"rate-limit {then.rate}" if then.rate else "discard"
    number, value = then.redirect_as, then.redirect_value
    if number is None or value is None:
        raise UnsupportedMeasure(
            "then.redirect_as, then.redirect_value: both are required"
        )
    if not (0 <= number <= _U32 and 0 <= value <= _U32):
        raise UnsupportedMeasure(
            f"then.redirect_as, then.redirect_value: use 0 to {_U32}"
        )
    if number > _U16 and value > _U16:
        raise UnsupportedMeasure(
            f"then.redirect_value: use at most {_U16} with a 32-bit AS"
        )
    return f"redirect {number}:{value}"
