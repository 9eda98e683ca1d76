"""Start request: the measures that the policy and its guardrails allow an attack."""

from dataclasses import dataclass, field, replace
from typing import Final

from consumers.mitigator.state.transition import Transition
from consumers.mitigator.state.wants import (
    action_of_hostgroup,
    is_within_bound,
    key_of_want,
    wants_of,
)
from consumers.policy import guardrails
from consumers.policy.facts import AttackFacts
from consumers.policy.flow_rules import refusal
from consumers.policy.guardrails import REFUSE
from consumers.policy.measures import plan_measures
from consumers.policy.model import HOSTGROUP, IGNORE, Action, Rule
from consumers.policy.rules import match_rule
from fnm_bus.event import Check, Want

MAX_WANTS: Final = 256


@dataclass(frozen=True, slots=True)
class StartRequest:
    """The wants of an attack's reason, and the refused measures.

    Attributes:
        guardrail_checks: mitigation's key → the checks of its guardrails.
        refusals: (mitigation's key or None, check) of each refused measure.
    """

    rule: Rule
    wants: tuple[Want, ...] = ()
    checks: tuple[Check, ...] = ()
    guardrail_checks: dict[str, tuple[Check, ...]] = field(default_factory=dict)
    refusals: tuple[tuple[str | None, Check], ...] = ()

    def refuse(self, code: str, text: str) -> "StartRequest":
        """Return this request with a refusal of the policy."""
        check = refusal("policy", code, text)
        checks, refusals = (*self.checks, check), (*self.refusals, (None, check))
        return replace(self, checks=checks, refusals=refusals)


def request_start(
    transition: Transition,
    facts: AttackFacts,
    checks: tuple[Check, ...],
    *,
    quiet: bool = False,
) -> StartRequest | None:
    """Return an attack's request; None if the policy ignores it."""
    policy = transition.context.policy
    rule, rule_checks = match_rule(facts, policy)
    checks = (*checks, *rule_checks)
    if rule is None or rule.action.action == IGNORE:
        if not quiet:
            text = f"rule {rule.name}: ignore" if rule else "no rule matches"
            code = "rule_ignores" if rule else "no_rule"
            transition.audit_ignored(facts, refusal("policy", code, text), checks)
        return None
    request = StartRequest(rule, checks=checks)
    if rule.action.action == HOSTGROUP:
        return _add_hostgroup(transition, facts, request, fallback=False)
    request = _add(transition, facts, request, rule.action, fallback=False)
    has_fallback = rule.action.when_limited == HOSTGROUP
    if request.wants and has_fallback and facts.hostgroup in policy.hostgroups:
        request = _add_hostgroup(transition, facts, request, fallback=True)
    return request


def _add_hostgroup(
    transition: Transition, facts: AttackFacts, request: StartRequest, *, fallback: bool
) -> StartRequest:
    """Add the policy's action for the hostgroup."""
    policy = transition.context.policy
    action = action_of_hostgroup(policy, request.rule.action, facts.hostgroup)
    if action is None:
        return request.refuse(
            "unknown_hostgroup",
            f"the policy has no [[hostgroup]] with the name {facts.hostgroup}",
        )
    # The document's rules are about a host; a hostgroup's action has its own measures.
    facts = facts._replace(rules=(), refused_rules=(), has_rules=False)
    return _add(transition, facts, request, action, fallback=fallback)


def _add(
    transition: Transition,
    facts: AttackFacts,
    request: StartRequest,
    action: Action,
    *,
    fallback: bool,
) -> StartRequest:
    """Add the measures of an action that guardrails allow."""
    planned = plan_measures(facts, action)
    refusals: list[tuple[str | None, Check]] = [
        (None, check) for check in planned.checks if check.verdict == REFUSE
    ]
    wants: list[Want] = []
    guardrail_checks = {}
    for measure in planned.measures:
        checks = guardrails.check_measure(
            measure, transition.context.policy.limits, named=action.prefixes
        )
        refusal = next((check for check in checks if check.verdict == REFUSE), None)
        if refusal is not None:
            refusals.append((measure.key, refusal))
            continue
        for want in wants_of(measure, action, fallback=fallback):
            key = key_of_want(want)
            # A fallback may equal the host's own measure.
            if key not in request.guardrail_checks:
                wants.append(want)
                guardrail_checks[key] = checks
    all_wants = (*request.wants, *wants)
    if len(all_wants) > MAX_WANTS or not is_within_bound(all_wants):
        text = (
            f"{len(all_wants)} measures; at most {MAX_WANTS}, and 128 kB, are allowed"
        )
        return request.refuse("too_many_measures", text)
    return replace(
        request,
        wants=all_wants,
        checks=(*request.checks, *planned.checks),
        guardrail_checks={**request.guardrail_checks, **guardrail_checks},
        refusals=(*request.refusals, *refusals),
    )
