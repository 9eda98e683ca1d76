"""The input of `nft`, and the meaning of its output.

Each family and prefix length has its own set without `interval`, and a chain that masks
an address and looks it up in the set: one hash lookup for each length in use. An
interval set would refuse overlapping networks (10.0.0.0/8 and 10.1.0.0/16), or merge
them and lose the earlier end; and renewing thousands of elements in it takes minutes.
Each set has its own chain, so that recreating a chain never affects a set that another
process has added meanwhile.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_network
from typing import Any, Final

import msgspec

from consumers.enforcers.backend import ActiveMeasure, BackendError, require_supported
from consumers.mitigation.measure import FIREWALL, Measure, Network

KINDS: Final = frozenset({FIREWALL})
FORM: Final = "drop"
"""The form of every firewall measure."""

_V4: Final = 4
_RULES_PER_CHAIN: Final = 2
_TIMEOUT_LIMIT: Final = 100_000_000
"""Seconds; nft 1.0.6 refuses this timeout and longer ones (three years)."""
_SET: Final = re.compile(r"(?:hosts|net)([46])(?:_(\d+))?")
_DECODE_ERRORS: Final = (AttributeError, LookupError, TypeError, ValueError)
"""Exceptions for text that is not JSON, or JSON of another structure."""
_FAULT: Final = re.compile(r"^/dev/stdin:(\d+):[^\n]*?Error: ([^\n]+)", re.MULTILINE)


def network_of(measure: Measure) -> Network:
    """Return the network that *measure* drops.

    Raises:
        UnsupportedMeasure: it is not a valid firewall measure.
    """
    require_supported(measure, KINDS)
    return ip_network(str(measure.prefix))


def nft_time(seconds: float) -> str:
    """Return *seconds* as nft's time, rounded up to milliseconds.

    Raises:
        ValueError: nft has no such timeout; 0 would mean that it never ends.
    """
    if not 0 < seconds < _TIMEOUT_LIMIT:  # also refuses NaN
        raise ValueError(f"{seconds} s is not between 0 and {_TIMEOUT_LIMIT} s")
    ms = math.ceil(seconds * 1000)
    return f"{ms // 1000}s{ms % 1000}ms"  # nft allows 8 digits a unit


def set_name(network: Network) -> str:
    """Return the name of the set of *network*."""
    if network.prefixlen == network.max_prefixlen:
        return f"hosts{network.version}"
    return f"net{network.version}_{network.prefixlen}"


def setup_lines(
    table: str, networks: Iterable[Network], priority: int | None
) -> tuple[str, ...]:
    """Return the commands that create missing sets and chains for *networks*.

    Args:
        table: name of the table, of family inet.
        networks: the networks to announce or withdraw.
        priority: priority of the chains; None creates no chains, for a withdrawal.
    """
    sets = {set_name(network): network for network in networks}
    lines = [f"add table inet {table}"]
    for name, network in sorted(sets.items()):
        kind = f"ipv{network.version}_addr"
        lines.append(f"add set inet {table} {name} {{ type {kind}; flags timeout; }}")
        if priority is not None:
            lines += _chain(f"inet {table}", name, network, priority)
    return tuple(lines)


def renewal_line(table: str, network: Network, seconds: float) -> str:
    """Return one line that adds *network* for *seconds*, or renews it.

    Adding an element that exists succeeds without a change, and deleting a missing one
    fails. So the line adds, deletes and adds the element.

    Raises:
        ValueError: as for `nft_time`.
    """
    element = f"{_element(table, network)} timeout {nft_time(seconds)} }}"
    return f"{removal_line(table, network)}; add element {element}"


def removal_line(table: str, network: Network) -> str:
    """Return one line that deletes *network*, whether it exists or not."""
    element = f"{_element(table, network)} }}"
    return f"add element {element}; delete element {element}"


def parse_faults(error: str) -> Mapping[int, str]:
    """Return the refused lines in nft's error: line number from 1 → first reason."""
    reasons: dict[int, str] = {}
    for line, reason in _FAULT.findall(error):
        reasons.setdefault(int(line), reason.removeprefix("Could not process rule: "))
    return reasons


def active_measures(listing: bytes) -> Mapping[Measure, ActiveMeasure]:
    """Return the dropped networks from `nft -j list table`.

    Sets without their rules drop nothing and are left out. The seconds are whole and
    rounded down: the real end is up to a second later.

    Raises:
        BackendError: *listing* is not such a listing.
    """
    try:
        items: Sequence[Any] = msgspec.json.decode(listing)["nftables"]
        chains = _complete_chains(items)
        sets = [item["set"] for item in items if "set" in item]
        return {
            _measure(nft_set["name"], element): _active_measure(element)
            for nft_set in sets
            if nft_set["name"] in chains
            for element in nft_set.get("elem", ())
        }
    except _DECODE_ERRORS as exc:
        raise BackendError(
            f"nft's listing is not understood ({type(exc).__name__}: {exc}):"
            f" {listing[:80]!r}"
        ) from exc


def _element(table: str, network: Network) -> str:
    return f"inet {table} {set_name(network)} {{ {network.network_address}"


def _chain(table: str, name: str, network: Network, priority: int) -> Sequence[str]:
    """Return the lines that recreate a chain; the flush is in the same transaction."""
    ip = "ip" if network.version == _V4 else "ip6"
    host = network.prefixlen == network.max_prefixlen
    masked = "" if host else f" and {network.netmask}"
    hook = f"type filter hook prerouting priority {priority}; policy accept;"
    lines = [f"add chain {table} {name} {{ {hook} }}", f"flush chain {table} {name}"]
    for field, counter in (("daddr", f"{name}_to"), ("saddr", f"{name}_from")):
        # Named counters keep their values when the rules are recreated.
        match = f"{ip} {field}{masked} @{name} counter name {counter} drop"
        lines += [f"add counter {table} {counter}", f"add rule {table} {name} {match}"]
    return lines


def _complete_chains(items: Sequence[Any]) -> set[str]:
    """Return the names of our chains that have a hook and all their rules."""
    chains = [item["chain"] for item in items if "chain" in item]
    hooked = {chain["name"] for chain in chains if chain.get("hook")}
    rules = [item["rule"]["chain"] for item in items if "rule" in item]
    return {
        name
        for name in hooked
        if _SET.fullmatch(name) and rules.count(name) >= _RULES_PER_CHAIN
    }


def _measure(name: str, element: Any) -> Measure:
    address = ip_network(
        element if isinstance(element, str) else element["elem"]["val"]
    )
    match = _SET.fullmatch(name)
    suffix = match and match[2]
    length = int(suffix) if suffix else address.max_prefixlen
    return Measure(kind=FIREWALL, prefix=f"{address.network_address}/{length}")


def _active_measure(element: Any) -> ActiveMeasure:
    # An element without a timeout is bare text; only an operator adds such elements.
    if isinstance(element, str) or "expires" not in element["elem"]:
        return ActiveMeasure(FORM, None)
    return ActiveMeasure(FORM, float(element["elem"]["expires"]))
