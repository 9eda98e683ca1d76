"""Decide: the changes by one event.

    order ▶ unban?                 its reason is closed
          ▶ ban or status update?  a status update renews its attack's reason;
                                   else the policy decides

No check can refuse an unban. It only has to be about the open attack.
"""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Final

from consumers.mitigation.states import UNBAN
from consumers.mitigator.decisions.renew import may_be_same_attack, renew_reason
from consumers.mitigator.decisions.start import (
    make_room,
    previous_attack,
    remember_old_ban,
    start_mitigations,
)
from consumers.mitigator.state.call_order import (
    STATUS,
    is_overtaken,
    is_swapped,
    last_event_of,
)
from consumers.mitigator.state.entries import ReasonEntry
from consumers.mitigator.state.next_record import ChangeCause
from consumers.mitigator.state.recompute import recompute
from consumers.mitigator.state.transition import Transition
from consumers.policy import guardrails
from consumers.policy.facts import ATTACK, CLOSES, OPENS, AttackFacts, facts_of
from consumers.policy.flow_rules import refusal
from consumers.policy.guardrails import REFUSE
from fnm_bus import __version__
from fnm_bus.event import Check, Event, Reason
from fnm_bus.spool.sequence import sequence_at

_MAX_PARTS: Final = 256
"""Flow Spec rules of one document, and active ones of one target: a status update
renews each of them."""
_MAX_AHEAD: Final = timedelta(days=1)
"""How far a sequence may be in the future. Sequences keep a sensor's clock at its boot:
local time instead of UTC is up to 14 hours ahead."""
_check: Final = partial(refusal, stage="order")


def apply_event(
    transition: Transition, event: Event, *, behind: Callable[[], bool] = lambda: False
) -> None:
    """Apply one event.

    Args:
        transition: collects the changes.
        event: of the host, hostgroup or status topic.
        behind: returns whether earlier bans may still be unread; called only if the
            result matters.

    Raises:
        InvalidRecord: the event is one that the relay would never publish.
    """
    parts = facts_of(event)
    if len(parts) > _MAX_PARTS:  # an unban; more parts than that are never active
        reasons = transition.state.reasons
        parts = tuple(facts for facts in parts if facts.reason_key in reasons)
    for facts in parts:
        _apply(transition, facts, behind=behind)


def _apply(
    transition: Transition, facts: AttackFacts, *, behind: Callable[[], bool]
) -> None:
    if facts.action not in OPENS | CLOSES:
        if facts.action != "attack_details":
            text = f'unknown action "{facts.action}"'
            transition.audit_ignored(facts, _check("action", "unknown_action", text))
        return
    reason_key = facts.reason_key
    last, event = transition.state.last_event(reason_key), last_event_of(facts)
    if event.sequence > sequence_at(transition.moment.now + _MAX_AHEAD):
        text = (
            f"its sequence {event.sequence} is for a time more than {_MAX_AHEAD} ahead;"
            f" if all events of {facts.sensor} are, set its clock, stop its relay and"
            " remove state/epochs.json of its spool"
        )
        transition.audit_ignored(facts, _check("sequence", "sequence_ahead", text))
        return
    entry = transition.state.reasons.get(reason_key)
    # The ban of the attack before the previous one, delivered a second time.
    is_repeated = entry is not None and event.attack == entry.reason.previous_attack
    is_next = is_swapped(event, last) and not is_repeated
    is_late = event.sequence <= last.sequence
    if is_late and not (is_next or is_overtaken(event, last)):
        text = f"its sequence is {event.sequence}, {last.sequence} came before"
        transition.audit_ignored(facts, _check("sequence", "late", text))
    elif facts.action == STATUS:
        _apply_status(transition, facts, entry, behind)
    elif not event.closes:
        _apply_ban(transition, facts, entry)
    elif is_swapped(last, event) and entry is not None and entry.active:
        text = "it is about the attack before the open one"
        transition.audit_ignored(facts, _check("attack", "earlier_attack", text))
    else:
        _apply_unban(transition, facts, entry)


