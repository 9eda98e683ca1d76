"""Renewal: how status updates keep standing what stands."""

from msgspec.structs import replace

from consumers.mitigation.measure import measure_of
from consumers.policy import guardrails
from consumers.mitigator.closing import end
from consumers.policy.facts import ATTACK, Facts
from consumers.policy.guardrails import FINE, REFUSE
from consumers.mitigator.lease import RENEW_AFTER, changed, reason_of, term, with_reason
from consumers.policy.model import Rule, customer_of
from consumers.mitigator.state import PROPOSED, SUPPRESSED, WANTED, Place, place_of
from consumers.mitigator.turn import Turn
from fnm_bus.event import Mitigation, Reason


def renew(turn: Turn, facts: Facts, place: Place) -> bool:
    """Let a status renew what stands at a place of its target.

    Returns:
        Whether the attack of the status stands there; if not, it counts like its ban.
    """
    found = False
    for key in turn.state.holding(place):
        it = turn.state.mitigations[key]
        before = next(one for one in it.reasons if place_of(one) == place)
        if place[2] == ATTACK and another(before, facts):
            continue
        found = found or place[2] == ATTACK
        checks = guardrails.allowed(measure_of(it), turn.terms.policy.limits)
        if guardrails.verdict(checks) == REFUSE and it.state != SUPPRESSED:
            end(turn, it, "its guardrails refuse it now")
        else:
            _renew(turn, facts, it, before)
    return found


def _renew(turn: Turn, facts: Facts, it: Mitigation, before: Reason) -> None:
    rule = _rule(turn, before.rule)
    lease = before.lease_ms / 1000
    attack = before.part == ATTACK
    if rule is not None:
        of_part = facts._replace(part=before.part)
        lease = term(rule.action.lease, of_part, turn.terms.ban_time, renewing=True)
    waited = (turn.now - before.renewed_at).total_seconds()
    free = it.state == PROPOSED and _affordable(turn, it, rule)
    if waited < lease * RENEW_AFTER and before.renewals and not free:
        return  # the lease is long enough; each record costs every reader
    reason = replace(
        reason_of(facts, before.rule, lease, turn.now, before.renewals + 1),
        part=before.part,
        action=facts.action if attack else before.action,
        sequence=facts.sequence if attack else before.sequence,
    )
    cause = f"attack_status by {facts.sensor}"
    state = WANTED if free else None
    kept = with_reason(it, reason)
    turn.write(changed(it, turn.now, cause=cause, state=state, reasons=kept))
    if free:
        turn.tell("wanted", "the caps allow it now", key=it.key, facts=facts)


def _affordable(turn: Turn, it: Mitigation, rule: Rule | None) -> bool:
    """Return whether what a cap held may start now; approval is not given here."""
    if rule is None or rule.action.approval:
        return False
    policy, measure = turn.terms.policy, measure_of(it)
    mine = guardrails.meant(measure, policy.limits.own)
    customer = None if mine is None else customer_of((mine,), policy.customers)
    tally = turn.state.tally(turn.now)
    asked = guardrails.affordable(measure, tally, policy.limits, customer)
    return guardrails.verdict(asked) == FINE


def another(before: Reason, facts: Facts) -> bool:
    """Return whether a reason tells of another attack than *facts*."""
    known = before.attack_uuid, facts.attack_uuid
    return None not in known and known[0] != known[1]


def _rule(turn: Turn, name: str) -> Rule | None:
    return next((it for it in turn.terms.policy.rules if it.name == name), None)
