"""Drain the spool for as long as one call may take; for where no relay runs.

The document that a call brought is on disk before any of this begins. What Kafka does
not take within the deadline waits for the next call, or for a relay.
"""

from enum import Enum
from time import monotonic
from typing import Final

from fnm_bus.relay.drain import Drain
from fnm_bus.relay.hang_guard import HangGuard
from fnm_bus.spool.drain_backoff import Backoff
from fnm_bus.spool.spool import Spool

_PROMPT: Final = 0.05
"""Seconds to wait for Kafka's answers between two looks at the clock."""
_OVERTIME: Final = 15.0
"""Seconds that reading a suspect entry may take beyond the deadline: else a call could
never find out which one kills."""


class DrainOutcome(Enum):
    """How a short drain ended."""

    CLEAN = "nothing is left in the spool"
    ELSEWHERE = "somebody else is draining"
    PAUSED = "not tried: an earlier drain failed a moment ago"
    LEFT = "Kafka did not take everything within the deadline"
    REFUSED = "the disk refuses entries of the spool: the reasons are above"


def drain_within(
    deadline: float, spool: Spool, backoff: Backoff, drain: Drain
) -> DrainOutcome:
    """Drain *spool* for up to *deadline* seconds, if nobody else does.

    A document that is stored after the last look and before the lock is free again
    finds the lock held, so its own call leaves it alone. Therefore the spool is looked
    at once more when the lock is free.
    """
    guard = HangGuard()
    try:
        return _rounds(monotonic() + deadline, spool, backoff, drain, guard)
    finally:
        guard.close()


def _rounds(
    end: float, spool: Spool, backoff: Backoff, drain: Drain, guard: HangGuard
) -> DrainOutcome:
    while True:
        if backoff.seconds_left():
            return DrainOutcome.PAUSED
        lock = spool.lock()
        if lock is None:
            return DrainOutcome.ELSEWHERE
        with lock:
            done = _drain(drain, end, guard)
            with drain.disk.caught("noting how the drain ended"):
                # What the disk refuses delays nothing else: the next call drains.
                if done and not drain.blind:
                    backoff.clear()
                else:
                    backoff.record_failure()
        refused = drain.disk_refused or drain.unlisted
        if not done:
            return (
                DrainOutcome.REFUSED
                if refused and not drain.untaken
                else DrainOutcome.LEFT
            )
        if drain.blind or not drain.look():
            return (
                DrainOutcome.REFUSED
                if refused or drain.unlisted
                else DrainOutcome.CLEAN
            )


def _drain(drain: Drain, end: float, guard: HangGuard) -> bool:
    """Return whether everything that can be published is, before *end*."""
    drain.look()
    while (left := end - monotonic()) > 0 or (drain.on_trial and left > -_OVERTIME):
        guard.alive()
        if drain.stuck and drain.on_trial:
            drain.retry()
        elif drain.stuck and drain.untaken:
            return False
        elif drain.stuck and not drain.look():
            return True
        drain.step(min(_PROMPT, max(left, 0.0)))
    return False
