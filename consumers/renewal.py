"""Renewal: how status updates keep standing what stands."""

from msgspec.structs import replace

from consumers import guardrails
from consumers.closing import end
from consumers.facts import ATTACK, Facts
from consumers.guardrails import REFUSE
from consumers.lease import RENEW_AFTER, changed, reason_of, term, with_reason
from consumers.measure import measure_of
from consumers.policy import Rule
from consumers.state import SUPPRESSED, Place, place_of
from consumers.turn import Turn
from fnm_bus.event import Reason


def renew(turn: Turn, facts: Facts, place: Place) -> None:
    """Let a status renew the mitigations that stand for its target."""
    limits = turn.terms.policy.limits
    for key in turn.state.holding(place):
        it = turn.state.mitigations[key]
        before = next(one for one in it.reasons if place_of(one) == place)
        checks = guardrails.allowed(measure_of(it), limits)
        if guardrails.verdict(checks) == REFUSE and it.state != SUPPRESSED:
            end(turn, it, "its guardrails refuse it now")
            continue
        if place[2] == ATTACK and another(before, facts):
            continue
        lease = before.lease_ms / 1000
        rule = _rule(turn, before.rule)
        if rule is not None:
            of_part = facts._replace(part=place[2])
            lease = term(rule.action.lease, of_part, turn.terms.ban_time, renewing=True)
        waited = (turn.now - before.renewed_at).total_seconds()
        if waited < lease * RENEW_AFTER and before.renewals:
            continue  # the lease is long enough; each record costs every reader
        reason = replace(
            reason_of(facts, before.rule, lease, turn.now, before.renewals + 1),
            part=place[2],
            action=before.action if place[2] != ATTACK else facts.action,
            sequence=facts.sequence if place[2] == ATTACK else before.sequence,
        )
        cause = f"attack_status by {facts.sensor}"
        turn.write(changed(it, turn.now, cause=cause, reasons=with_reason(it, reason)))


def another(before: Reason, facts: Facts) -> bool:
    """Return whether a reason tells of another attack than *facts*."""
    known = before.attack_uuid, facts.attack_uuid
    return None not in known and known[0] != known[1]


def _rule(turn: Turn, name: str) -> Rule | None:
    return next((it for it in turn.terms.policy.rules if it.name == name), None)
