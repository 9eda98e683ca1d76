"""Plan: which measures an action means for an event."""

from typing import Final

from consumers.mitigation.measure import (
    BLACKHOLE,
    FLOWSPEC,
    Measure,
    Network,
    canonical,
    match_of,
)
from consumers.policy.facts import Facts
from consumers.policy.model import GROUP, NOTHING, Action
from fnm_bus.event import Check, FlowMatch, FlowSpecRule, FlowThen

_PROTOCOLS: Final = frozenset({"tcp", "udp", "icmp", "gre", "esp", "ipv6-icmp"})
"""What FastNetMon's attack_protocol may be when it names a protocol for FlowSpec."""


def measures(facts: Facts, action: Action) -> tuple[list[Measure], list[Check]]:
    """Return the measures that *action* means for *facts*, and what cannot be done."""
    if action.outcome in {NOTHING, GROUP}:
        return [], []
    prefixes = action.prefixes or facts.networks
    if action.outcome != FLOWSPEC:
        plain = [
            Measure(
                kind=action.outcome,
                prefix=str(it),
                communities=action.communities if action.outcome == BLACKHOLE else (),
            )
            for it in prefixes
        ]
        return plain, []
    if not facts.rules or action.prefixes:
        return [_from_attack(facts, action, it) for it in prefixes], []
    found, problems = [], []
    for number, rule in enumerate(facts.rules):
        try:
            found.append(_from_rule(rule, action))
        except ValueError as exc:
            name = f"flow_spec_rules/{number}"
            problems.append(
                Check(stage="policy", name=name, verdict="refuse", text=str(exc))
            )
    return found, problems


def _from_attack(facts: Facts, action: Action, prefix: Network) -> Measure:
    known = facts.protocol if facts.protocol in _PROTOCOLS else None
    if known == "icmp" and prefix.version == 6:  # noqa: PLR2004 - IP
        known = "ipv6-icmp"
    flow = FlowMatch(
        destination_prefix=None if facts.outgoing else str(prefix),
        source_prefix=str(prefix) if facts.outgoing else None,
        protocols=(known,) if known else (),
    )
    then = action.then or FlowThen(action="discard")
    return Measure(kind=FLOWSPEC, flow=canonical(flow), then=then)


def _from_rule(rule: FlowSpecRule, action: Action) -> Measure:
    return Measure(
        kind=FLOWSPEC, flow=match_of(rule), then=action.then or then_of(rule)
    )


def then_of(rule: FlowSpecRule) -> FlowThen:
    """Return what FastNetMon's rule does.

    Raises:
        ValueError: it cannot be done, or its meaning is not documented.
    """
    values = rule.action
    match rule.action_type:
        case "discard" | None:
            return FlowThen(action="discard")
        case "rate-limit" if values is not None and values.rate == 0:
            return FlowThen(action="discard")
        case "rate-limit":
            raise ValueError(
                "rate-limit: FastNetMon does not document the unit of its rate;"
                " say `rate` (bytes/s) in the policy's rule"
            )
        case "redirect" if (
            values is not None
            and values.redirect_target_as is not None
            and values.redirect_target_value is not None
        ):
            return FlowThen(
                action="redirect",
                redirect_as=values.redirect_target_as,
                redirect_value=values.redirect_target_value,
            )
    raise ValueError(f"action {rule.action_type}: not one that is enforced")
