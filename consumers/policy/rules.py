"""Rules: the rule of a policy that decides about an event.

The rules are tried in their order, and the first that matches decides. A blocking rule
matches an outgoing attack only if its `direction` names `outgoing`: the target of such
an attack is the operator's own customer, whose host sends the traffic.
"""

from typing import Final, NamedTuple

from consumers.mitigation.measure import Network
from consumers.policy.facts import AttackFacts
from consumers.policy.model import BLOCKING, Customer, Match, Policy, Rule
from consumers.policy.networks import NetworkSet, is_within
from fnm_bus.event import Check
from fnm_bus.event.extra import shorten

_LISTED: Final = 5
"""Networks or words in a text."""
_MAX_TEXT: Final = 1000


class Decision(NamedTuple):
    """The answer of a policy to an event."""

    rule: Rule | None
    checks: tuple[Check, ...]


class Mismatch(NamedTuple):
    """The first condition that an event does not meet.

    Attributes:
        code: the condition's key in the policy file; `pps` or `bits` for an event
            without a size; or `outgoing`.
        text: the compared values, a phrase for people.
    """

    code: str
    text: str


def match_rule(facts: AttackFacts, policy: Policy) -> Decision:
    """Return the first rule that matches, and a check for each rule that was tried."""
    networks = NetworkSet(facts.networks)
    checks = []
    for rule in policy.rules:
        fault = first_mismatch(facts, rule.match, networks) or _outgoing_mismatch(
            facts, rule
        )
        if fault is None:
            text = f"→ {rule.action.action}"
            checks.append(_check(rule.name, "match", "match", text))
            return Decision(rule, tuple(checks))
        checks.append(_check(rule.name, fault.code, "no-match", fault.text))
    return Decision(None, tuple(checks))


def customer_of(network: Network, customers: tuple[Customer, ...]) -> Customer | None:
    """Return the first customer whose networks contain *network*, or None."""
    return next(
        (
            customer
            for customer in customers
            if any(is_within(network, outer) for outer in customer.networks)
        ),
        None,
    )


def first_mismatch(
    facts: AttackFacts, match: Match, networks: NetworkSet
) -> Mismatch | None:
    """Return the first condition that an event does not meet, or None.

    Args:
        facts: the event's facts.
        match: the conditions. `decide` checks the direction of a blocking rule.
        networks: the networks of *facts*.
    """
    # A status update of an unknown attack counts like its ban.
    counts = "ban" if "ban" in match.actions else "attack_status"
    action = counts if facts.action == "attack_status" else facts.action
    words = (
        ("scope", facts.scope, match.scopes),
        ("action", action, match.actions),
        ("hostgroup", facts.hostgroup or "none", match.hostgroups),
        ("direction", facts.direction or "none", match.directions),
        ("protocol", facts.protocol or "none", match.protocols),
        ("threshold", facts.threshold or "none", match.thresholds),
        ("severity", facts.severity or "none", match.severities),
        ("sensor", facts.sensor, match.sensors),
    )
    for code, word, expected in words:
        if expected and word not in expected:
            return Mismatch(code, f"{code} is {word}, expected {_join_words(expected)}")
    if match.flow_spec is not None and match.flow_spec != facts.has_rules:
        text = f"flow_spec is {facts.has_rules}, expected {match.flow_spec}".lower()
        return Mismatch("flow_spec", text)
    if match.prefixes and not match.prefix_set.contains_all(networks):
        networks_text = _join_networks(facts.networks)
        prefixes_text = _join_networks(match.prefixes)
        return Mismatch("prefix", f"{networks_text} is not within {prefixes_text}")
    return _size_mismatch(
        "pps", facts.pps, match.min_pps, match.max_pps
    ) or _size_mismatch("bits", facts.bits, match.min_bits, match.max_bits)


def _outgoing_mismatch(facts: AttackFacts, rule: Rule) -> Mismatch | None:
    if (
        not facts.outgoing
        or rule.match.directions  # it matched, so it names outgoing
        or rule.action.action not in BLOCKING
    ):
        return None
    return Mismatch(
        "outgoing",
        'the attack is outgoing; a blocking rule needs direction = "outgoing"',
    )


def _size_mismatch(
    name: str, value: int | None, low: int | None, high: int | None
) -> Mismatch | None:
    if low is None and high is None:
        return None
    if value is None:
        return Mismatch(name, f"{name} is not in the event")
    if low is not None and value < low:
        return Mismatch(f"min_{name}", f"{name} is {value}, expected at least {low}")
    if high is not None and value >= high:
        return Mismatch(f"max_{name}", f"{name} is {value}, expected less than {high}")
    return None


def _join_words(words: frozenset[str]) -> str:
    shown = sorted(words)[:_LISTED]
    more = [f"{len(words) - _LISTED} more"] if len(words) > _LISTED else []
    return " or ".join([*shown, *more])


def _join_networks(networks: tuple[Network, ...]) -> str:
    shown = [str(network) for network in networks[:_LISTED]]
    more = [f"{len(networks) - _LISTED} more"] if len(networks) > _LISTED else []
    return ", ".join([*shown, *more]) or "no network"


def _check(name: str, code: str, verdict: str, text: str) -> Check:
    # Words of documents may contain control characters, which a terminal would obey.
    shown = shorten(text, _MAX_TEXT)
    return Check(stage="policy", name=name, code=code, verdict=verdict, text=shown)
