"""A document's Flow Spec rule as the match and the action of a measure.

Each function either returns exactly the rule's meaning, or refuses the rule.
"""

from typing import Final

from consumers.mitigation.flow_match import (
    PREFIX_FIELDS,
    Network,
    canonical,
    match_size_fault,
    network_of,
    word_fault,
)
from consumers.mitigation.measure import is_route_target
from consumers.policy.model import Action
from fnm_bus.event import FlowMatch, FlowSpecRule, FlowThen

_UNSUPPORTED: Final = (
    *("ttls", "vlans", "source_asns", "destination_asns", "input_interfaces"),
    *("output_interfaces", "agent_addresses"),
)
"""Parts of FastNetMon's rules that no FlowSpec component of RFC 8955 matches."""
_BLOCKING: Final = frozenset({"discard", "rate-limit", "redirect"})


class RuleRefused(ValueError):
    """A rule that becomes no measure."""

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        super().__init__(text)


def match_of(rule: FlowSpecRule) -> FlowMatch:
    """Return the canonical match of FastNetMon's rule.

    A prefix of length 0 means any address and becomes the absent field.

    Raises:
        RuleRefused: the match would be wider or narrower than the rule's, or is too
            large.
    """
    for name in _UNSUPPORTED:
        if getattr(rule, name):
            raise RuleRefused("part_not_supported", f"{name}: FlowSpec cannot match it")
    version = _version(rule)
    flow = canonical(
        FlowMatch(**{name: getattr(rule, name) for name in FlowMatch.__struct_fields__})
    )
    if flow.destination_prefix is None and flow.source_prefix is None:
        raise RuleRefused("no_network", "the rule names no network")
    if fault := match_size_fault(flow):
        raise RuleRefused("match_too_large", fault)
    field, fault = word_fault(flow, version)
    if fault:
        protocol = field == "protocols"
        code = "protocol_not_supported" if protocol else "part_not_supported"
        raise RuleRefused(code, f"{field}: {fault}")
    return flow


def then_of(rule: FlowSpecRule, action: Action) -> FlowThen:
    """Return the action of the measure that FastNetMon's rule becomes.

    The policy's `flowspec_action` replaces the action of a rule that limits traffic,
    never that of a rule that accepts or marks it.

    Raises:
        RuleRefused: no enforcer supports the rule's action, its meaning is not
            documented, or it needs a permission of the policy.
    """
    word = rule.action_type or "discard"
    if word not in _BLOCKING:
        raise RuleRefused("action_not_supported", f"{word:.40}: not enforced")
    if action.flowspec_action is not None:
        return action.flowspec_action
    values = rule.action
    rate = values.rate if values is not None else None
    if word == "discard" or (word == "rate-limit" and rate == 0):
        return FlowThen(action="discard")
    if word == "rate-limit":
        raise RuleRefused(
            "action_not_supported",
            "rate-limit: FastNetMon does not document the unit of its rate; write"
            ' flowspec_action = "rate-limit" and rate (bytes/s) in the policy\'s rule',
        )
    if not action.document_redirect:
        raise RuleRefused(
            "redirect_not_allowed",
            "redirect: document_redirect = true in the policy's rule would allow it",
        )
    number = values.redirect_target_as if values is not None else None
    value = values.redirect_target_value if values is not None else None
    if number is None or value is None or not is_route_target(number, value):
        raise RuleRefused("action_not_supported", "redirect: not a route target")
    return FlowThen(action="redirect", redirect_as=number, redirect_value=value)


def _version(rule: FlowSpecRule) -> int:
    versions = {
        _network(name, text).version
        for name in PREFIX_FIELDS
        if (text := getattr(rule, name))
    }
    if not versions:
        raise RuleRefused("no_network", "the rule names no network")
    if len(versions) > 1:
        raise RuleRefused("mixed_families", "one prefix is IPv4, the other IPv6")
    return versions.pop()


def _network(name: str, text: str) -> Network:
    try:
        return network_of(text)
    except ValueError as exc:
        fault = f"{name}: {text!r:.80} is not a network"
        raise RuleRefused("prefix_not_understood", fault) from exc