def _apply_unban(
    transition: Transition, facts: AttackFacts, entry: ReasonEntry | None
) -> None:
    """Close the unban's reason; remember the unban if it has none."""
    reason_key = facts.reason_key
    is_ignored = reason_key in transition.state.ignored
    if entry is None and (is_ignored or not make_room(transition)):
        transition.ignore_attack(reason_key, last_event_of(facts))
        return
    reason = entry.reason if entry else None
    attack = facts.attack or (reason.attack if reason else "")
    closed = Reason(
        sensor=facts.sensor,
        scope=facts.scope,
        target=facts.target,
        part=facts.part,
        sequence=max(facts.sequence, reason.sequence if reason else 0),
        attack=attack,
        previous_attack=previous_attack(reason, attack),
        closed=True,
        action=facts.action,
        event_id=facts.event_id,
        received_at=facts.received_at,
        rule=reason.rule if reason else "",
        policy_digest=transition.context.policy.digest,
        hostgroup=facts.hostgroup,
        producer_version=__version__,
    )
    transition.put_reason(reason_key, closed, active=False)
    if entry is None or not entry.active:
        return
    cause = ChangeCause(
        text=f"{facts.action} by {facts.sensor}",
        ended_because=UNBAN,
        closed_lease=entry.reason.lease_ms / 1000,
    )
    for key in entry.keys:
        recompute(transition, key, cause, facts=facts)


def _apply_ban(
    transition: Transition, facts: AttackFacts, entry: ReasonEntry | None
) -> None:
    """Start the mitigations of a ban or a partial block."""
    is_new_part = facts.part != ATTACK and (entry is None or not entry.active)
    if is_new_part and len(transition.state.parts(facts.reason_key)) >= _MAX_PARTS:
        text = f"{_MAX_PARTS} Flow Spec rules of {facts.target} are active already"
        check = _check("flow_spec_rules", "too_many_measures", text)
        transition.audit_refused(facts, check, (check,))
        return
    checks, refusal = _check_age(transition, facts)
    if refusal is None:
        start_mitigations(transition, facts, checks)
    else:
        transition.audit_ignored(facts, refusal, checks)
        remember_old_ban(transition, facts, entry)


def _apply_status(
    transition: Transition,
    facts: AttackFacts,
    entry: ReasonEntry | None,
    behind: Callable[[], bool],
) -> None:
    """Renew the reasons of a status update's attack, or start its mitigations."""
    reason_key = facts.reason_key
    is_closed = _is_closed(transition, facts, entry)
    for part in () if is_closed else transition.state.parts(reason_key):
        if may_be_same_attack(transition.state.reasons[part].reason, facts):
            renew_reason(transition, facts, part)
    is_same = entry is not None and may_be_same_attack(entry.reason, facts)
    if entry is not None and entry.active:
        if is_same:
            renew_reason(transition, facts, reason_key)
        else:
            text = f"attack {entry.reason.attack} of this target is open"
            transition.audit_ignored(facts, _check("attack", "other_attack", text))
        return
    checks, refusal = _check_age(transition, facts)
    if refusal is not None:
        transition.audit_ignored(facts, refusal, checks)
    elif is_closed:
        text = f"its attack {facts.attack} was closed by an unban"
        transition.audit_ignored(facts, _check("attack", "attack_closed", text))
    elif entry is not None and not entry.reason.closed and is_same:
        renew_reason(transition, facts, reason_key)
    elif behind():
        text = "its ban may still be unread; the next status update counts"
        transition.audit_ignored(facts, _check("attack", "ban_unread", text))
    else:
        start_mitigations(transition, facts, checks)


def _check_age(
    transition: Transition, facts: AttackFacts
) -> tuple[tuple[Check, ...], Check | None]:
    """Return the checks of an event's age, and the one that refuses it, if any."""
    limits = transition.context.policy.limits
    checks = guardrails.check_age(facts, transition.moment.now, limits)
    return checks, next((check for check in checks if check.verdict == REFUSE), None)


def _is_closed(
    transition: Transition, facts: AttackFacts, entry: ReasonEntry | None
) -> bool:
    """Return whether an unban ended the attack of a status update."""
    if entry is None:
        last = transition.state.ignored.get(facts.reason_key)
        return last is not None and last.closes and last.attack in {"", facts.attack}
    reason = entry.reason
    if facts.attack and facts.attack == reason.previous_attack:
        return True
    return reason.closed and may_be_same_attack(reason, facts)
