"""Policy: frozen values that a policy file becomes.

`file.tables` describes each key; a list of words becomes a plural name.

`rules.match_rule` chooses a rule, and `measures.plan_measures` plans the measures of
its action; `guardrails` can refuse or hold them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from consumers.mitigation.measure import BLACKHOLE, FIREWALL, FLOWSPEC, Network
from consumers.policy.embedded import with_mapped
from consumers.policy.networks import NetworkSet
from fnm_bus.event import FlowThen

HOSTGROUP: Final = "hostgroup"
IGNORE: Final = "ignore"
"""Values of `then.action` beside kinds of measures: the action of the hostgroup;
only a report in the audit topic."""
BLOCKING: Final = frozenset({BLACKHOLE, FLOWSPEC, FIREWALL, HOSTGROUP})
"""Actions that affect traffic, or may."""

APPROVE: Final = "approve"

MIN_LEASE: Final = 5.0
MAX_LEASE: Final = 24 * 3600.0
"""Seconds; bounds of every lease in policies, settings, commands and enforcers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Conditions of a rule; an empty condition or None matches any event."""

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
    prefix_set: NetworkSet = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefix_set", NetworkSet(self.prefixes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Action of a rule or of a hostgroup."""

    action: str
    flowspec_action: FlowThen | None = None
    lease: float = 900.0
    enforcers: tuple[str, ...] = ()
    communities: tuple[str, ...] = ()
    prefixes: tuple[Network, ...] = ()
    dry_run: bool = False
    approval: bool = False
    when_limited: str = APPROVE
    document_targets: bool = False
    document_redirect: bool = False
    any_protocol: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule; the first that matches decides."""

    name: str
    match: Match
    action: Action


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """A customer's networks, and the most mitigations they may have at once."""

    name: str
    networks: tuple[Network, ...]
    max_active: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Guardrails and limits, with the names of the policy file."""

    own_networks: tuple[Network, ...] = ()
    protected_prefixes: tuple[Network, ...] = ()
    infrastructure: tuple[Network, ...] = ()
    min_prefix_length_ipv4: int = 32
    min_prefix_length_ipv6: int = 128
    max_active: int = 500
    max_per_customer: int = 50
    max_new_per_minute: int = 120
    max_affected_share: float = 0.25
    max_event_age: float = 300.0
    max_clock_skew: float = 60.0
    own: NetworkSet = field(init=False, repr=False, compare=False)
    infrastructure_set: NetworkSet = field(init=False, repr=False, compare=False)
    protected_set: NetworkSet = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, networks in (
            ("own", self.own_networks),
            ("infrastructure_set", with_mapped(self.infrastructure)),
            ("protected_set", with_mapped(self.protected_prefixes)),
        ):
            object.__setattr__(self, name, NetworkSet(networks))


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy file's content.

    Attributes:
        hostgroups: hostgroup's name → its action.
        digest: 16 hex digits of the content's SHA-256; comments and spelling do not
            count; "" for a policy without a file.
    """

    rules: tuple[Rule, ...]
    limits: Limits
    hostgroups: Mapping[str, Action] = field(default_factory=dict)
    customers: tuple[Customer, ...] = ()
    digest: str = ""

    def rule(self, name: str) -> Rule | None:
        """Return the rule with a name, or None."""
        return next((rule for rule in self.rules if rule.name == name), None)


def lease_fault(seconds: float) -> str:
    """Return the fault of a lease outside its bounds, or ""."""
    if MIN_LEASE <= seconds <= MAX_LEASE:
        return ""
    return (
        f"expected {MIN_LEASE:g} s to {MAX_LEASE / 3600:g} h, got {seconds:g} s;"
        " a lease is renewed while its attack continues"
    )
