"""Start: policy ▶ measures ▶ guardrails ▶ the reason with what it wants."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from consumers.mitigation.reason_key import ATTACK
from consumers.mitigation.states import POLICY, SUPERSEDED
from consumers.mitigator.context import DecisionContext
from consumers.mitigator.state.call_order import event_of
from consumers.mitigator.state.next_record import ChangeCause
from consumers.mitigator.state.state import ReasonEntry
from consumers.mitigator.state.transition import Transition
from consumers.mitigator.state.wants import (
    action_of,
    action_of_hostgroup,
    fits,
    key_of_want,
    wants_of,
)
from consumers.policy import guardrails
from consumers.policy.facts import AttackFacts
from consumers.policy.guardrails import REFUSE
from consumers.policy.measures import plan_measures
from consumers.policy.model import HOSTGROUP, IGNORE, Action, Rule
from consumers.policy.rules import decide
from fnm_bus import __version__
from fnm_bus.event import Check, Reason, Want

MAX_REASONS: Final = 200_000
MAX_WANTS: Final = 256


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What an attack's reason will want, and what was refused.

    Attributes:
        rule: the policy's rule that decided.
        wants: what guardrails allow.
        checks: every check of the policy, in order.
        of_measure: mitigation's key → the checks of its guardrails.
        refused: (mitigation's key or None, check) of all that was refused.
    """

    rule: Rule
    wants: tuple[Want, ...]
    checks: tuple[Check, ...]
    of_measure: dict[str, tuple[Check, ...]]
    refused: tuple[tuple[str | None, Check], ...]


def start(change: Transition, facts: AttackFacts, checks: tuple[Check, ...]) -> None:
    """Let the policy decide about an attack, and open its reason."""
    plan = _plan(change, facts, checks)
    key = facts.reason_key
    before = change.state.reasons.get(key)
    if plan is None:
        _want_nothing(change, facts, before)
        return
    _report_refused(change, facts, plan)
    rule, wants = plan.rule.name, plan.wants
    if not wants and plan.refused and before is not None and before.holds:
        # What cannot be used does not end what can; the hostgroup belongs to the rule.
        rule, wants = before.reason.rule, before.reason.wants
        facts = facts._replace(hostgroup=before.reason.hostgroup)
    # A status update has no rules: it must not block more than a ban that was refused.
    if not wants and before is None and not facts.has_rules:
        change.ignore_attack(key, event_of(facts))
        return
    if not _has_room(change, facts, before):
        return
    reason = _reason(change.context, facts, rule, wants, before)
    change.put_reason(key, reason, holds=True)
    _recompute(change, facts, plan, before, reason)


def _report_refused(change: Transition, facts: AttackFacts, plan: StartRequest) -> None:
    """Report what was refused, in one record."""
    if not plan.refused:
        return
    name, check = plan.refused[0]
    others = len(plan.refused) - 1
    if others:
        check = replace(check, text=f"{check.text}; {others} more were refused")
    checks = tuple(dict.fromkeys((*plan.checks, *(c for _name, c in plan.refused))))
    change.refuse(facts, check, checks, key=name, rule=plan.rule.name)


def start_expired(
    change: Transition, facts: AttackFacts, before: ReasonEntry | None
) -> None:
    """Remember what a ban wanted that is too old to start anything.

    A fresh status update of its attack renews that.
    """
    if before is not None and before.holds:
        return
    plan = _plan(change, facts, (), quiet=True)
    if plan is None or not plan.wants or not _has_room(change, facts, before):
        return
    reason = _reason(change.context, facts, plan.rule.name, plan.wants, before)
    # Without a lease: a mitigator that takes over must not take it for one that holds.
    change.put_reason(facts.reason_key, replace(reason, lease_ms=0), holds=False)


def lease_of(context: DecisionContext, reason: Reason, *, renewed: bool) -> float:
    """Return the lease that a reason gets now, in seconds.

    The rule's. Before the first status update of an attack, and for Flow Spec rules,
    of which no updates are known to be sent, it is at least FastNetMon's ban time.
    """
    action = action_of(context.policy, reason)
    lease = action.lease if action else reason.lease_ms / 1000
    return lease if renewed else max(lease, context.fastnetmon_ban_time)


