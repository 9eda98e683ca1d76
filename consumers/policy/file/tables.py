"""Tables of a policy file: keys with type, default and meaning.

The descriptions here are the reference (docs/reference/policy.md).
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from consumers.policy.file.field_types import (
    Above,
    Actions,
    AnyNetworks,
    Communities,
    Directions,
    Duration,
    Enforcers,
    Lease,
    Lowered,
    Name,
    Networks,
    Rate,
    Redirect,
    Scopes,
    Severities,
    Size,
    Words,
    list_as_tuple,
)
from fnm_bus.config.settings import Count, Table


class PolicyTable(Table):
    """A table of the policy; unknown keys and other types are refused."""

    model_config = ConfigDict(strict=True)


class GuardrailsTable(PolicyTable):
    """Guardrails, which can only refuse, and limits, which hold for approval."""

    protected_prefixes: AnyNetworks = Field(
        (),
        description="No measure may cover any of their addresses. NAT64, 6to4 and"
        " IPv4-mapped forms of IPv4 addresses are protected, too.",
    )
    infrastructure: AnyNetworks = Field(
        (),
        description="Addresses of your routers, of their neighbors and of the machines"
        " that fnm-bus and FastNetMon run on; protected in the same way.",
    )
    min_prefix_length_ipv4: Annotated[int, Field(ge=1, le=32)] = Field(
        32,
        description="Shortest prefix length of an IPv4 measure. `prefixes` of a rule or"
        " hostgroup may be wider, for that rule or hostgroup only.",
    )
    min_prefix_length_ipv6: Annotated[int, Field(ge=1, le=128)] = Field(
        128, description="Shortest prefix length of an IPv6 measure."
    )
    max_active: Count = Field(
        500, description="Most mitigations at once; further ones need approval."
    )
    max_per_customer: Count = Field(
        50,
        description="Most mitigations at once of each customer without `max_active`.",
    )
    max_new_per_minute: Count = Field(
        120,
        description="Most mitigations that may start within 60 s; further ones need"
        " approval.",
    )
    max_affected_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.25,
        description="Largest share of your own addresses of one family that may be"
        " affected at once; further mitigations need approval.",
    )
    max_event_age: Duration = Field(
        300.0, description="An older event starts no measure; 24 h at most."
    )
    max_clock_skew: Duration = Field(
        60.0,
        description="Most seconds that a sensor's clock may be ahead of the broker's;"
        " 24 h at most.",
    )


class CustomerTable(PolicyTable):
    """A customer's networks. The first matching customer counts."""

    name: Name = Field(description="Name, unique.")
    networks: Networks = Field(description="The customer's networks, within your own.")
    max_active: Count | None = Field(
        None,
        description="Most mitigations at once; without it, `max_per_customer` of the"
        " guardrails.",
    )


class ActionTable(PolicyTable):
    """Keys that rules and hostgroups have in common."""

    flowspec_action: Literal["discard", "rate-limit", "redirect"] | None = Field(
        None,
        description="With `flowspec`: the action on the packets. Default: the action of"
        " FastNetMon's own Flow Spec rule, or discard without such a rule.",
    )
    rate: Rate | None = Field(None, description="Limit of rate-limit, in bytes/s.")
    redirect: Redirect | None = Field(None, description="Route target of redirect.")
    any_protocol: bool = Field(
        default=False,
        description="With `flowspec` and an attack without Flow Spec rules: whether all"
        " protocols may be matched when FastNetMon does not report the attack's"
        " protocol, or FlowSpec does not support it. If false, such a measure is"
        " refused.",
    )
    lease: Lease = Field(
        900.0, description="Duration of a mitigation that is not renewed."
    )
    enforcers: Enforcers | None = Field(
        None,
        description="The enforcers that act: exabgp, nftables, or one of your own."
        " Default: all that support the measure.",
    )
    communities: Communities = Field(
        (), description="BGP communities of a blackhole besides the enforcer's own."
    )
    dry_run: bool = Field(
        default=False, description="Whether enforcers only report their actions."
    )
    approval: bool = Field(
        default=False, description="Whether a person has to approve first."
    )


