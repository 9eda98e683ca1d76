"""Measure: a match and its effect on the traffic, without reasons and times.

Two measures with one key match the same traffic: the key is kind and canonical match,
as RFC 8955 identifies a rule by its match and not by its action.
"""

import re
from ipaddress import ip_network
from typing import Final

import msgspec

from consumers.mitigation.flow_match import (
    PREFIX_FIELDS,
    Network,
    canonical,
    invalid,
    match_text,
    validate_match,
    validate_prefix,
)
from fnm_bus.event import FlowMatch, FlowThen, Mitigation

__all__ = [
    "BLACKHOLE",
    "FIREWALL",
    "FLOWSPEC",
    "KINDS",
    "NOTIFY",
    "Measure",
    "Network",
    "canonical",
    "match_text",
    "measure_of",
    "validate_measure",
]

BLACKHOLE: Final = "blackhole"
FLOWSPEC: Final = "flowspec"
FIREWALL: Final = "firewall"
NOTIFY: Final = "notify"
KINDS: Final = (BLACKHOLE, FLOWSPEC, FIREWALL, NOTIFY)
"""The kinds of measures; `notify` only informs people."""
MAX_RATE: Final = 1_000_000_000_000
"""Bytes/s; the highest rate that ExaBGP announces as written."""
MAX_COMMUNITIES: Final = 32
"""Of a measure and of a united effect; a mitigation record must stay below 8 kB."""

_COMMUNITY: Final = re.compile(r"(0|[1-9]\d{0,9})(:(0|[1-9]\d{0,9})){1,2}", re.ASCII)
_U16: Final = 0xFFFF
_U32: Final = 0xFFFF_FFFF


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """A match and the effect on its traffic.

    Attributes:
        kind: one of KINDS.
        prefix: the network whose traffic matches, canonical text; None for FlowSpec.
        flow: the canonical match of a FlowSpec measure; None for other kinds.
        then: the action of a FlowSpec measure; None for other kinds.
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
        match = self.prefix if self.flow is None else match_text(self.flow)
        return f"{self.kind}|{match}"

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks of the match, destination first; empty: any network.

        A prefix of length 0 matches any network and is left out.
        """
        if self.flow is None:
            return (ip_network(self.prefix),) if self.prefix else ()
        texts = (getattr(self.flow, name) for name in PREFIX_FIELDS)
        networks = (ip_network(text, strict=False) for text in texts if text)
        return tuple(network for network in networks if network.prefixlen)


def measure_of(mitigation: Mitigation) -> Measure:
    """Return the measure of a mitigation."""
    return Measure(
        kind=mitigation.kind,
        prefix=mitigation.prefix,
        flow=mitigation.flow,
        then=mitigation.then,
        communities=mitigation.communities,
    )


def validate_measure(measure: Measure, key: str | None = None) -> None:
    """Check that one of our programs can have made a measure.

    Args:
        measure: from a record, a command or a snapshot.
        key: the key of its record; None without a record.

    Raises:
        InvalidRecord: the text names the field and the fault.
    """
    if not isinstance(measure.kind, str) or measure.kind not in KINDS:
        raise invalid("kind", f"{measure.kind!r:.40} is not a kind of measure")
    if measure.kind == FLOWSPEC:
        if measure.prefix is not None:
            raise invalid("prefix", "a flowspec measure has none")
        validate_match(measure.flow)
        _validate_then(measure.then)
    else:
        if measure.flow is not None or measure.then is not None:
            raise invalid("flow, then", f"a {measure.kind} measure has none")
        validate_prefix("prefix", measure.prefix)
    _validate_communities(measure)
    if key is not None and key != measure.key:
        raise invalid("key", f"expected {measure.key:.200}, got {key!r:.200}")


def is_route_target(number: int, value: int) -> bool:
    """Return whether two numbers are a route target (RFC 4360, RFC 5668)."""
    most = _U32 if number <= _U16 else _U16
    return 0 <= number <= _U32 and 0 <= value <= most


def is_community(text: str) -> bool:
    """Return whether a text is a community (RFC 1997) or a large one (RFC 8092)."""
    if not _COMMUNITY.fullmatch(text):
        return False
    parts = [int(part) for part in text.split(":")]
    return max(parts) <= (_U16 if len(parts) == 2 else _U32)  # noqa: PLR2004 - RFC 1997


def _validate_then(then: FlowThen | None) -> None:
    if not isinstance(then, FlowThen):
        raise invalid("then", "a flowspec measure needs an action")
    numbers = (then.rate, then.redirect_as, then.redirect_value)
    if any(type(number) not in {int, type(None)} for number in numbers):
        raise invalid("then", "expected numbers")
    match then:
        case FlowThen(
            action="discard", rate=None, redirect_as=None, redirect_value=None
        ):
            return
        case FlowThen(
            action="rate-limit", rate=int(rate), redirect_as=None, redirect_value=None
        ):
            if not 1 <= rate <= MAX_RATE:
                raise invalid("then.rate", f"expected 1 to {MAX_RATE} bytes/s")
        case FlowThen(
            action="redirect",
            rate=None,
            redirect_as=int(number),
            redirect_value=int(value),
        ):
            if not is_route_target(number, value):
                raise invalid("then", f"{number}:{value} is not a route target")
        case _:
            raise invalid(
                "then",
                "expected discard, rate-limit with rate, or redirect with redirect_as"
                " and redirect_value, without other values",
            )


def _validate_communities(measure: Measure) -> None:
    texts = measure.communities
    if not isinstance(texts, tuple) or len(texts) > MAX_COMMUNITIES:
        raise invalid("communities", f"expected at most {MAX_COMMUNITIES}")
    if texts and measure.kind not in {BLACKHOLE, FLOWSPEC}:
        raise invalid("communities", f"a {measure.kind} measure has none")
    for text in texts:
        if not isinstance(text, str) or not is_community(text):
            raise invalid("communities", f"{text!r:.40} is not a community")
