"""The match and the action of a route as ExaBGP's text.

ExaBGP also answers `done` to commands that it did not execute. So only the values of a
valid measure, or of ExaBGP's own listing, become text.
"""

from collections.abc import Sequence
from typing import Final

from consumers.enforcers.exabgp import ports
from consumers.enforcers.exabgp import vocabulary as words
from consumers.mitigation.measure import Measure
from fnm_bus.event import FlowThen

_V6: Final = 6


def match_text(measure: Measure) -> str:
    """Return a blackhole's prefix, or a FlowSpec match.

    Raises:
        UnsupportedMeasure: ExaBGP would list a port like another port.
    """
    flow = measure.flow
    if flow is None:
        return str(measure.prefix)
    is_v6 = measure.networks[0].version == _V6
    parts = {
        "destination": [flow.destination_prefix] if flow.destination_prefix else [],
        "source": [flow.source_prefix] if flow.source_prefix else [],
        "next-header" if is_v6 else "protocol": words.protocol_terms(flow.protocols),
        "source-port": ports.port_terms("source_ports", flow.source_ports),
        "destination-port": ports.port_terms(
            "destination_ports", flow.destination_ports
        ),
        "packet-length": [f"={length}" for length in flow.packet_lengths],
        "fragment": words.fragment_terms(flow.fragmentation_flags),
        "tcp-flags": words.tcp_flag_terms(flow.tcp_flags),
    }
    match = " ".join(
        f"{part} {_list(terms)};" for part, terms in parts.items() if terms
    )
    return f"{{ {match} }}"


def action_text(then: FlowThen | None) -> str:
    """Return the action of a valid FlowSpec measure."""
    match then:
        case FlowThen(action="rate-limit", rate=rate):
            return f"rate-limit {rate}"
        case FlowThen(action="redirect", redirect_as=number, redirect_value=value):
            return f"redirect {number}:{value}"
    return "discard"


def _list(terms: Sequence[str]) -> str:
    # Without brackets ExaBGP uses the first term only, and answers done.
    return terms[0] if len(terms) == 1 else f"[ {' '.join(terms)} ]"
