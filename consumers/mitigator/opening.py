"""Opening: policy ▶ plan ▶ guardrails ▶ wanted, proposed or refused."""

from dataclasses import dataclass
from dataclasses import replace as changed_case

from msgspec.structs import replace

from consumers.mitigation.measure import Measure
from consumers.policy import guardrails
from consumers.mitigator.closing import let_go
from consumers.policy.facts import Facts
from consumers.policy.guardrails import FINE, HOLD, REFUSE
from consumers.mitigator.lease import begun, changed, reason_of, term, with_reason
from consumers.policy.measures import measures
from consumers.policy.model import GROUP, NOTHING, Rule, customer_of, decide
from consumers.mitigator.renewal import another
from consumers.mitigator.state import ENDED, PROPOSED, SUPPRESSED, WANTED
from consumers.mitigator.turn import Turn
from fnm_bus.event import Check, Mitigation, Reason


@dataclass(frozen=True, slots=True)
class Case:
    """What speaks for a start.

    Attributes:
        facts: the event.
        rule: the policy's rule that decided.
        checks: what was asked so far.
        capped: whether caps apply; the hostgroup's action has none of its own.
    """

    facts: Facts
    rule: Rule
    checks: tuple[Check, ...]
    capped: bool = True


def open_(turn: Turn, facts: Facts, checks: tuple[Check, ...]) -> None:
    """Let the policy decide about an attack, and start what it says."""
    rule, asked = decide(facts, turn.terms.policy)
    checks = (*checks, *asked)
    wanted: list[Measure] = []
    if rule is None:
        turn.ignore(facts, "no rule matches", checks)
    elif rule.action.outcome == NOTHING:
        turn.ignore(facts, f"rule {rule.name}: nothing", checks)
    else:
        wanted = _start_all(turn, Case(facts, rule, checks))
    kept = {it.key for it in wanted}
    for key in turn.state.holding(facts.place):
        if key not in kept:
            name = f"rule {rule.name}" if rule else "no rule"
            it = turn.state.mitigations[key]
            let_go(turn, it, facts.place, f"decided anew: {name}", facts)


def _start_all(turn: Turn, case: Case) -> list[Measure]:
    facts, rule = case.facts, case.rule
    if rule.action.outcome == GROUP:
        return _start_group(turn, case)
    found, problems = measures(facts, rule.action)
    if facts.odd_rules:
        text = f"{facts.odd_rules} Flow Spec rules are not wholly understood"
        problems.append(_refused("flow_spec_rules", text))
    case = changed_case(case, checks=(*case.checks, *problems))
    if not found:
        why = "; ".join(it.text for it in problems) or "the event names no network"
        turn.ignore(facts, f"rule {rule.name}: no measure: {why}", case.checks)
    started = []
    for it in found:
        verdict = _start(turn, case, it)
        if verdict == GROUP:
            started += _start_group(turn, case)
        elif verdict != REFUSE:
            started.append(it)
    return started


def _start_group(turn: Turn, case: Case) -> list[Measure]:
    """Take the action that is chosen for the hostgroup."""
    name = case.facts.hostgroup
    action = turn.terms.policy.groups.get(name or "")
    if action is None:
        text = f"hostgroup {name}: there is no [[group]] of that name"
        turn.ignore(case.facts, text, case.checks)
        return []
    # The document's rules are about a host; the group's action says what it does.
    found, _none = measures(case.facts._replace(rules=()), action)
    rule = changed_case(case.rule, action=action)
    case = changed_case(case, rule=rule, capped=False)
    return [it for it in found if _start(turn, case, it) != REFUSE]


def _start(turn: Turn, case: Case, measure: Measure) -> str:
    """Start, propose, renew or refuse a measure; return pass, hold, refuse or group."""
    policy = turn.terms.policy
    asked = guardrails.allowed(measure, policy.limits)
    before = turn.state.mitigations.get(measure.key)
    mine = guardrails.meant(measure, policy.limits.own)
    customer = None if mine is None else customer_of((mine,), policy.customers)
    if before is None or before.state != WANTED:
        tally = turn.state.tally(turn.now)
        caps = guardrails.affordable(measure, tally, policy.limits, customer)
        asked = (*asked, *(caps if case.capped else caps[-1:]))
    verdict = guardrails.verdict(asked)
    case = changed_case(case, checks=(*case.checks, *asked))
    if verdict == REFUSE:
        _refuse(turn, case, measure)
    elif verdict == HOLD and case.capped and _falls_back(turn, case):
        return GROUP
    else:
        _take(turn, case, measure, customer.name if customer else None)
    return verdict


def _refuse(turn: Turn, case: Case, measure: Measure) -> None:
    text = f"refused by {_worst(case.checks)}"
    if turn.state.news(case.facts.place, text):
        turn.tell(
            "refused",
            text,
            key=measure.key,
            facts=case.facts,
            rule=case.rule.name,
            checks=case.checks,
        )


def _take(turn: Turn, case: Case, measure: Measure, customer: str | None) -> None:
    """Give a measure the event as its reason."""
    facts, action = case.facts, case.rule.action
    before = turn.state.mitigations.get(measure.key)
    live = before is not None and before.state != ENDED
    renewing = facts.sensor in turn.state.renewing
    lease = term(action.lease, facts, turn.terms.ban_time, renewing=renewing)
    reason = reason_of(facts, case.rule.name, lease, turn.now)
    if before is not None and before.state == SUPPRESSED:
        if _still_meant(before, facts):
            kept = with_reason(before, reason)
            turn.write(changed(before, turn.now, cause=before.cause, reasons=kept))
            return
        live = False  # the attack for which a person ended it is over
    base = before if before is not None and live else begun(measure, before, turn.now)
    state, cause = _state(case, base)
    base = replace(
        base,
        enforcers=action.enforcers,
        dry_run=action.dry_run or turn.terms.dry_run,
        group=base.group or facts.hostgroup,
        customer=customer,
    )
    told = "renewed" if live and base.state == state else state
    kept = with_reason(base, reason)
    turn.write(
        changed(base, turn.now, cause=cause, state=state, reasons=kept, measure=measure)
    )
    turn.tell(
        told,
        cause,
        key=measure.key,
        facts=facts,
        rule=case.rule.name,
        checks=case.checks,
    )


def _state(case: Case, base: Mitigation) -> tuple[str, str]:
    """Return whether to want or to propose, and why."""
    cause = f"{case.facts.action} by {case.facts.sensor}: rule {case.rule.name}"
    if base.state == WANTED:
        return WANTED, cause
    if case.rule.action.approval:
        return PROPOSED, f"{cause}; it asks for approval"
    if any(it.verdict == HOLD for it in case.checks):
        return PROPOSED, f"{cause}; held by {_worst(case.checks)}"
    return WANTED, cause


def _still_meant(mitigation: Mitigation, facts: Facts) -> bool:
    """Return whether the attack goes on for which a person ended a mitigation."""
    holding: list[Reason] = [it for it in mitigation.reasons if it.holds]
    return not all(another(it, facts) for it in holding)


def _falls_back(turn: Turn, case: Case) -> bool:
    known = turn.terms.policy.groups
    return case.rule.action.at_cap == GROUP and case.facts.hostgroup in known


def _worst(checks: tuple[Check, ...]) -> str:
    bad = [it for it in checks if it.stage == "guardrail" and it.verdict != FINE]
    return "; ".join(f"{it.name}: {it.text}" for it in bad)


def _refused(name: str, text: str) -> Check:
    return Check(stage="policy", name=name, verdict="refuse", text=text)
