"""Judge: what an event changes in the wanted state.

    order ▶ closes?  its reasons hold no more
          ▶ opens?   a status renews what stands; else policy ▶ plan ▶ guardrails

An unban is never asked whether it may, only whether it is of what stands. A fresh
status of an attack for which nothing stands counts like its ban, so an outage delays a
mitigation and does not cost it.
"""

from consumers.mitigation.measure import measure_of
from consumers.policy import guardrails
from consumers.mitigator.closing import close, end
from consumers.policy.facts import CLOSES, OPENS, Facts
from consumers.policy.guardrails import REFUSE
from consumers.mitigator.opening import open_
from consumers.mitigator.pairs import seen_of, swapped
from consumers.mitigator.renewal import renew
from consumers.mitigator.state import SUPPRESSED, Seen, place_of
from consumers.mitigator.turn import Turn


def judge(turn: Turn, facts: Facts) -> None:
    """Let one event change the state."""
    if facts.action not in OPENS | CLOSES:
        return  # attack_details and words that FastNetMon may add: nothing to do
    last, this = turn.state.last(facts.place), seen_of(facts)
    if this.sequence <= last.sequence and not swapped(this, last):
        turn.ignore(facts, f"its sequence is {this.sequence}, {last.sequence} came")
        return
    if this.closes:
        if swapped(last, this) and _stands(turn, facts, last):
            turn.ignore(facts, "it is of the attack before the one that stands")
        else:
            close(turn, facts)
        return
    late = guardrails.timely(facts, turn.wall, turn.terms.policy.limits)
    if guardrails.verdict(late) == REFUSE:
        turn.ignore(facts, late[0].text, late)
        return
    turn.state.saw(facts.place, this)
    if facts.action == "attack_status":
        turn.state.renewing.add(facts.sensor)
        places = turn.state.places(facts.sensor, facts.target)
        renewed = [renew(turn, facts, place) for place in places]
        if any(renewed):
            return
    if turn.state.paused:
        turn.ignore(facts, "everything is paused")
        return
    open_(turn, facts, late)


def _stands(turn: Turn, facts: Facts, last: Seen) -> bool:
    """Return whether the latest event of a place is why something stands there."""
    return any(
        reason.holds and reason.sequence == last.sequence
        for key in turn.state.holding(facts.place)
        for reason in turn.state.mitigations[key].reasons
        if place_of(reason) == facts.place
    )


def review(turn: Turn) -> None:
    """End what today's guardrails or dry run do not allow; asked once at the start."""
    for it in turn.state.standing():
        if it.state == SUPPRESSED:
            continue
        checks = guardrails.allowed(measure_of(it), turn.terms.policy.limits)
        refused = [check for check in checks if check.verdict == REFUSE]
        if refused:
            end(turn, it, f"refused now: {refused[0].name}: {refused[0].text}")
        elif turn.terms.dry_run and not it.dry_run:
            end(turn, it, "it is a dry run now")
