"""Closing: how mitigations lose their reasons and end. Nothing here can refuse."""

from msgspec.structs import replace

from consumers.policy.facts import Facts
from consumers.mitigator.lease import changed, holds, reason_of, without
from consumers.mitigator.pairs import seen_of
from consumers.mitigator.state import ENDED, NONE, Place
from consumers.mitigator.turn import Turn
from fnm_bus.event import Mitigation


def close(turn: Turn, facts: Facts) -> None:
    """Take away the reason that an unban means, wherever it stands."""
    keys = turn.state.holding(facts.place)
    for key in keys:
        cause = f"{facts.action} by {facts.sensor}"
        let_go(turn, turn.state.mitigations[key], facts.place, cause, facts)
    if not keys:
        # Nothing stands. What comes late must still find out that this came first.
        place = "|".join(facts.place)
        note = Mitigation(
            key=f"{NONE}|{place}",
            kind=NONE,
            state=ENDED,
            started_at=turn.now,
            changed_at=turn.now,
            expires_at=turn.now,
            cause=f"{facts.action} by {facts.sensor}",
            reasons=(replace(reason_of(facts, "", 0, turn.now), holds=False),),
        )
        turn.write(note)
    turn.state.saw(facts.place, seen_of(facts))


def let_go(
    turn: Turn, mitigation: Mitigation, place: Place, cause: str, facts: Facts
) -> None:
    """Take one reason away; without any the mitigation ends."""
    reasons = without(mitigation, place, facts.sequence)
    over = not holds(reasons)
    state = ENDED if over else None
    text = cause if over else f"{cause}; another reason holds"
    turn.write(changed(mitigation, turn.now, cause=text, state=state, reasons=reasons))
    turn.tell("ended" if over else "renewed", text, key=mitigation.key, facts=facts)


def end(
    turn: Turn, mitigation: Mitigation, cause: str, *, by: str = "mitigator"
) -> None:
    """End a mitigation with all its reasons."""
    reasons = tuple(replace(it, holds=False) for it in mitigation.reasons)
    turn.write(changed(mitigation, turn.now, cause=cause, state=ENDED, reasons=reasons))
    turn.tell("ended", cause, key=mitigation.key, by=by)
