"""An enforcer's own checks of each record, independent of the policy.

Without them, any client that may write to the mitigation topic could block any network.
Only records that start a measure are checked: ending a mitigation is never refused.
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
"""Seconds; upper bound of a lease, even if a record requests more."""

FORM: Final = "form"
KEY: Final = "key"
LEASE: Final = "lease"
OWN_NETWORKS: Final = "own_networks"
PREFIX: Final = "prefix"
WIDTH: Final = "width"
"""Codes of refusals."""


class Refusal(NamedTuple):
    """The reason that a record is ignored.

    Attributes:
        code: a stable word: form, key, lease, own_networks, prefix or width.
        text: the reason for people, with the value.
    """

    code: str
    text: str


def check_record(
    key: str, mitigation: Mitigation, own_networks: Sequence[Network] | None
) -> Refusal | None:
    """Return the reason that *mitigation* must not be in force, or None.

    Args:
        key: key of the record.
        mitigation: value of the record; its state is not checked.
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
    """Return the reason that *measure* must not be in force, or None."""
    try:
        networks = _networks(measure)
    except ValueError as exc:
        return Refusal(PREFIX, str(exc))
    if not networks:
        return Refusal(
            FORM, f"the fields do not belong to a {measure.kind:.20} measure"
        )
    for network in networks:
        if network.prefixlen == 0:
            return Refusal(WIDTH, f"{network} covers every address")
    if own_networks is not None and not any(
        _is_within(network, own) for network in networks for own in own_networks
    ):
        shown = ", ".join(map(str, networks))
        return Refusal(OWN_NETWORKS, f"{shown} is not in own_networks")
    return None


def _networks(measure: Measure) -> list[Network]:
    """Return the networks of *measure*; empty if its fields do not belong to its kind.

    Raises:
        ValueError: a network is not in canonical text.
    """
    flow = measure.flow
    if measure.kind in {BLACKHOLE, FIREWALL}:
        fits = measure.prefix and flow is None and measure.then is None
        return [_network(measure.prefix)] if fits and measure.prefix else []
    if measure.kind != FLOWSPEC or flow is None or measure.prefix is not None:
        return []
    prefixes = (flow.destination_prefix, flow.source_prefix)
    return [_network(prefix) for prefix in prefixes if prefix is not None]


def _network(text: str) -> Network:
    network = ip_network(text)
    # An IPv6 scope ("fe80::1%eth0") is part of the text that Python returns.
    if str(network) != text or "%" in text:
        raise ValueError(f"{text:.100} is not in canonical text")
    return network


def _is_within(inner: Network, outer: Network) -> bool:
    if inner.version != outer.version or inner.prefixlen < outer.prefixlen:
        return False
    shift = inner.max_prefixlen - outer.prefixlen
    return int(inner.network_address) >> shift == int(outer.network_address) >> shift
