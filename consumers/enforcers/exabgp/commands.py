"""Measures as ExaBGP's commands.

ExaBGP answers `done` also to commands that it did not carry out, so every value is
checked before it is sent. The form of a measure is the text of its route's attributes.
A route is withdrawn with the attributes that it was announced with: ExaBGP keeps what
is to be sent in a queue for each set of attributes and not in order, and a withdrawal
in another queue may overtake the announcement and leave a route that no listing shows.
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

_ROUTES: Final = 1000
"""Prefixes of one command."""
_REMEMBERED: Final = 1 << 16
_VALUES: Final = 400
"""Values of one rule: an UPDATE has room for 4,096 bytes, and one that has not ends
the session."""
_V6: Final = 6
_MOST_BYTES: Final = 1_000_000_000_000
"""Bytes/s to which ExaBGP silently lowers a limit."""
_U16: Final = 0xFFFF
_U32: Final = 0xFFFF_FFFF


class BlackholeAttributes(NamedTuple):
    """What the routes of all blackholes carry.

    Attributes:
        ipv4_next_hop: of IPv4 prefixes.
        ipv6_next_hop: of IPv6 prefixes.
        communities: those that are added to the measure's own.
    """

    ipv4_next_hop: str
    ipv6_next_hop: str
    communities: tuple[str, ...]


def form(measure: Measure, carried: BlackholeAttributes) -> str:
    """Return the attributes of the route that makes *measure*, as ExaBGP takes them.

    Raises:
        UnsupportedMeasure: there is no such route; the text begins with the key.
    """
    return _told(measure, carried).form


def announce(measures: Iterable[Measure], carried: BlackholeAttributes) -> list[str]:
    """Return the commands that announce *measures*.

    Raises:
        UnsupportedMeasure: as `form`.
    """
    return _commands("announce", (_told(it, carried) for it in measures))


def withdraw(
    measures: Iterable[Measure], carried: BlackholeAttributes, forms: Mapping[str, str]
) -> list[str]:
    """Return the commands that withdraw *measures*; impossible ones are left out.

    Args:
        measures: a key's measure is enough, when *forms* has the key.
        carried: what routes of blackholes carry.
        forms: key → form with which it was announced last, where that is known.
    """
    routes = []
    for it in measures:
        try:
            known = forms.get(name(it))
            routes.append(
                _told(it, carried) if known is None else _Route(_match(it), known)
            )
        except UnsupportedMeasure:  # what cannot be announced does not stand
            continue
    return _commands("withdraw", routes)


def name(measure: Measure) -> str:
    """Return the measure's key.

    Raises:
        UnsupportedMeasure: a prefix of its match is no network.
    """
    try:
        return measure.key
    except ValueError as exc:
        raise UnsupportedMeasure(f"{measure.kind}: {exc}") from exc


class _Route(NamedTuple):
    """What is said of one measure; *match* is a prefix or a FlowSpec match."""

    match: str
    form: str


def _commands(verb: str, routes: Iterable[_Route]) -> list[str]:
    """Put prefixes with the same attributes into one command; rules stand alone."""
    last = {it.match: it.form for it in routes}  # of one match, the last counts
    together: dict[str, list[str]] = {}
    rules = []
    for match, said in last.items():
        if match.startswith("{"):
            rules.append(f"{verb} flow route {{ match {match} then {{ {said} }} }}")
        else:
            together.setdefault(said, []).append(match)
    return [
        f"{verb} attributes {said} nlri {' '.join(some[start : start + _ROUTES])}"
        for said, some in together.items()
        for start in range(0, len(some), _ROUTES)
    ] + rules


# An enforcer compares all measures every few seconds, and most are those of last time.
@lru_cache(_REMEMBERED)
def _told(measure: Measure, carried: BlackholeAttributes) -> _Route:
    key = name(measure)
    try:
        match = _match(measure)
        own = words.communities(measure.communities)
        if measure.kind == BLACKHOLE:
            network = _network("prefix", measure.prefix)
            hop = (
                carried.ipv6_next_hop
                if network.version == _V6
                else carried.ipv4_next_hop
            )
            all_ = words.communities((*carried.communities, *own))
            return _Route(
                match, f"next-hop {_hop(hop, network)}" + words.attributes(all_)
            )
        return _Route(match, f"{_action(measure.then)};" + words.attributes(own, ";"))
    except UnsupportedMeasure as exc:
        raise UnsupportedMeasure(f"{key}: {exc}") from exc


def _match(measure: Measure) -> str:
    if measure.kind == BLACKHOLE:
        if measure.flow is not None:  # its key would be that of another match
            raise UnsupportedMeasure("flow: a blackhole has none")
        return str(_network("prefix", measure.prefix))
    if measure.kind != FLOWSPEC or measure.flow is None:
        raise UnsupportedMeasure(
            f"kind: ExaBGP does {BLACKHOLE} and {FLOWSPEC}, with its parts"
        )
    flow = canonical(measure.flow)
    version = _version(flow)
    parts = {
        "destination": [flow.destination_prefix] if flow.destination_prefix else [],
        "source": [flow.source_prefix] if flow.source_prefix else [],
        "next-header" if version == _V6 else "protocol": words.protocols(
            flow.protocols, version
        ),
        "source-port": ports.ports("source_ports", flow.source_ports),
        "destination-port": ports.ports("destination_ports", flow.destination_ports),
        "packet-length": [
            f"={it}" for it in words.numbers("packet_lengths", flow.packet_lengths)
        ],
        "fragment": words.fragments(flow.fragmentation_flags, version),
        "tcp-flags": words.tcp_flags(flow.tcp_flags),
    }
    if sum(map(len, parts.values())) > _VALUES:
        raise UnsupportedMeasure(f"flow: more than {_VALUES} values")
    said = " ".join(f"{part} {_list(it)};" for part, it in parts.items() if it)
    return f"{{ {said} }}"


def _list(terms: Sequence[str]) -> str:
    # Without brackets ExaBGP takes the first and says done.
    return terms[0] if len(terms) == 1 else f"[ {' '.join(terms)} ]"


def _version(flow: FlowMatch) -> int:
    networks = [
        _network(field, getattr(flow, field))
        for field in ("destination_prefix", "source_prefix")
        if getattr(flow, field)
    ]
    if not networks:
        raise UnsupportedMeasure("flow: wanted a destination_prefix or a source_prefix")
    if len({it.version for it in networks}) > 1:
        raise UnsupportedMeasure("flow: one prefix is IPv4, the other IPv6")
    return networks[0].version


def _network(field: str, text: str | None) -> Network:
    try:
        found = ip_network(text or "")
    except ValueError as exc:
        raise UnsupportedMeasure(f"{field}: {exc}") from exc
    # Also keeps out what Python takes for a part of an address: "fe80::1%anything".
    if str(found) != text or "%" in str(found):
        raise UnsupportedMeasure(f"{field}: {text} is not in canonical text")
    return found


def _hop(text: str, network: Network) -> str:
    try:
        hop = ip_address(text)
    except ValueError as exc:
        raise UnsupportedMeasure(
            f"consumers.exabgp.ipv{network.version}_next_hop: {exc}"
        ) from exc
    if hop.version != network.version:
        # ExaBGP says done; the neighbor throws it away.
        raise UnsupportedMeasure(
            f"consumers.exabgp.ipv{network.version}_next_hop: {hop} is not"
            f" IPv{network.version}"
        )
    return str(hop)


def _action(then: FlowThen | None) -> str:
    if then is None or then.action not in {"discard", "rate-limit", "redirect"}:
        raise UnsupportedMeasure("then.action: wanted discard, rate-limit or redirect")
    if then.action == "discard":
        return "discard"
    if then.action == "rate-limit":
        if then.rate is None or not 0 <= then.rate <= _MOST_BYTES:
            raise UnsupportedMeasure(
                f"then.rate: wanted bytes/s from 0 to {_MOST_BYTES}"
            )
        # Both travel as a rate of 0, and are listed alike.
        return f"rate-limit {then.rate}" if then.rate else "discard"
    number, value = then.redirect_as, then.redirect_value
    if number is None or value is None:
        raise UnsupportedMeasure("then.redirect_as, then.redirect_value: wanted both")
    if not (0 <= number <= _U32 and 0 <= value <= _U32):
        raise UnsupportedMeasure(
            f"then.redirect_as, then.redirect_value: wanted 0 to {_U32}"
        )
    if number > _U16 and value > _U16:
        raise UnsupportedMeasure(
            f"then.redirect_value: wanted up to {_U16} with a 32 bit AS"
        )
    return f"redirect {number}:{value}"
