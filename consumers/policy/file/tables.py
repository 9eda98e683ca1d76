"""Policy tables: what may stand in a policy file, with type, default and meaning.

The descriptions here are the reference (docs/reference/policy.md).
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from consumers.policy.file.words import (
    Above,
    Actions,
    AnyNetworks,
    Communities,
    Directions,
    Duration,
    Lease,
    Lowered,
    Name,
    Networks,
    Redirect,
    Scopes,
    Severities,
    Size,
    Words,
    tuple_of,
)
from fnm_bus.settings import Count, Table


class PolicyTable(Table):
    """A table of the policy; unknown keys and other types are refused."""

    model_config = ConfigDict(strict=True)


class OwnTable(PolicyTable):
    """Your own networks."""

    networks: Networks = Field(
        description="Nothing outside of them is ever touched.",
    )


class GuardrailsTable(PolicyTable):
    """Checks that can only refuse, or hold a measure back for a person."""

    never: AnyNetworks = Field(
        (), description="What no measure may cover, not even in part."
    )
    addresses: AnyNetworks = Field(
        (),
        description="Addresses of your routers, of their neighbors and of the machines"
        " that fnm-bus and FastNetMon run on; protected likewise.",
    )
    widest4: Annotated[int, Field(ge=1, le=32)] = Field(
        32, description="Shortest prefix length of an IPv4 measure."
    )
    widest6: Annotated[int, Field(ge=1, le=128)] = Field(
        128, description="Likewise for IPv6."
    )
    total: Count = Field(
        500, description="Most mitigations at once; what is more is held for approval."
    )
    per_customer: Count = Field(
        50, description="Likewise for each customer that has no `cap` of its own."
    )
    per_minute: Count = Field(
        120, description="Most mitigations that may start within 60 s; likewise held."
    )
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.25,
        description="Largest share of your own addresses of one family that may be"
        " affected at once; likewise held.",
    )
    fresh: Duration = Field(300.0, description="An older event starts nothing.")
    ahead: Duration = Field(
        60.0, description="How far a sensor's clock may be ahead of the mitigator's."
    )


class CustomerTable(PolicyTable):
    """Whose network is whose. The first that fits is taken."""

    name: Name = Field(description="Name, unique.")
    networks: Networks = Field(description="The customer's networks, within your own.")
    cap: Count | None = Field(
        None,
        description="Most mitigations at once; else `per_customer` of the guardrails.",
    )


class DeedTable(PolicyTable):
    """What rules and groups have in common."""

    action: Literal["discard", "rate-limit", "redirect"] | None = Field(
        None,
        description="What outcome flowspec does with the packets. Without it, what"
        " FastNetMon's own Flow Spec rule says, else discard.",
    )
    rate: Above | None = Field(None, description="Limit of rate-limit, in bytes/s.")
    redirect: Redirect | None = Field(None, description="Where redirect leads.")
    lease: Lease = Field(
        900.0, description="How long a mitigation holds unless it is renewed."
    )
    enforcers: Words | None = Field(
        None,
        description="Which are to act: exabgp, nftables, or one of your own. Without"
        " it, all that know the measure.",
    )
    communities: Communities = Field(
        (), description="BGP communities of a blackhole besides the enforcer's own."
    )
    dry_run: bool = Field(
        default=False, description="Whether enforcers only say what they would do."
    )
    approval: bool = Field(
        default=False, description="Whether a person has to approve first."
    )


class GroupTable(DeedTable):
    """The measure that is chosen for a whole hostgroup.

    It is taken for a rule with `outcome = "group"`, and for one with
    `at_cap = "group"` when a cap is reached.
    """

    name: Name = Field(description="Name of FastNetMon's hostgroup, unique.")
    prefixes: Networks = Field(description="What is meant, within your own networks.")
    outcome: Literal["blackhole", "flowspec", "firewall", "notify"] = Field(
        description="The kind of measure."
    )


class ThenTable(DeedTable):
    """What a rule does."""

    outcome: Literal[
        "blackhole", "flowspec", "firewall", "notify", "group", "nothing"
    ] = Field(
        description="The kind of measure. notify only tells people, nothing is only"
        " told in the audit. group does what the hostgroup's `[[group]]` says; no other"
        " key may stand beside it.",
    )
    prefixes: Networks | None = Field(
        None, description="What is meant instead of the networks of the event."
    )
    at_cap: Literal["hold", "group"] = Field(
        "hold",
        description="When a cap is reached: hold for approval, or what the hostgroup's"
        " `[[group]]` says.",
    )


class MatchTable(PolicyTable):
    """What an event has to be, all of it; a key that is left out matches any.

    The word none matches an event that does not say it.
    """

    scope: Scopes | None = Field(None, description="What is attacked.")
    action: Actions | None = Field(
        None,
        description="FastNetMon's word. A status update is only asked about when its"
        " ban is not known, and counts like it then.",
    )
    hostgroup: Words | None = Field(None, description="Names of hostgroups.")
    prefix: Networks | None = Field(
        None, description="All networks of the event lie within one of these."
    )
    direction: Directions | None = Field(None, description="Direction of the traffic.")
    protocol: Lowered | None = Field(
        None, description="Main protocol of the attack: tcp, udp, icmp, …"
    )
    threshold: Words | None = Field(
        None,
        description="What was exceeded, exactly as FastNetMon says it, such as"
        " `udp packets per second`.",
    )
    severity: Severities | None = Field(None, description="FastNetMon's word.")
    sensor: Words | None = Field(None, description="Names of sensors.")
    flow_spec: bool | None = Field(
        None, description="Whether the document has Flow Spec rules."
    )
    min_pps: Size | None = Field(
        None,
        description="Packets/s at least. An event that does not say its size does not"
        " match.",
    )
    max_pps: Above | None = Field(None, description="Packets/s, less than this.")
    min_bits: Size | None = Field(None, description="Bit/s at least; likewise.")
    max_bits: Above | None = Field(None, description="Bit/s, less than this.")


class RuleTable(PolicyTable):
    """A rule. They are asked in their order, and the first that matches decides."""

    name: Name = Field(description="Name, unique; it stands in every explanation.")
    match: MatchTable = Field(
        MatchTable(), description="What an event has to be; without it, anything."
    )
    then: ThenTable = Field(description="What is done.")


# TOML's arrays come as lists, which a strict tuple does not take.
_Customers = Annotated[tuple[CustomerTable, ...], BeforeValidator(tuple_of)]
_Groups = Annotated[tuple[GroupTable, ...], BeforeValidator(tuple_of)]
_Rules = Annotated[
    tuple[RuleTable, ...], BeforeValidator(tuple_of), Field(min_length=1)
]


class PolicyTables(PolicyTable):
    """The whole file."""

    own: OwnTable = Field(description="Your own networks.")
    guardrails: GuardrailsTable = GuardrailsTable()
    customer: _Customers = ()
    group: _Groups = ()
    rule: _Rules
