"""Measure: what a mitigation does, without who wants it and until when.

Two measures with one key match the same traffic: the key is kind and canonical match,
as RFC 8955 identifies a rule by its match and not by its action.
"""

import json
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, TypeAlias

import msgspec

from fnm_bus.event import FlowMatch, FlowSpecRule, FlowThen, Mitigation

Network: TypeAlias = IPv4Network | IPv6Network

BLACKHOLE: Final = "blackhole"
FLOWSPEC: Final = "flowspec"
FIREWALL: Final = "firewall"
NOTIFY: Final = "notify"
KINDS: Final = (BLACKHOLE, FLOWSPEC, FIREWALL, NOTIFY)
"""The kinds of measures; `notify` only tells people."""

_PREFIXES: Final = ("destination_prefix", "source_prefix")
_UNSUPPORTED: Final = (
    *("ttls", "vlans", "source_asns", "destination_asns", "input_interfaces"),
    *("output_interfaces", "agent_addresses"),
)
"""Parts of FastNetMon's rules that no FlowSpec component of RFC 8955 matches."""


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """What is done to which traffic.

    Attributes:
        kind: one of KINDS.
        prefix: the network whose traffic is meant, canonical text; None for FlowSpec.
        flow: what a FlowSpec measure matches, canonical; None for other kinds.
        then: what a FlowSpec measure does; None for other kinds.
        communities: BGP communities besides the enforcer's own.
    """

    kind: str
    prefix: str | None = None
    flow: FlowMatch | None = None
    then: FlowThen | None = None
    communities: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Kind and canonical match: the key of the mitigation's record."""
        return f"{self.kind}|{self.prefix if self.flow is None else spelled(self.flow)}"

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks whose traffic the measure touches; empty: anybody's."""
        if self.flow is None:
            return (ip_network(self.prefix),) if self.prefix else ()
        found = (getattr(self.flow, name) for name in _PREFIXES)
        return tuple(ip_network(it) for it in found if it)


def measure_of(mitigation: Mitigation) -> Measure:
    """Return the measure of a mitigation."""
    return Measure(
        kind=mitigation.kind,
        prefix=mitigation.prefix,
        flow=mitigation.flow,
        then=mitigation.then,
        communities=mitigation.communities,
    )


def spelled(flow: FlowMatch) -> str:
    """Return a match as text: JSON without blanks, empty parts left out, keys sorted.

    Raises:
        ValueError: a prefix is no network.
    """
    parts = msgspec.to_builtins(canonical(flow))
    kept = {name: value for name, value in parts.items() if value}
    return json.dumps(kept, sort_keys=True, separators=(",", ":"))


def canonical(flow: FlowMatch) -> FlowMatch:
    """Return a match in the one spelling that names it.

    Lists are sorted and without duplicates, words are lower case, joined TCP flags are
    sorted, prefixes are networks without host bits.

    Raises:
        ValueError: a prefix is no network.
    """
    return FlowMatch(
        destination_prefix=_network(flow.destination_prefix),
        source_prefix=_network(flow.source_prefix),
        protocols=_words(flow.protocols),
        source_ports=tuple(sorted(set(flow.source_ports))),
        destination_ports=tuple(sorted(set(flow.destination_ports))),
        packet_lengths=tuple(sorted(set(flow.packet_lengths))),
        fragmentation_flags=_words(flow.fragmentation_flags),
        tcp_flags=_words(flow.tcp_flags),
    )


def match_of(rule: FlowSpecRule) -> FlowMatch:
    """Return what FastNetMon's rule matches.

    Raises:
        ValueError: it has a part that FlowSpec cannot say, and would match more
            without it; or a prefix is no network.
    """
    for name in _UNSUPPORTED:
        if getattr(rule, name):
            raise ValueError(f"{name}: FlowSpec cannot match it")
    return canonical(
        FlowMatch(**{name: getattr(rule, name) for name in FlowMatch.__struct_fields__})
    )


def _network(text: str | None) -> str | None:
    # strict=False: FastNetMon's documents may hold host bits.
    return None if not text else str(ip_network(text, strict=False))


def _words(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({"|".join(sorted(it.lower().split("|"))) for it in words}))
