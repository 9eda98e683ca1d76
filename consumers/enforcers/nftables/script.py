"""The text of nftables: what is said to `nft`, and what its answers mean.

Every family and prefix length has a set of its own without `interval`, and a chain that
masks an address and looks it up there: one lookup by hash for each length in use. An
interval set would refuse networks that overlap (10.0.0.0/8 and 10.1.0.0/16), or join
them and forget which of the two ends first; and renewing thousands takes minutes in it.
A chain for each set, and not one for all, so that making one again never concerns a set
that somebody else has put there in the meantime.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any, Final

import msgspec

from consumers.enforcers.backend import (
    ActiveMeasure,
    BackendError,
    UnsupportedMeasure,
)
from consumers.mitigation.measure import FIREWALL, Measure, Network

FORM: Final = "drop"
"""What the firewall does with every match."""

_V4: Final = 4
_RULES: Final = 2
_MOST: Final = 100_000_000
"""Seconds from which on nft 1.0.6 finds a timeout too large: three years."""
_SET: Final = re.compile(r"(?:hosts|net)([46])(?:_(\d+))?")
_NO_LISTING: Final = (AttributeError, LookupError, TypeError, ValueError)
"""What walking through JSON of another shape raises, or what is no JSON."""
_FAULT: Final = re.compile(r"^/dev/stdin:(\d+):[^\n]*?Error: ([^\n]+)", re.MULTILINE)


def network_of(measure: Measure) -> Network:
    """Return the network that *measure* drops.

    Raises:
        UnsupportedMeasure: it is no firewall measure of one network in canonical text.
    """
    if measure.kind != FIREWALL:
        raise UnsupportedMeasure(
            f"{measure.key}: nftables does {FIREWALL} measures only"
        )
    if measure.flow is not None:  # its key would be that of another match
        raise UnsupportedMeasure(f"{measure.key}: a {FIREWALL} measure has no flow")
    if not measure.prefix:
        raise UnsupportedMeasure(f"{measure.key}: a {FIREWALL} measure needs a prefix")
    try:
        network = ip_network(measure.prefix)
    except ValueError as exc:
        raise UnsupportedMeasure(f"{measure.key}: {exc}") from exc
    # Also keeps out what Python takes for a part of an address: "fe80::1%anything".
    if _prefix(network.version, int(network.network_address), network.prefixlen) != (
        measure.prefix
    ):
        raise UnsupportedMeasure(f"{measure.key}: the prefix is not in canonical text")
    return network


def timeout(left: float) -> str:
    """Return *left* seconds as nft's time, rounded up to milliseconds.

    Raises:
        ValueError: nft cannot say it, or 0 would mean "for ever".
    """
    if not 0 < left < _MOST:  # also not a number
        raise ValueError(f"wanted more than 0 and less than {_MOST} s, got {left}")
    ms = math.ceil(left * 1000)
    return f"{ms // 1000}s{ms % 1000}ms"  # no part may have more than 8 digits


def set_name(network: Network) -> str:
    """Return the name of the set that *network* belongs to."""
    if network.prefixlen == network.max_prefixlen:
        return f"hosts{network.version}"
    return f"net{network.version}_{network.prefixlen}"


def setup(
    table: str, networks: Iterable[Network], priority: int | None
) -> tuple[str, ...]:
    """Return commands that make what *networks* need and leave alone what stands.

    Args:
        table: name of the table, of family inet.
        networks: those that are to be put in or taken out.
        priority: of the chains; None makes no chains, for there is nothing to drop.
    """
    sets = {set_name(it): it for it in networks}
    lines = [f"add table inet {table}"]
    for name, network in sorted(sets.items()):
        kind = f"ipv{network.version}_addr"
        lines.append(f"add set inet {table} {name} {{ type {kind}; flags timeout; }}")
        if priority is not None:
            lines += _chain(f"inet {table}", name, network, priority)
    return tuple(lines)


def renewal(table: str, network: Network, left: float) -> str:
    """Return one line that puts *network* in for *left* seconds, new or not.

    Adding what is there already succeeds and changes nothing, deleting what is not
    there fails: so it is added to be deleted to be added.

    Raises:
        ValueError: as `timeout`.
    """
    element = f"{_element(table, network)} timeout {timeout(left)} }}"
    return f"{removal(table, network)}; add element {element}"


def removal(table: str, network: Network) -> str:
    """Return one line that takes *network* out, there or not."""
    element = f"{_element(table, network)} }}"
    return f"add element {element}; delete element {element}"


def faults(said: str) -> Mapping[int, str]:
    """Return what nft found wrong: line from 1 → the first reason."""
    found: dict[int, str] = {}
    for line, reason in _FAULT.findall(said):
        found.setdefault(int(line), reason.removeprefix("Could not process rule: "))
    return found


def standing(listing: bytes) -> Mapping[Measure, ActiveMeasure]:
    """Return what drops, from `nft -j list table`.

    A set without its rules drops nothing, so nothing of it stands. The seconds are
    whole and rounded down: the real end is up to a second later.

    Raises:
        BackendError: it is no such listing.
    """
    try:
        items: Sequence[Any] = msgspec.json.decode(listing)["nftables"]
        whole = _complete(items)
        sets = [it["set"] for it in items if "set" in it]
        return {
            _measure(it["name"], element): _standing(element)
            for it in sets
            if it["name"] in whole
            for element in it.get("elem", ())
        }
    except _NO_LISTING as exc:
        raise BackendError(
            f"the listing of nft is not understood ({type(exc).__name__}: {exc}):"
            f" {listing[:80]!r}"
        ) from exc


def _prefix(version: int, address: int, length: int) -> str:
    kind = IPv4Address if version == _V4 else IPv6Address
    return f"{kind(address)}/{length}"


def _element(table: str, network: Network) -> str:
    return f"inet {table} {set_name(network)} {{ {network.network_address}"


def _chain(table: str, name: str, network: Network, priority: int) -> Sequence[str]:
    """Return a chain made anew: flushing it and its rules are one transaction."""
    ip = "ip" if network.version == _V4 else "ip6"
    host = network.prefixlen == network.max_prefixlen
    masked = "" if host else f" and {network.netmask}"
    hook = f"type filter hook prerouting priority {priority}; policy accept;"
    lines = [f"add chain {table} {name} {{ {hook} }}", f"flush chain {table} {name}"]
    for field, counter in (("daddr", f"{name}_to"), ("saddr", f"{name}_from")):
        # Counters with names of their own keep counting when the rules are made anew.
        match = f"{ip} {field}{masked} @{name} counter name {counter} drop"
        lines += [
            f"add counter {table} {counter}",
            f"add rule {table} {name} {match}",
        ]
    return lines


def _complete(items: Sequence[Any]) -> set[str]:
    """Return the names of the chains that are hooked in and have all their rules."""
    hooked = {it["chain"]["name"] for it in items if it.get("chain", {}).get("hook")}
    rules = [it["rule"]["chain"] for it in items if "rule" in it]
    return {it for it in hooked if _SET.fullmatch(it) and rules.count(it) >= _RULES}


def _measure(name: str, element: Any) -> Measure:
    address = ip_network(
        element if isinstance(element, str) else element["elem"]["val"]
    )
    found = _SET.fullmatch(name)
    length = found and found[2]
    size = int(length) if length else address.max_prefixlen
    prefix = _prefix(address.version, int(address.network_address), size)
    return Measure(kind=FIREWALL, prefix=prefix)


def _standing(element: Any) -> ActiveMeasure:
    # Without a timeout an element is bare text: somebody put it in by hand.
    if isinstance(element, str) or "expires" not in element["elem"]:
        return ActiveMeasure(FORM, None)
    return ActiveMeasure(FORM, float(element["elem"]["expires"]))
