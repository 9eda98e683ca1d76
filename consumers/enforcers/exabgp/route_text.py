"""The match and the action of a route as ExaBGP's text.

ExaBGP also answers `done` to commands that it did not execute, so every value is
checked.
"""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Final

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

_MAX_VALUES: Final = 400
"""Maximum number of values of one rule. An UPDATE has at most 4,096 bytes; a longer
one ends the session."""
_MAX_RATE: Final = 1_000_000_000_000
"""Bytes/s; ExaBGP silently lowers higher limits to this one."""
_V6: Final = 6
_U16: Final = 0xFFFF
_U32: Final = 0xFFFF_FFFF


def match_text(measure: Measure) -> str:
    """Return a blackhole's prefix, or a FlowSpec match.

    Raises:
        UnsupportedMeasure: ExaBGP cannot announce the match; the text names the field.
    """
    if measure.kind == BLACKHOLE:
        if measure.flow is not None:  # its key would be the key of another match
            raise UnsupportedMeasure("flow: a blackhole has no flow")
        return str(canonical_network("prefix", measure.prefix))
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
        canonical_network(field, getattr(flow, field))
        for field in ("destination_prefix", "source_prefix")
        if getattr(flow, field)
    ]
    if not networks:
        raise UnsupportedMeasure("flow: needs a destination_prefix or a source_prefix")
    if len({network.version for network in networks}) > 1:
        raise UnsupportedMeasure("flow: the prefixes are IPv4 and IPv6")
    return networks[0].version


def canonical_network(field: str, text: str | None) -> Network:
    """Return the network of *text*.

    Raises:
        UnsupportedMeasure: *text* is not a network in canonical text.
    """
    try:
        network = ip_network(text or "")
    except ValueError as exc:
        raise UnsupportedMeasure(f"{field}: {exc}") from exc
    # Also refuses scopes, which Python accepts in an address: "fe80::1%anything".
    if str(network) != text or "%" in str(network):
        raise UnsupportedMeasure(f"{field}: {text} is not in canonical text")
    return network


def next_hop_text(text: str, network: Network) -> str:
    """Return the configured next hop of *network*.

    Raises:
        UnsupportedMeasure: it is not an address, or of the other IP version.
    """
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


def action_text(then: FlowThen | None) -> str:
    """Return the action of a FlowSpec rule.

    Raises:
        UnsupportedMeasure: ExaBGP cannot announce the action; the text names the field.
    """
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
