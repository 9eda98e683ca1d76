"""ExaBGP's listing as measures.

ExaBGP lists values by names of its own (`=ntp`). Here they become the one spelling that
names a measure, and attributes the text with which they were announced.
"""

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Final

import msgspec

from consumers.enforcers.backend import ActiveMeasure, UnsupportedMeasure
from consumers.enforcers.exabgp import ports
from consumers.enforcers.exabgp import vocabulary as words
from consumers.mitigation.measure import BLACKHOLE, FLOWSPEC, Measure, canonical
from fnm_bus.event import FlowMatch

COMMAND: Final = "show adj-rib out extensive json"
"""The command that lists what is announced, a route a line."""


# Most lines are those of the last listing.
@lru_cache(1 << 16)
def listed(line: str | bytes) -> tuple[Measure, ActiveMeasure]:
    """Return one line of the listing as a measure and its form.

    The measure has the match alone: it is enough to withdraw it by.

    Raises:
        ValueError: it is no route that `announce` makes.
    """
    try:
        route = msgspec.json.decode(line, type=_Line).route
        nlri, carried = route.nlri, route.attributes
        own = words.communities((*carried.community, *carried.large))
    except (msgspec.MsgspecError, UnsupportedMeasure) as exc:
        raise ValueError(str(exc)) from exc
    said = words.attributes(own, ";" if nlri.rules else "")
    if not nlri.rules:
        if nlri.prefix is None or nlri.nexthop is None:
            raise ValueError("a route without a prefix or a next hop")
        prefix = str(ip_network(nlri.prefix))
        measure = Measure(kind=BLACKHOLE, prefix=prefix)
        return measure, ActiveMeasure(
            f"next-hop {ip_address(nlri.nexthop)}{said}", None
        )
    (action,) = carried.extended
    measure = Measure(kind=FLOWSPEC, flow=_flow(nlri.rules))
    return measure, ActiveMeasure(f"{_listed_action(action)};{said}", None)


class _Nlri(msgspec.Struct):
    prefix: str | None = None
    nexthop: str | None = None
    rules: dict[str, tuple[str, ...]] = {}


class _Attributes(msgspec.Struct, rename={"large": "large-community"}):
    community: tuple[str, ...] = ()
    large: tuple[str, ...] = ()
    extended: tuple[str, ...] = msgspec.field(default=(), name="extended-community")


class _Listed(msgspec.Struct):
    nlri: _Nlri
    attributes: _Attributes


class _Line(msgspec.Struct):
    route: _Listed


def _listed_action(text: str) -> str:
    said, _, value = text.partition(":")
    if said == "rate-limit":
        return f"rate-limit {value}" if int(value) else "discard"
    if said == "redirect":
        return f"redirect {value}"
    raise ValueError(f"{text}: no action of ours")


def _flow(rules: Mapping[str, tuple[str, ...]]) -> FlowMatch:
    rest = dict(rules)

    def taken(*names: str) -> tuple[str, ...]:
        return next((rest.pop(it) for it in names if it in rest), ())

    def prefix(part: str) -> str | None:
        old, new = taken(f"{part}-ipv4"), taken(f"{part}-ipv6")
        # An IPv6 prefix is listed with an offset (RFC 8956, section 3.1); ours is 0.
        text = [*old, *(it.removesuffix("/0") for it in new)]
        return str(ip_network(text[0])) if text else None

    found = FlowMatch(
        destination_prefix=prefix("destination"),
        source_prefix=prefix("source"),
        protocols=words.protocol_words(taken("protocol", "next-header")),
        source_ports=ports.port_numbers(taken("source-port")),
        destination_ports=ports.port_numbers(taken("destination-port")),
        packet_lengths=tuple(
            int(it.removeprefix("=")) for it in taken("packet-length")
        ),
        fragmentation_flags=words.fragment_words(taken("fragment")),
        tcp_flags=words.tcp_words(taken("tcp-flags")),
    )
    if rest:
        raise ValueError(f"no parts of ours: {', '.join(rest)}")
    return canonical(found)
