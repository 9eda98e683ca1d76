"""ExaBGP's listing of routes, parsed to measures.

ExaBGP lists values by its own names (`=ntp`). They are converted to the canonical
values of a measure's key, and attributes to the text of their announcement.
"""

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Final

import msgspec

from consumers.enforcers.backend import ActiveMeasure
from consumers.enforcers.exabgp import ports
from consumers.enforcers.exabgp import vocabulary as words
from consumers.mitigation.measure import BLACKHOLE, FLOWSPEC, Measure, canonical
from fnm_bus.event import FlowMatch

COMMAND: Final = "show adj-rib out extensive json"
"""The command that lists the announced routes, one a line."""


# Most lines are equal to those of the last listing.
@lru_cache(1 << 16)
def parse_route(line: str | bytes) -> tuple[Measure, ActiveMeasure]:
    """Return one line of the listing as a measure and its form.

    The measure has the match only, which is enough to withdraw it.

    Raises:
        ValueError: the line is not a route of `announce_commands`.
    """
    try:
        route = msgspec.json.decode(line, type=_Line).route
        nlri, attributes = route.nlri, route.attributes
        communities = words.canonical_communities(
            (*attributes.community, *attributes.large)
        )
    except msgspec.MsgspecError as exc:
        raise ValueError(str(exc)) from exc
    text = words.community_attributes(communities, ";" if nlri.rules else "")
    if not nlri.rules:
        if nlri.prefix is None or nlri.nexthop is None:
            raise ValueError("a route without a prefix or a next hop")
        measure = Measure(kind=BLACKHOLE, prefix=str(ip_network(nlri.prefix)))
        form = f"next-hop {ip_address(nlri.nexthop)}{text}"
    else:
        (action,) = attributes.extended
        measure = Measure(kind=FLOWSPEC, flow=_flow(nlri.rules))
        form = f"{_action(action)};{text}"
    return measure, ActiveMeasure(form, None)


class _Nlri(msgspec.Struct):
    prefix: str | None = None
    nexthop: str | None = None
    rules: dict[str, tuple[str, ...]] = {}


class _Attributes(msgspec.Struct, rename={"large": "large-community"}):
    community: tuple[str, ...] = ()
    large: tuple[str, ...] = ()
    extended: tuple[str, ...] = msgspec.field(default=(), name="extended-community")


class _Route(msgspec.Struct):
    nlri: _Nlri
    attributes: _Attributes


class _Line(msgspec.Struct):
    route: _Route


def _action(text: str) -> str:
    action, _, value = text.partition(":")
    if action == "rate-limit":
        return f"rate-limit {value}" if int(value) else "discard"
    if action == "redirect":
        return f"redirect {value}"
    raise ValueError(f"{text}: unexpected action")


def _flow(rules: Mapping[str, tuple[str, ...]]) -> FlowMatch:
    rest = dict(rules)

    def pop(*names: str) -> tuple[str, ...]:
        return next((rest.pop(name) for name in names if name in rest), ())

    def pop_prefix(part: str) -> str | None:
        ipv4, ipv6 = pop(f"{part}-ipv4"), pop(f"{part}-ipv6")
        # An IPv6 prefix is listed with an offset (RFC 8956, section 3.1); ours is 0.
        texts = [*ipv4, *(text.removesuffix("/0") for text in ipv6)]
        return str(ip_network(texts[0])) if texts else None

    flow = FlowMatch(
        destination_prefix=pop_prefix("destination"),
        source_prefix=pop_prefix("source"),
        protocols=words.protocol_words(pop("protocol", "next-header")),
        source_ports=ports.port_numbers(pop("source-port")),
        destination_ports=ports.port_numbers(pop("destination-port")),
        packet_lengths=tuple(
            int(term.removeprefix("=")) for term in pop("packet-length")
        ),
        fragmentation_flags=words.fragment_words(pop("fragment")),
        tcp_flags=words.tcp_flag_words(pop("tcp-flags")),
    )
    if rest:
        raise ValueError(f"unexpected parts: {', '.join(rest)}")
    return canonical(flow)
