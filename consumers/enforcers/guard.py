"""What an enforcer checks of each record by itself, independent of the policy.

Whoever may write to the mitigation topic could otherwise block anything. The checks
concern only what would be put in force: ending a mitigation is never refused.
"""

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Final, NamedTuple

from consumers.mitigation.measure import (
    BLACKHOLE,
    FIREWALL,
    FLOWSPEC,
    Measure,
    Network,
    measure_of,
)
from consumers.mitigation.reason_key import mitigation_key
from fnm_bus.event import Mitigation

MAX_LEASE: Final = 86_400.0
"""Seconds. No lease lasts longer, whatever a record requests."""

FORM: Final = "form"
KEY: Final = "key"
LEASE: Final = "lease"
OWN_NETWORKS: Final = "own_networks"
PREFIX: Final = "prefix"
WIDTH: Final = "width"
"""Codes of refusals."""


class Refusal(NamedTuple):
    """Why a record is left out.

    Attributes:
        code: a stable word: form, key, lease, own_networks, prefix or width.
        text: the same for people, with the value.
    """

    code: str
    text: str


def check_record(
    key: str, mitigation: Mitigation, own_networks: Sequence[Network] | None
) -> Refusal | None:
    """Return why *mitigation* must not be put in force, or None.

    Args:
        key: key of the record.
        mitigation: what it holds; its state is not looked at.
        own_networks: the networks in which measures are allowed; None: not checked,
            for a dry run without them.
    """
    if not 0 < mitigation.lease_ms <= MAX_LEASE * 1000:
        limit = round(MAX_LEASE * 1000)
        text = f"lease_ms {mitigation.lease_ms} is not between 1 and {limit}"
        return Refusal(LEASE, text)
    measure = measure_of(mitigation)
    refusal = check_measure(measure, own_networks)
    expected = mitigation_key(measure.key, mitigation.place) if not refusal else ""
    if refusal is None and not mitigation.key == key == expected:
        text = f"the record's key is {key:.200}, the mitigation's {expected:.200}"
        return Refusal(KEY, text)
    return refusal


def check_measure(
    measure: Measure, own_networks: Sequence[Network] | None
) -> Refusal | None:
    """Return why *measure* must not be put in force, or None."""
    try:
        sides = _sides(measure)
    except ValueError as exc:
        return Refusal(PREFIX, str(exc))
    if not sides:
        return Refusal(FORM, f"a {measure.kind:.20} measure has no such parts")
    for side in sides:
        if side.prefixlen == 0:
            return Refusal(WIDTH, f"{side} covers every address")
    if own_networks is not None and not any(
        _within(side, own) for side in sides for own in own_networks
    ):
        shown = ", ".join(map(str, sides))
        return Refusal(OWN_NETWORKS, f"{shown} is not in own_networks")
    return None


def _sides(measure: Measure) -> list[Network]:
    """Return the networks that *measure* names; none: its parts do not fit its kind.

    Raises:
        ValueError: one is not in canonical text.
    """
    flow = measure.flow
    if measure.kind in {BLACKHOLE, FIREWALL}:
        fits = measure.prefix and flow is None and measure.then is None
        return [_network(measure.prefix)] if fits and measure.prefix else []
    if measure.kind != FLOWSPEC or flow is None or measure.prefix is not None:
        return []
    named = (flow.destination_prefix, flow.source_prefix)
    return [_network(it) for it in named if it is not None]


def _network(text: str) -> Network:
    network = ip_network(text)
    # An IPv6 scope ("fe80::1%eth0") is part of the text that Python returns.
    if str(network) != text or "%" in text:
        raise ValueError(f"{text:.100} is not in canonical text")
    return network


def _within(inner: Network, outer: Network) -> bool:
    if inner.version != outer.version or inner.prefixlen < outer.prefixlen:
        return False
    shift = inner.max_prefixlen - outer.prefixlen
    return int(inner.network_address) >> shift == int(outer.network_address) >> shift
