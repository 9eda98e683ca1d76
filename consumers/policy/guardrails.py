"""Guardrails: checks that can only refuse, or hold a measure back for a person.

`refuse` is for what must never be done; a person cannot approve it either. `hold` is
for what may be right and is too much to do unasked. Taking back is never asked here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from consumers.mitigation.measure import NOTIFY, Measure, Network
from consumers.policy.facts import Facts
from consumers.policy.model import Customer, Limits, within
from fnm_bus.event import Check

FINE: Final = "pass"
REFUSE: Final = "refuse"
HOLD: Final = "hold"


@dataclass(frozen=True, slots=True)
class Tally:
    """What stands already, as far as caps are concerned.

    Attributes:
        total: mitigations that are wanted.
        by_customer: the same by customer's name.
        last_minute: how many started within the last 60 s.
        covered: version of IP → own addresses that are affected.
        networks: those networks; the values say how often.
    """

    total: int = 0
    by_customer: Mapping[str, int] = field(default_factory=dict)
    last_minute: int = 0
    covered: Mapping[int, int] = field(default_factory=dict)
    networks: Mapping[Network, int] = field(default_factory=dict)


def timely(facts: Facts, now: datetime, limits: Limits) -> tuple[Check, ...]:
    """Return whether an event is young enough to start anything."""
    age = (now - facts.received_at).total_seconds()
    if age < -limits.ahead:
        text = (
            f"received {-age:.0f} s ahead of our clock, allowed {limits.ahead:.0f} s:"
            f" set the clock of {facts.sensor} or ours"
        )
        return (_check("ahead", REFUSE, text),)
    text = f"{max(age, 0):.0f} s old, allowed {limits.fresh:.0f} s"
    return (_check("fresh", REFUSE if age > limits.fresh else FINE, text),)


def allowed(measure: Measure, limits: Limits) -> tuple[Check, ...]:
    """Return what speaks for or against a measure whatever else stands."""
    if measure.kind == NOTIFY:
        return ()  # nothing is touched, and people want to know of any attack
    networks = measure.networks
    if not networks:
        return (_check("own", REFUSE, "it names no network, so it would match any"),)
    mine = meant(measure, limits.own) or networks[0]
    return (
        _own(mine, limits),
        _special(networks),
        _covering("addresses", networks, limits.addresses),
        _covering("never", networks, limits.never),
        _width(mine, limits),
    )


def affordable(
    measure: Measure, tally: Tally, limits: Limits, customer: Customer | None
) -> tuple[Check, ...]:
    """Return whether one more measure is within the caps; `hold` when it is not."""
    if measure.kind == NOTIFY:
        return ()
    checks = [
        _cap("total", tally.total, limits.total),
        _cap("per_minute", tally.last_minute, limits.per_minute),
    ]
    if customer is not None:
        there = tally.by_customer.get(customer.name, 0)
        checks.append(_cap(f"customer {customer.name}", there, customer.cap))
    checks.append(_breaker(measure, tally, limits))
    return tuple(checks)


def verdict(checks: Iterable[Check]) -> str:
    """Return the worst of the answers."""
    found = {it.verdict for it in checks}
    return REFUSE if REFUSE in found else HOLD if HOLD in found else FINE


def meant(measure: Measure, own: tuple[Network, ...]) -> Network | None:
    """Return the network of ours that a measure protects or shuts off.

    Of a FlowSpec measure's networks the first that is ours: its destination, or the
    source of traffic that leaves. None when it names no network.
    """
    found = measure.networks
    ours = (it for it in found if any(within(it, o) for o in own))
    return next(ours, found[0] if found else None)


def _own(mine: Network, limits: Limits) -> Check:
    if any(within(mine, it) for it in limits.own):
        return _check("own", FINE, f"{mine} is ours")
    return _check("own", REFUSE, f"{mine} is not within our own networks")


def _special(networks: tuple[Network, ...]) -> Check:
    for it in networks:
        at = it.network_address
        odd = (
            at.is_unspecified
            or at.is_multicast
            or at.is_loopback
            or at.is_link_local
            or (isinstance(it, IPv4Network) and at.is_reserved)
        )
        if odd or it.prefixlen == 0:
            text = f"{it} is unspecified, multicast, loopback, link-local or reserved"
            return _check("special", REFUSE, text)
    return _check("special", FINE, "a host or network like others")


def _covering(
    name: str, networks: tuple[Network, ...], protected: tuple[Network, ...]
) -> Check:
    for it in networks:
        for kept in protected:
            if _overlap(it, kept):
                return _check(name, REFUSE, f"{it} covers {kept}, which is protected")
    return _check(name, FINE, f"none of {len(protected)} protected is covered")


def _overlap(one: Network, other: Network) -> bool:
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)


def _width(mine: Network, limits: Limits) -> Check:
    if mine in limits.named:
        return _check("width", FINE, f"{mine} is named in the policy")
    least = limits.widest4 if mine.version == 4 else limits.widest6  # noqa: PLR2004 - IP
    text = f"/{mine.prefixlen}, the widest that is allowed is /{least}"
    return _check("width", FINE if mine.prefixlen >= least else REFUSE, text)


def _cap(name: str, there: int, most: int) -> Check:
    return _check(name, FINE if there < most else HOLD, f"{there} of {most} in use")


def _breaker(measure: Measure, tally: Tally, limits: Limits) -> Check:
    mine = meant(measure, limits.own)
    if mine is None:
        return _check("share", FINE, "no network is meant")
    own = sum(it.num_addresses for it in limits.own if it.version == mine.version)
    more = _more(mine, tally.networks)
    count = tally.covered.get(mine.version, 0) + more
    # One host always may: of a small network it is a large share.
    if more > 0 and count > own * limits.share and count > 1:
        text = (
            f"{count / own if own else 1:.1%} of our IPv{mine.version} addresses would"
            f" be affected, allowed {limits.share:.1%}"
        )
        return _check("share", HOLD, text)
    return _check("share", FINE, f"at most {limits.share:.1%} would be affected")


def _more(mine: Network, there: Mapping[Network, int]) -> int:
    """Return how many addresses *mine* adds to those that are affected already."""
    if mine in there or any(
        mine.supernet(new_prefix=length) in there for length in range(mine.prefixlen)
    ):
        return 0
    if mine.num_addresses == 1:
        return 1
    return mine.num_addresses - sum(
        it.num_addresses for it in there if within(it, mine)
    )


def _check(name: str, verdict: str, text: str) -> Check:
    return Check(stage="guardrail", name=name, verdict=verdict, text=text)
