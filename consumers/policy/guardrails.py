"""Guardrails, which can only refuse, and limits, which hold a measure for approval.

A measure with the verdict `refuse` cannot be approved. A measure with the verdict
`hold` needs a person's approval. Withdrawing is never checked.

The attacked side of a match is the operator's own network whose traffic is blocked:
the destination, or the source of outgoing traffic. It must be an ordinary network of
the operator's and not too wide. The remote side only narrows a match. Both sides are
compared with the protected networks. An absent remote side, which FastNetMon also
writes as a prefix of length 0, means any address.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv6Network
from typing import Final

from consumers.mitigation.measure import NOTIFY, Measure, Network
from consumers.policy.affected import AffectedAddresses
from consumers.policy.embedded import embedded_networks
from consumers.policy.facts import AttackFacts
from consumers.policy.model import Customer, Limits
from consumers.policy.networks import NetworkSet, is_within
from fnm_bus.event import Check

PASS: Final = "pass"  # noqa: S105 - a verdict
REFUSE: Final = "refuse"
HOLD: Final = "hold"

_GUARDRAIL: Final = "guardrail"
_LIMIT: Final = "limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveCounts:
    """Counts of active mitigations, for the limits.

    Attributes:
        active: wanted mitigations, without those that only inform people.
        by_customer: the same by customer's name.
        new_last_minute: mitigations that became wanted within the last 60 s.
        affected: the protected networks of the active mitigations.
    """

    active: int = 0
    by_customer: Mapping[str, int] = field(default_factory=dict)
    new_last_minute: int = 0
    affected: AffectedAddresses = field(default_factory=AffectedAddresses)


def check_age(facts: AttackFacts, now: datetime, limits: Limits) -> tuple[Check, ...]:
    """Return the check whether an event is recent enough to start a measure."""
    age = (now - facts.received_at).total_seconds()
    if age < -limits.max_clock_skew:
        text = (
            f"received {-age:.0f} s ahead of our clock, allowed"
            f" {limits.max_clock_skew:.0f} s: set the clock of {facts.sensor} or ours"
        )
        check = _result(_GUARDRAIL, "max_clock_skew", REFUSE, text, "clock_ahead")
        return (check,)
    text = f"{max(age, 0):.0f} s old, allowed {limits.max_event_age:.0f} s"
    if age > limits.max_event_age:
        return (_result(_GUARDRAIL, "max_event_age", REFUSE, text, "event_too_old"),)
    return (_result(_GUARDRAIL, "max_event_age", PASS, text),)


def check_measure(
    measure: Measure, limits: Limits, named: Sequence[Network] = ()
) -> tuple[Check, ...]:
    """Return the guardrails' verdicts on a measure; other measures do not count.

    Args:
        measure: a valid measure.
        limits: the guardrails.
        named: the action's own prefixes, which may be wider than the shortest prefix
            length.
    """
    if measure.kind == NOTIFY:
        return ()  # does not affect traffic, and people want to see every attack
    attacked = attacked_network(measure, limits.own)
    if attacked is None:
        text = "the match names no network, so it would match any traffic"
        return (_result(_GUARDRAIL, "own_networks", REFUSE, text, "no_network"),)
    networks = measure.networks
    return (
        _check_own_networks(attacked, limits),
        _check_special(attacked),
        _check_protected("infrastructure", networks, limits.infrastructure_set),
        _check_protected("protected_prefixes", networks, limits.protected_set),
        _check_width(attacked, limits, named),
    )


def check_limits(
    measure: Measure, counts: ActiveCounts, limits: Limits, customer: Customer | None
) -> tuple[Check, ...]:
    """Return whether one more measure is within the limits; `hold` if not.

    Args:
        measure: a measure that passed the guardrails.
        counts: active mitigations, without the measure.
        limits: the limits.
        customer: the customer of the measure's protected network, or None.
    """
    if measure.kind == NOTIFY:
        return ()
    checks = [
        _check_count("max_active", counts.active, limits.max_active),
        _check_count(
            "max_new_per_minute", counts.new_last_minute, limits.max_new_per_minute
        ),
    ]
    if customer is not None:
        active = counts.by_customer.get(customer.name, 0)
        text = f"customer {customer.name}: "
        checks.append(
            _check_count("max_per_customer", active, customer.max_active, text)
        )
    checks.append(_check_share(measure, counts, limits))
    return tuple(checks)


def worst_verdict(checks: Iterable[Check]) -> str:
    """Return the worst verdict: REFUSE, else HOLD, else PASS."""
    verdicts = {check.verdict for check in checks}
    return REFUSE if REFUSE in verdicts else HOLD if HOLD in verdicts else PASS


def attacked_network(
    measure: Measure, own: NetworkSet | Iterable[Network]
) -> Network | None:
    """Return the side of a measure's match that is the operator's own network.

    The measure protects or blocks this side: the destination, or the source of outgoing
    traffic. If neither side is the operator's, the first; None for a match without
    networks.
    """
    networks = measure.networks
    if not isinstance(own, NetworkSet):
        own = NetworkSet(own)
    inside = (network for network in networks if own.containing(network) is not None)
    return next(inside, networks[0] if networks else None)


def _check_own_networks(attacked: Network, limits: Limits) -> Check:
    outer = limits.own.containing(attacked)
    if outer is not None:
        text = f"{attacked} is within {outer}"
        return _result(_GUARDRAIL, "own_networks", PASS, text)
    text = f"{attacked} is not within your own networks"
    return _result(_GUARDRAIL, "own_networks", REFUSE, text)


def _check_special(attacked: Network) -> Check:
    address = attacked.network_address
    special = (
        address.is_unspecified  # also 0.0.0.0/0 and ::/0
        or address.is_multicast
        or address.is_loopback
        or address.is_link_local
        or (attacked.version == 4 and address.is_reserved)  # noqa: PLR2004 - IP
    )
    if special:
        text = f"{attacked} is unspecified, multicast, loopback, link-local or reserved"
        return _result(_GUARDRAIL, "special_address", REFUSE, text)
    return _result(_GUARDRAIL, "special_address", PASS, f"{attacked} is not special")


def _check_protected(
    name: str, networks: tuple[Network, ...], protected: NetworkSet
) -> Check:
    for network in networks:
        text = _describe_overlap(network, network, protected)
        if not text and isinstance(network, IPv6Network):
            forms = (
                _describe_overlap(network, form, protected)
                for form in embedded_networks(network)
            )
            text = next(filter(None, forms), "")
        if text:
            return _result(_GUARDRAIL, name, REFUSE, text)
    text = f"none of {len(protected.networks)} networks is affected"
    return _result(_GUARDRAIL, name, PASS, text)


def _describe_overlap(shown: Network, network: Network, protected: NetworkSet) -> str:
    overlap = protected.overlapping(network)
    if overlap is None:
        return ""
    form = "" if shown == network else f" is a form of {network}, which"
    if network == overlap:
        relation = "is protected" if form else "is protected itself"
        return f"{shown}{form} {relation}"
    relation = "is within" if is_within(network, overlap) else "covers"
    return f"{shown}{form} {relation} {overlap}, which is protected"


def _check_width(attacked: Network, limits: Limits, named: Sequence[Network]) -> Check:
    ipv4 = attacked.version == 4  # noqa: PLR2004 - IP
    least = limits.min_prefix_length_ipv4 if ipv4 else limits.min_prefix_length_ipv6
    name = f"min_prefix_length_ipv{attacked.version}"
    if attacked in named:
        text = f"{attacked} is named in the policy"
        return _result(_GUARDRAIL, name, PASS, text, "prefix_length")
    if attacked.prefixlen < least:
        text = f"{attacked} is wider than /{least}, the widest that is allowed"
        return _result(_GUARDRAIL, name, REFUSE, text, "prefix_length")
    text = f"{attacked} is not wider than /{least}"
    return _result(_GUARDRAIL, name, PASS, text, "prefix_length")


def _check_count(name: str, active: int, most: int, prefix: str = "") -> Check:
    text = f"{prefix}{active} of {most} in use"
    return _result(_LIMIT, name, PASS if active < most else HOLD, text)


def _check_share(measure: Measure, counts: ActiveCounts, limits: Limits) -> Check:
    name = "max_affected_share"
    network = attacked_network(measure, limits.own)
    if network is None:
        return _result(_LIMIT, name, HOLD, "the match names no network")
    own = limits.own.addresses(network.version)
    added = counts.affected.count_new(network)
    affected = counts.affected.count(network.version) + added
    share = affected / own if own else 1.0
    allowed = limits.max_affected_share
    text = f"{share:.1%} of your IPv{network.version} addresses, allowed {allowed:.1%}"
    # One host is always allowed: it is a large share of a small network.
    if added > 0 and affected > 1 and affected > own * allowed:
        return _result(_LIMIT, name, HOLD, text)
    return _result(_LIMIT, name, PASS, text)


def _result(stage: str, name: str, verdict: str, text: str, code: str = "") -> Check:
    return Check(stage=stage, name=name, code=code or name, verdict=verdict, text=text)