class HostgroupTable(ActionTable):
    """The action for a whole hostgroup.

    It applies to a rule with `action = "hostgroup"`, and to a rule with
    `when_limited = "hostgroup"` if a limit is reached.
    """

    name: Name = Field(description="Name of FastNetMon's hostgroup, unique.")
    prefixes: Networks = Field(
        description="Networks of the measures, within your own. They may be wider than"
        " the guardrails' `min_prefix_length_*`."
    )
    action: Literal["blackhole", "flowspec", "firewall", "notify"] = Field(
        description="The kind of measure; `notify` only informs people."
    )


class ThenTable(ActionTable):
    """The action of a rule."""

    action: Literal[
        "blackhole", "flowspec", "firewall", "notify", "hostgroup", "ignore"
    ] = Field(
        description="The kind of measure. `notify` only informs people, `ignore` is"
        " only reported in the audit topic. `hostgroup` takes the action of the"
        " `[[hostgroup]]`; no other key is allowed beside it."
    )
    prefixes: Networks | None = Field(
        None,
        description="Networks of the measures, instead of the event's networks and"
        " Flow Spec rules. They may be wider than the guardrails'"
        " `min_prefix_length_*`.",
    )
    when_limited: Literal["approve", "hostgroup"] = Field(
        "approve",
        description="If a limit is reached: a person approves, or the action of the"
        " `[[hostgroup]]` applies.",
    )
    document_targets: bool = Field(
        default=False,
        description="With `flowspec`: whether FastNetMon's Flow Spec rule may be about"
        " another host than the event's.",
    )
    document_redirect: bool = Field(
        default=False,
        description="With `flowspec`: whether FastNetMon's Flow Spec rule may redirect"
        " traffic to the route target that it names.",
    )


class MatchTable(PolicyTable):
    """Conditions of a rule; an event has to meet all of them.

    A missing key matches any event. The word `none` matches an event without the value.
    """

    scope: Scopes | None = Field(None, description="Kind of the attacked target.")
    action: Actions | None = Field(
        None,
        description="FastNetMon's word. A status update without a preceding ban is"
        " tried like a ban.",
    )
    hostgroup: Words | None = Field(
        None,
        description="Names of hostgroups. FastNetMon's default, `global`, is not a"
        " hostgroup of a host: it counts as `none`.",
    )
    prefix: Networks | None = Field(
        None, description="Each network of the event is within one of these."
    )
    direction: Directions | None = Field(
        None,
        description="Direction of the traffic. A blocking rule matches an outgoing"
        " attack only if it names `outgoing` here.",
    )
    protocol: Lowered | None = Field(
        None, description="Main protocol of the attack: tcp, udp, icmp, …"
    )
    threshold: Words | None = Field(
        None,
        description="The threshold that was exceeded, exactly as FastNetMon writes it,"
        " such as `udp packets per second`.",
    )
    severity: Severities | None = Field(None, description="FastNetMon's word.")
    sensor: Words | None = Field(None, description="Names of sensors.")
    flow_spec: bool | None = Field(
        None, description="Whether the document has Flow Spec rules, valid or not."
    )
    min_pps: Size | None = Field(
        None,
        description="Packets/s at least, in the direction of the attack. An event"
        " without a size does not match.",
    )
    max_pps: Above | None = Field(None, description="Packets/s, less than this.")
    min_bits: Size | None = Field(
        None, description="Bit/s at least, in the direction of the attack."
    )
    max_bits: Above | None = Field(None, description="Bit/s, less than this.")


class RuleTable(PolicyTable):
    """A rule. Rules are tried in their order, and the first that matches decides."""

    name: Name = Field(description="Name, unique; it is part of every explanation.")
    match: MatchTable = Field(
        MatchTable(), description="Conditions; without them, any event matches."
    )
    then: ThenTable = Field(description="The action.")


# TOML's arrays become lists, which a strict tuple refuses.
_Customers = Annotated[tuple[CustomerTable, ...], BeforeValidator(list_as_tuple)]
_Hostgroups = Annotated[tuple[HostgroupTable, ...], BeforeValidator(list_as_tuple)]
_Rules = Annotated[
    tuple[RuleTable, ...], BeforeValidator(list_as_tuple), Field(min_length=1)
]


class PolicyTables(PolicyTable):
    """The whole file."""

    own_networks: Networks = Field(
        description="Your own networks. No measure affects any other network."
    )
    guardrails: GuardrailsTable = GuardrailsTable()
    customer: _Customers = ()
    hostgroup: _Hostgroups = ()
    rule: _Rules