def _plan(
    change: Transition,
    facts: AttackFacts,
    checks: tuple[Check, ...],
    *,
    quiet: bool = False,
) -> StartRequest | None:
    """Return what an attack's reason will want; None where the policy ignores it."""
    policy = change.context.policy
    rule, asked = decide(facts, policy)
    checks = (*checks, *asked)
    if rule is None or rule.action.action == IGNORE:
        if not quiet:
            text = f"rule {rule.name}: ignore" if rule else "no rule matches"
            code = "rule_ignores" if rule else "no_rule"
            change.ignore(facts, _policy_check(code, text), checks)
        return None
    plan = StartRequest(rule, (), checks, {}, ())
    if rule.action.action == HOSTGROUP:
        return _add_hostgroup(change, facts, plan, fallback=False)
    plan = _add(change, facts, plan, rule.action, fallback=False)
    has_fallback = rule.action.when_limited == HOSTGROUP
    if plan.wants and has_fallback and facts.hostgroup in policy.hostgroups:
        plan = _add_hostgroup(change, facts, plan, fallback=True)
    return plan


def _add_hostgroup(
    change: Transition, facts: AttackFacts, plan: StartRequest, *, fallback: bool
) -> StartRequest:
    """Add the action that the policy has for the hostgroup."""
    action = action_of_hostgroup(
        change.context.policy, plan.rule.action, facts.hostgroup
    )
    if action is None:
        text = f"the policy has no [[hostgroup]] with the name {facts.hostgroup}"
        check = _policy_check("unknown_hostgroup", text)
        return _extended(plan, (), (check,), {}, ((None, check),))
    # The document's rules are about a host; the hostgroup's action says what it does.
    plain = facts._replace(rules=(), refused_rules=(), has_rules=False)
    return _add(change, plain, plan, action, fallback=fallback)


def _add(
    change: Transition,
    facts: AttackFacts,
    plan: StartRequest,
    action: Action,
    *,
    fallback: bool,
) -> StartRequest:
    """Add the measures of an action that guardrails allow."""
    planned = plan_measures(facts, action)
    bad = [check for check in planned.checks if check.verdict == REFUSE]
    refused: list[tuple[str | None, Check]] = [(None, check) for check in bad]
    wants: list[Want] = []
    of_measure = {}
    for measure in planned.measures:
        checks = guardrails.check_measure(
            measure, change.context.policy.limits, named=action.prefixes
        )
        worst = next((check for check in checks if check.verdict == REFUSE), None)
        if worst is not None:
            refused.append((measure.key, worst))
            continue
        for want in wants_of(measure, action, fallback=fallback):
            name = key_of_want(want)
            if name not in plan.of_measure:  # a fallback equal to the own measure
                wants.append(want)
                of_measure[name] = checks
    together = (*plan.wants, *wants)
    if len(together) > MAX_WANTS or not fits(together):
        text = f"{len(together)} measures, at most {MAX_WANTS} of 128 kB are taken"
        check = _policy_check("too_many_measures", text)
        return _extended(plan, (), (check,), {}, ((None, check),))
    return _extended(plan, wants, planned.checks, of_measure, refused)


def _extended(
    plan: StartRequest,
    wants: Iterable[Want],
    checks: Iterable[Check],
    of_measure: dict[str, tuple[Check, ...]],
    refused: Iterable[tuple[str | None, Check]],
) -> StartRequest:
    return StartRequest(
        plan.rule,
        (*plan.wants, *wants),
        (*plan.checks, *checks),
        {**plan.of_measure, **of_measure},
        (*plan.refused, *refused),
    )


