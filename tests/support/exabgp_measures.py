"""Measures for tests of ExaBGP's commands and listing."""

from typing import Any

from consumers.enforcers.exabgp.commands import BlackholeAttributes
from consumers.mitigation.measure import BLACKHOLE, FLOWSPEC, Measure, canonical
from fnm_bus.event import FlowMatch, FlowThen

BLACKHOLE_ATTRIBUTES = BlackholeAttributes(
    "192.0.2.1", "100::1", ("65535:666", "65535:65281")
)
DISCARD = FlowThen(action="discard")
HOST = "198.51.100.1/32"
HOST6 = "2001:db8::1/128"


def blackhole(prefix: str | None, *communities: str) -> Measure:
    return Measure(kind=BLACKHOLE, prefix=prefix, communities=communities)


def rule(
    then: FlowThen | None = DISCARD,
    communities: tuple[str, ...] = (),
    to: str | None = HOST,
    **match: Any,
) -> Measure:
    flow = canonical(FlowMatch(destination_prefix=to, **match))
    return Measure(kind=FLOWSPEC, flow=flow, then=then, communities=communities)
