"""Judge: what an event changes in the wanted state.

    order ▶ closes?  its reasons hold no more
          ▶ opens?   a status renews what stands; else policy ▶ plan ▶ guardrails

An unban is never asked whether it may. A fresh status of an attack for which nothing
stands counts like its ban, so an outage delays a mitigation and does not cost it.
"""

from consumers.measure import measure_of
from consumers.mitigator import guardrails
from consumers.mitigator.closing import close, end
from consumers.mitigator.facts import CLOSES, OPENS, Facts
from consumers.mitigator.guardrails import REFUSE
from consumers.mitigator.opening import open_
from consumers.mitigator.renewal import renew
from consumers.mitigator.state import SUPPRESSED
from consumers.mitigator.turn import Turn


def judge(turn: Turn, facts: Facts) -> None:
    """Let one event change the state."""
    if facts.action not in OPENS | CLOSES:
        return  # attack_details and words that FastNetMon may add: nothing to do
    last = turn.state.sequence(facts.place)
    if facts.sequence <= last:
        turn.ignore(facts, f"its sequence is {facts.sequence}, {last} came")
        return
    if facts.action in CLOSES:
        close(turn, facts)
        return
    late = guardrails.timely(facts, turn.wall, turn.terms.policy.limits)
    if guardrails.verdict(late) == REFUSE:
        turn.ignore(facts, late[0].text, late)
        return
    turn.state.saw(facts.place, facts.sequence)
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