def _want_nothing(
    change: Transition, facts: AttackFacts, before: ReasonEntry | None
) -> None:
    """Let an attack that the policy ignores want nothing.

    A reason's record stays: it knows which attack was closed before.
    """
    key = facts.reason_key
    if before is None:
        change.ignore_attack(key, event_of(facts))
        return
    reason = _reason(change.context, facts, "", (), before)
    change.put_reason(key, replace(reason, lease_ms=0), holds=False)
    cause = ChangeCause(
        text="the policy ignores its attack now",
        ended_because=POLICY,
        closed_lease=before.reason.lease_ms / 1000,
    )
    for name in before.keys if before.holds else ():
        change.recompute(name, cause, facts=facts)


def make_room(change: Transition) -> bool:
    """Forget the oldest reason that does not hold; return whether there is room."""
    state = change.state
    if len(state.reasons) < MAX_REASONS:
        return True
    oldest = next(iter(state.idle), None)
    if oldest is None:
        return False
    change.forget_reason(oldest)
    return True


def _has_room(
    change: Transition, facts: AttackFacts, before: ReasonEntry | None
) -> bool:
    """Return whether an attack's reason can be stored; report where it cannot."""
    if before is not None or make_room(change):
        return True
    check = Check(
        stage="limit",
        name="reasons",
        code="too_many_reasons",
        verdict=REFUSE,
        text=f"{MAX_REASONS} reasons hold already",
    )
    change.refuse(facts, check, (check,))
    return False


def previous_attack(old: Reason | None, attack: str) -> str:
    """Return the attack before *attack* on a target, as its reason so far has it."""
    if old is None:
        return ""
    return old.previous_attack if old.attack == attack else old.attack


def _reason(
    context: DecisionContext,
    facts: AttackFacts,
    rule: str,
    wants: tuple[Want, ...],
    before: ReasonEntry | None,
) -> Reason:
    old = before.reason if before else None
    reason = Reason(
        sensor=facts.sensor,
        scope=facts.scope,
        target=facts.target,
        part=facts.part,
        sequence=max(facts.sequence, old.sequence if old else 0),
        attack=facts.attack,
        previous_attack=previous_attack(old, facts.attack),
        action=facts.action,
        event_id=facts.event_id,
        received_at=facts.received_at,
        rule=rule,
        policy_digest=context.policy.digest,
        hostgroup=facts.hostgroup,
        direction=facts.direction,
        pps=facts.pps,
        bits=facts.bits,
        wants=wants,
        producer_version=__version__,
    )
    renewed = facts.action == "attack_status" and facts.part == ATTACK
    lease = lease_of(context, reason, renewed=renewed)
    return replace(reason, lease_ms=round(lease * 1000), renewals=int(renewed))


def _recompute(
    change: Transition,
    facts: AttackFacts,
    plan: StartRequest,
    before: ReasonEntry | None,
    reason: Reason,
) -> None:
    """Compute every mitigation again that the reason wants or wanted."""
    key = facts.reason_key
    keys = change.state.reasons[key].keys
    cause, checks = cause_of(reason), plan.checks
    for want, name in zip(reason.wants, keys, strict=True):
        if not want.fallback:
            own = plan.of_measure.get(name, ())
            change.recompute(name, cause, facts=facts, checks=(*checks, *own))
            checks = checks[-1:]  # the first report has all of them
    change.set_fallback(key, cause)
    for want, name in zip(reason.wants, keys, strict=True):
        if want.fallback:
            change.recompute(name, cause)
    for name in before.keys if before is not None and before.holds else ():
        if name not in keys:
            gone = ChangeCause(
                text=f"rule {reason.rule} wants something else now",
                ended_because=SUPERSEDED,
                closed_lease=before.reason.lease_ms / 1000 if before else None,
            )
            change.recompute(name, gone, facts=facts)


def cause_of(reason: Reason, because: str = SUPERSEDED) -> ChangeCause:
    """Return why a mitigation is computed again that a reason wants."""
    rule = f": rule {reason.rule}" if reason.rule else ""
    return ChangeCause(
        text=f"{reason.action} by {reason.sensor or reason.by}{rule}",
        ended_because=because,
        hostgroup=reason.hostgroup,
    )


def _policy_check(code: str, text: str) -> Check:
    return Check(stage="policy", name="policy", code=code, verdict=REFUSE, text=text)
