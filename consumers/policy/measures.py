"""Measures: those that an action means for an event.

A rule that was not parsed completely is refused with a code and a reason. It is not
replaced by a wider or narrower one.
"""

from typing import Final, NamedTuple

from consumers.mitigation.flow_words import protocol_fault
from consumers.mitigation.measure import (
    BLACKHOLE,
    FLOWSPEC,
    NOTIFY,
    Measure,
    Network,
    canonical,
)
from consumers.policy.document_rule import RuleRefused, match_of, then_of
from consumers.policy.facts import ATTACK, AttackFacts
from consumers.policy.flow_rules import refusal
from consumers.policy.model import HOSTGROUP, IGNORE, Action
from consumers.policy.networks import NetworkSet
from fnm_bus.event import Check, FlowMatch, FlowSpecRule, FlowThen

MAX_MEASURES: Final = 256
"""Measures of one reason."""

_DISCARD: Final = FlowThen(action="discard")
_NO_PROTOCOL: Final = "hopopt"
"""FastNetMon's word for protocol 0, which its manual blocks have."""


class PlannedMeasures(NamedTuple):
    """The measures of an action for an event."""

    measures: tuple[Measure, ...] = ()
    checks: tuple[Check, ...] = ()


def plan_measures(facts: AttackFacts, action: Action) -> PlannedMeasures:
    """Return the measures that *action* means for *facts*, and the refusals.

    The actions `ignore` and `hostgroup` have no measures of their own. `notify` has
    one for each network, the first MAX_MEASURES of them.
    """
    if action.action in {IGNORE, HOSTGROUP}:
        return PlannedMeasures()
    if action.action == FLOWSPEC and not action.prefixes and _is_about_rules(facts):
        return _plan_for_rules(facts, action)
    prefixes = action.prefixes or facts.networks
    if not prefixes:
        text = "the event names no network"
        return PlannedMeasures(checks=(refusal("networks", "no_network", text),))
    if action.action == NOTIFY:
        prefixes = prefixes[:MAX_MEASURES]
    if len(prefixes) > MAX_MEASURES:
        return _refuse_too_many("networks", len(prefixes))
    if action.action == FLOWSPEC:
        return _plan_for_attack(facts, action, prefixes)
    communities = action.communities if action.action == BLACKHOLE else ()
    return PlannedMeasures(
        tuple(
            Measure(kind=action.action, prefix=str(prefix), communities=communities)
            for prefix in dict.fromkeys(prefixes)
        )
    )


def _is_about_rules(facts: AttackFacts) -> bool:
    """Return whether an event is about Flow Spec rules, valid or not."""
    return facts.has_rules or bool(facts.refused_rules) or facts.part != ATTACK


def _plan_for_attack(
    facts: AttackFacts, action: Action, prefixes: tuple[Network, ...]
) -> PlannedMeasures:
    measures: dict[str, Measure] = {}
    for prefix in prefixes:
        protocol, fault = _protocol(facts.protocol, prefix.version)
        if fault and not action.any_protocol:
            text = f"{fault}; any_protocol = true would block all protocols"
            check = refusal("protocol", "protocol_not_supported", text)
            return PlannedMeasures(checks=(check,))
        flow = FlowMatch(
            destination_prefix=None if facts.outgoing else str(prefix),
            source_prefix=str(prefix) if facts.outgoing else None,
            protocols=(protocol,) if protocol else (),
        )
        measure = Measure(
            kind=FLOWSPEC, flow=flow, then=action.flowspec_action or _DISCARD
        )
        measures[measure.key] = measure
    return PlannedMeasures(tuple(measures.values()))


def _protocol(word: str, version: int) -> tuple[str, str]:
    """Return the protocol that FlowSpec matches, or "" and the fault."""
    if word in {"", "unknown", _NO_PROTOCOL}:
        return "", "the attack's protocol is not in the event"
    if word == "icmp" and version == 6:  # noqa: PLR2004 - IP
        return "ipv6-icmp", ""
    fault = protocol_fault(word, version)
    return ("", fault) if fault else (word, "")


def _plan_for_rules(facts: AttackFacts, action: Action) -> PlannedMeasures:
    if len(facts.rules) > MAX_MEASURES:
        return _refuse_too_many("flow_spec_rules", len(facts.rules))
    targets = NetworkSet(facts.networks)
    measures: dict[str, Measure] = {}
    checks = [*facts.refused_rules]
    for number, rule in enumerate(facts.rules):
        try:
            measure = _plan_for_rule(rule, action, targets)
        except RuleRefused as exc:
            name = f"flow_spec_rules/{number}"
            checks.append(refusal(name, exc.code, str(exc)))
            continue
        if measures.setdefault(measure.key, measure) != measure:
            text = "an earlier rule of the document matches the same packets"
            name = f"flow_spec_rules/{number}"
            checks.append(refusal(name, "rules_conflict", text))
    return PlannedMeasures(tuple(measures.values()), tuple(checks))


def _plan_for_rule(rule: FlowSpecRule, action: Action, targets: NetworkSet) -> Measure:
    flow = match_of(rule)
    then = then_of(rule, action)
    measure = Measure(kind=FLOWSPEC, flow=canonical(flow), then=then)
    about_target = any(
        targets.containing(network) is not None for network in measure.networks
    )
    if not about_target and not action.document_targets:
        raise RuleRefused(
            "another_target",
            "the rule is not about the event's target; document_targets = true in the"
            " policy's rule would allow it",
        )
    return measure


def _refuse_too_many(name: str, count: int) -> PlannedMeasures:
    text = f"{count} measures for one attack, allowed are {MAX_MEASURES}"
    return PlannedMeasures(checks=(refusal(name, "too_many_measures", text),))
