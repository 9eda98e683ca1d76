"""Policy: which rule decides about an event.

The rules are asked in their order and the first that matches decides. Everything here
is a function of its arguments. What a rule's action means in measures is `plan`;
guardrails and state come after.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from consumers.mitigation.measure import BLACKHOLE, FIREWALL, FLOWSPEC, NOTIFY, Network
from consumers.policy.facts import Facts
from fnm_bus.event import Check, FlowThen

NOTHING: Final = "nothing"
GROUP: Final = "group"
OUTCOMES: Final = (BLACKHOLE, FLOWSPEC, FIREWALL, NOTIFY, GROUP, NOTHING)
"""What a rule may say; `group` is the action that is chosen for the hostgroup."""

HOLD: Final = "hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What an event has to be; what is empty or None matches any.

    Attributes:
        scopes: host, hostgroup.
        actions: ban, partial_block; attack_status, which counts like its ban, too.
        hostgroups: names of hostgroups.
        prefixes: own prefixes; all networks of the event lie within one of them.
        directions: incoming, outgoing, internal, other, unknown.
        protocols: tcp, udp, icmp, …
        thresholds: what was exceeded, FastNetMon's words.
        severities: FastNetMon's words.
        sensors: names of sensors.
        flow_spec: whether the document has Flow Spec rules.
        min_pps: packets/s at least; an event without a size does not match.
        max_pps: packets/s below.
        min_bits: bit/s at least.
        max_bits: bit/s below.
    """

    scopes: frozenset[str] = frozenset()
    actions: frozenset[str] = frozenset()
    hostgroups: frozenset[str] = frozenset()
    prefixes: tuple[Network, ...] = ()
    directions: frozenset[str] = frozenset()
    protocols: frozenset[str] = frozenset()
    thresholds: frozenset[str] = frozenset()
    severities: frozenset[str] = frozenset()
    sensors: frozenset[str] = frozenset()
    flow_spec: bool | None = None
    min_pps: int | None = None
    max_pps: int | None = None
    min_bits: int | None = None
    max_bits: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What is done.

    Attributes:
        outcome: one of OUTCOMES.
        then: for FlowSpec; None does what the document's rule says, else discards.
        lease: seconds that a mitigation holds unless it is renewed.
        enforcers: which are to act; empty for all that know the measure.
        communities: BGP communities besides the enforcer's own.
        prefixes: what is meant instead of the event's own networks.
        dry_run: whether enforcers only say what they would do.
        approval: whether a person has to approve first.
        at_cap: `hold` for approval, or `group` for the hostgroup's action.
    """

    outcome: str
    then: FlowThen | None = None
    lease: float = 900.0
    enforcers: tuple[str, ...] = ()
    communities: tuple[str, ...] = ()
    prefixes: tuple[Network, ...] = ()
    dry_run: bool = False
    approval: bool = False
    at_cap: str = HOLD


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule: when it matches, its action is taken and no further rule is asked."""

    name: str
    match: Match
    action: Action


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """Whose network is whose, and how many mitigations one customer may have."""

    name: str
    networks: tuple[Network, ...]
    cap: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the guardrails compare with.

    Attributes:
        own: the operator's own networks; nothing outside of them is touched.
        never: what no measure may cover, not even in part.
        addresses: addresses of routers, neighbors and of this system itself.
        widest4: shortest prefix length of an IPv4 measure.
        widest6: likewise for IPv6.
        total: most mitigations at once.
        per_customer: likewise for each customer that names no cap of its own.
        per_minute: most mitigations that may start in 60 s.
        share: largest share of the own addresses of a family, 0 to 1.
        named: prefixes that the policy itself names as a group's or a rule's; these
            may be wider.
        fresh: seconds; an older event starts nothing.
        ahead: seconds that a sensor's clock may be ahead of ours.
    """

    own: tuple[Network, ...] = ()
    never: tuple[Network, ...] = ()
    addresses: tuple[Network, ...] = ()
    widest4: int = 32
    widest6: int = 128
    named: frozenset[Network] = frozenset()
    total: int = 500
    per_customer: int = 50
    per_minute: int = 120
    share: float = 0.25
    fresh: float = 300.0
    ahead: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Everything that is decided by.

    Attributes:
        rules: in the order in which they are asked.
        limits: what the guardrails compare with.
        groups: hostgroup's name → the action that is chosen for it.
        customers: in the order in which they are asked.
    """

    rules: tuple[Rule, ...]
    limits: Limits
    groups: dict[str, Action]
    customers: tuple[Customer, ...] = ()


class Decision(NamedTuple):
    """What the policy says of an event.

    Attributes:
        rule: the rule that decided, or None when none matches.
        checks: each rule that was asked, with its answer.
    """

    rule: Rule | None
    checks: tuple[Check, ...]


def decide(facts: Facts, policy: Policy) -> Decision:
    """Return the first rule that matches, and what every rule before it said."""
    checks = []
    for rule in policy.rules:
        why = mismatch(facts, rule.match)
        if not why:
            checks.append(_check(rule.name, "match", f"→ {rule.action.outcome}"))
            return Decision(rule, tuple(checks))
        checks.append(_check(rule.name, "no-match", why))
    return Decision(None, tuple(checks))


def mismatch(facts: Facts, match: Match) -> str:
    """Return the first condition that *facts* do not meet, or "" when all are met."""
    # A status for which nothing stands counts like its ban.
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
    for name, word, wanted in words:
        if wanted and word not in wanted:
            return f"{name} is {word}, wanted {' or '.join(sorted(wanted))}"
    if match.flow_spec is not None and match.flow_spec != bool(facts.rules):
        return f"flow_spec is {bool(facts.rules)}, wanted {match.flow_spec}"
    if match.prefixes and not _all_within(facts.networks, match.prefixes):
        return f"{_listed(facts.networks)} is not within {_listed(match.prefixes)}"
    return _size("pps", facts.pps, match.min_pps, match.max_pps) or _size(
        "bits", facts.bits, match.min_bits, match.max_bits
    )


def customer_of(
    networks: tuple[Network, ...], customers: tuple[Customer, ...]
) -> Customer | None:
    """Return the first customer in whose networks all of *networks* lie."""
    return next((it for it in customers if _all_within(networks, it.networks)), None)


def _all_within(inner: tuple[Network, ...], outer: tuple[Network, ...]) -> bool:
    return bool(inner) and all(any(within(it, o) for o in outer) for it in inner)


def within(inner: Network, outer: Network) -> bool:
    """Return whether *inner* lies in *outer*; families do not mix."""
    # mypy cannot see that equal versions are equal types.
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _size(name: str, value: int | None, low: int | None, high: int | None) -> str:
    if low is None and high is None:
        return ""
    if value is None:
        return f"{name} is not said"
    if low is not None and value < low:
        return f"{name} is {value}, wanted at least {low}"
    if high is not None and value >= high:
        return f"{name} is {value}, wanted less than {high}"
    return ""


def _listed(networks: tuple[Network, ...]) -> str:
    return ", ".join(str(it) for it in _first(networks)) or "no network"


def _first(networks: tuple[Network, ...], most: int = 5) -> Iterator[Network | str]:
    yield from networks[:most]
    if len(networks) > most:
        yield f"{len(networks) - most} more"


def _check(name: str, verdict: str, text: str) -> Check:
    return Check(stage="policy", name=name, verdict=verdict, text=text)
