"""Decide: what an event changes.

    order ▶ closes?  its reason is closed
          ▶ opens?   a status update renews its attack's reason; else the policy decides

An unban is never checked for whether it may end something, only for whether it is
about the attack that is open.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from consumers.mitigation.states import UNBAN
from consumers.mitigator.decisions.renew import renew, same_attack
from consumers.mitigator.decisions.start import (
    make_room,
    previous_attack,
    start,
    start_expired,
)
from consumers.mitigator.state.call_order import STATUS, event_of, overtaken, swapped
from consumers.mitigator.state.next_record import ChangeCause
from consumers.mitigator.state.state import ReasonEntry
from consumers.mitigator.state.transition import Transition
from consumers.policy import guardrails
from consumers.policy.facts import ATTACK, CLOSES, OPENS, AttackFacts, facts_of
from consumers.policy.guardrails import REFUSE
from fnm_bus import __version__
from fnm_bus.event import Check, Event, Reason
from fnm_bus.spool.sequence import sequence_at

_MAX_PARTS: Final = 256
"""Flow Spec rules of one document, and of one target at once: a status update renews
each of them."""
_MAX_AHEAD: Final = timedelta(days=1)
"""How far the time in a sequence may be ahead. Sequences keep the clock that a sensor
had at its boot: with local time instead of UTC that is up to 14 hours ahead."""


def apply_event(
    change: Transition, event: Event, *, behind: Callable[[], bool] = lambda: False
) -> None:
    """Let one event change the state.

    Args:
        change: collects what changes.
        event: of the host, hostgroup or status topic.
        behind: returns whether bans may be unread that were sent before this event;
            called only where the answer decides.

    Raises:
        InvalidRecord: the event is one that the relay would never publish.
    """
    parts = facts_of(event)
    if len(parts) > _MAX_PARTS:  # it closes; more than that never open
        known = change.state.reasons
        parts = tuple(facts for facts in parts if facts.reason_key in known)
    for facts in parts:
        _apply(change, facts, behind=behind)


def _apply(
    change: Transition, facts: AttackFacts, *, behind: Callable[[], bool]
) -> None:
    if facts.action not in OPENS | CLOSES:
        if facts.action != "attack_details":
            text = f'the action "{facts.action}" is not known'
            change.ignore(facts, _check("action", "unknown_action", text))
        return
    key = facts.reason_key
    last, this = change.state.last_event(key), event_of(facts)
    if this.sequence > sequence_at(change.moment.now + _MAX_AHEAD):
        text = (
            f"its sequence {this.sequence} is for a time more than {_MAX_AHEAD} ahead;"
            f" if all events of {facts.sensor} are, set its clock, stop its relay and"
            " remove state/epochs.json of its spool"
        )
        change.ignore(facts, _check("sequence", "sequence_ahead", text))
        return
    entry = change.state.reasons.get(key)
    # The ban of the attack before the last was read, and is delivered once more.
    again = entry is not None and this.attack == entry.reason.previous_attack
    is_next = swapped(this, last) and not again
    if this.sequence <= last.sequence and not (is_next or overtaken(this, last)):
        text = f"its sequence is {this.sequence}, {last.sequence} came before"
        change.ignore(facts, _check("sequence", "late", text))
        return
    if facts.action == STATUS:
        _update(change, facts, entry, behind)
    elif not this.closes:
        _open(change, facts, entry)
    elif swapped(last, this) and entry is not None and entry.holds:
        text = "it is about the attack before the one that is open"
        change.ignore(facts, _check("attack", "earlier_attack", text))
    else:
        close(change, facts, entry)


def close(change: Transition, facts: AttackFacts, entry: ReasonEntry | None) -> None:
    """Close the reason that an unban is about; remember it where there is none."""
    key = facts.reason_key
    ignored = key in change.state.ignored
    if entry is None and (ignored or not make_room(change)):
        change.ignore_attack(key, event_of(facts))
        return
    before = entry.reason if entry else None
    attack = facts.attack or (before.attack if before else "")
    closed = Reason(
        sensor=facts.sensor,
        scope=facts.scope,
        target=facts.target,
        part=facts.part,
        sequence=max(facts.sequence, before.sequence if before else 0),
        attack=attack,
        previous_attack=previous_attack(before, attack),
        closed=True,
        action=facts.action,
        event_id=facts.event_id,
        received_at=facts.received_at,
        rule=before.rule if before else "",
        policy_digest=change.context.policy.digest,
        hostgroup=facts.hostgroup,
        producer_version=__version__,
    )
    change.put_reason(key, closed, holds=False)
    if entry is None or not entry.holds:
        return
    cause = ChangeCause(
        text=f"{facts.action} by {facts.sensor}",
        ended_because=UNBAN,
        closed_lease=entry.reason.lease_ms / 1000,
    )
    for name in entry.keys:
        change.recompute(name, cause, facts=facts)


def _open(change: Transition, facts: AttackFacts, entry: ReasonEntry | None) -> None:
    """Let a ban or a partial block count."""
    is_new_part = facts.part != ATTACK and (entry is None or not entry.holds)
    if is_new_part and len(change.state.parts(facts.reason_key)) >= _MAX_PARTS:
        text = f"{_MAX_PARTS} Flow Spec rules of {facts.target} hold already"
        check = _check("flow_spec_rules", "too_many_measures", text)
        change.refuse(facts, check, (check,))
        return
    age, refused = _check_age(change, facts)
    if refused is None:
        start(change, facts, age)
    else:
        change.ignore(facts, refused, age)
        start_expired(change, facts, entry)


def _update(
    change: Transition,
    facts: AttackFacts,
    entry: ReasonEntry | None,
    behind: Callable[[], bool],
) -> None:
    """Let a status update count."""
    key = facts.reason_key
    is_over = _is_over(change, facts, entry)
    for part in () if is_over else change.state.parts(key):
        if same_attack(change.state.reasons[part].reason, facts):
            renew(change, facts, part)
    is_same = entry is not None and same_attack(entry.reason, facts)
    if entry is not None and entry.holds:
        if is_same:
            renew(change, facts, key)
        else:
            text = f"attack {entry.reason.attack} of this target is open"
            change.ignore(facts, _check("attack", "other_attack", text))
        return
    age, refused = _check_age(change, facts)
    if refused is not None:
        change.ignore(facts, refused, age)
    elif is_over:
        text = f"its attack {facts.attack} was closed by an unban"
        change.ignore(facts, _check("attack", "attack_closed", text))
    elif entry is not None and not entry.reason.closed and is_same:
        renew(change, facts, key)
    elif behind():
        text = "its ban may be unread yet; the next status update counts"
        change.ignore(facts, _check("attack", "ban_unread", text))
    else:
        start(change, facts, age)


def _check_age(
    change: Transition, facts: AttackFacts
) -> tuple[tuple[Check, ...], Check | None]:
    """Return the checks of an event's age, and the one that refuses it, if any."""
    limits = change.context.policy.limits
    checks = guardrails.check_age(facts, change.moment.now, limits)
    return checks, next((check for check in checks if check.verdict == REFUSE), None)


def _is_over(change: Transition, facts: AttackFacts, entry: ReasonEntry | None) -> bool:
    """Return whether an unban ended the attack of a status update."""
    if entry is None:
        last = change.state.ignored.get(facts.reason_key)
        return last is not None and last.closes and last.attack in {"", facts.attack}
    reason = entry.reason
    if facts.attack and facts.attack == reason.previous_attack:
        return True
    return reason.closed and (
        not facts.attack or not reason.attack or facts.attack == reason.attack
    )


def _check(name: str, code: str, text: str) -> Check:
    return Check(stage="order", name=name, code=code, verdict=REFUSE, text=text)
