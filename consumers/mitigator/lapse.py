"""Lapse: leases that run out, and ends that need not be remembered any longer."""

from datetime import timedelta

from msgspec.structs import replace

from consumers.mitigator.lease import changed, ends_at, holds
from consumers.mitigator.state import ENDED, PAUSE, WANTED
from consumers.mitigator.turn import Turn


def lapse(turn: Turn) -> None:
    """End what nobody renewed, and forget what ended long ago."""
    forgotten = turn.now - timedelta(seconds=turn.terms.memory)
    for it in tuple(turn.state.mitigations.values()):
        if it.kind == PAUSE and it.state == WANTED:
            continue
        if it.state == ENDED:
            if it.changed_at <= forgotten:
                turn.forget(it.key)
            continue
        if it.expires_at > turn.now:
            continue
        reasons = tuple(
            replace(one, holds=one.holds and ends_at(one) > turn.now)
            for one in it.reasons
        )
        if holds(reasons):  # of another length than the one that ran out
            cause, state = "one of its reasons was not renewed", it.state
        else:
            cause, state = "its lease ran out: nobody renewed it", ENDED
        turn.write(changed(it, turn.now, cause=cause, state=state, reasons=reasons))
        turn.tell("ended" if state == ENDED else "renewed", cause, key=it.key)
