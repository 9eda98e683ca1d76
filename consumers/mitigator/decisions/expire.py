"""Expire: leases that are over, proposals that may start, and what is forgotten.

Each reason and mitigation is a transition of its own, so that one whose processing
fails does not stop the others.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from consumers.mitigation.reason_key import ReasonKey
from consumers.mitigation.states import ENDED, LEASE, PAUSE
from consumers.mitigator.decisions.start import cause_of
from consumers.mitigator.state.next_record import ChangeCause
from consumers.mitigator.state.state import State
from consumers.mitigator.state.transition import Transition

log = logging.getLogger(__name__)

MAX_ENDED: Final = 10_000
_AT_ONCE: Final = 200
"""Reasons and mitigations, each, in one call; the next call continues."""
_SECONDS_PER_MINUTE: Final = 60
_FOR_ALL: Final = frozenset({"max_active", "max_new_per_minute"})
"""Limits of all live mitigations together, and of all dry runs."""
EXPIRED: Final = ChangeCause(text="its lease expired", ended_because=LEASE)

Begin = Callable[[], Transition]
"""Returns a new transition of the state."""


def isolate(
    begin: Begin, step: Callable[..., None], *about: object
) -> Transition | None:
    """Return a transition with one step; None where the step failed, undone."""
    change = begin()
    try:
        step(change, *about)
    except Exception:
        log.exception("%s of %s", step.__name__, about[:1])
        change.rollback()
        return None
    return change


def expire(state: State, begin: Begin) -> Iterator[Transition]:
    """End what nobody renewed, and forget what ended long ago.

    Yields:
        A transition for each change, up to a few hundred. Call it again as long as it
        yields.
    """
    clock = begin().moment.clock
    for key in state.due_reasons(clock, _AT_ONCE):
        change = isolate(begin, _expire_reason, key)
        if change is not None:
            yield change
        else:
            state.put_reason(key, state.reasons[key])  # it is due again
    for name in state.due_mitigations(clock, _AT_ONCE):
        change = isolate(begin, _expire_mitigation, name)
        if change is not None:
            yield change
        else:
            state.put_mitigation(name, state.mitigations[name])
    excess = len(state.ended) - MAX_ENDED
    for name in list(state.ended)[: max(min(excess, _AT_ONCE), 0)]:
        change = begin()
        change.forget_mitigation(name)
        yield change


def start_waiting(state: State, begin: Begin) -> Iterator[Transition]:
    """Start proposals that limits held, the oldest first, as far as limits allow.

    Call it once a second: it starts at most a sixtieth of `max_new_per_minute`.
    """
    limits = begin().context.policy.limits
    left = max(limits.max_new_per_minute // _SECONDS_PER_MINUTE, 1)
    checked = 0
    full: set[bool] = set()
    for name in list(state.waiting):
        if not left or checked >= _AT_ONCE or len(full) == len(state.counts):
            return
        if name not in state.waiting:  # a start before it made it needless
            continue
        if name not in state.demands:  # its reasons were lost: it only expires
            state.waiting.move_to_end(name)
            continue
        record = state.mitigations[name].record
        if record.dry_run in full and not _FOR_ALL.isdisjoint(record.held_by):
            continue
        checked += 1
        change = isolate(begin, _start, name)
        if change is None:
            state.waiting.move_to_end(name)
            continue
        yield change
        entry = state.mitigations.get(name)
        if name not in state.waiting or entry is None:
            left -= 1
        elif _FOR_ALL.isdisjoint(entry.record.held_by):
            state.waiting.move_to_end(name)  # others may start where this one cannot
        else:
            full.add(entry.record.dry_run)


def _expire_reason(change: Transition, key: ReasonKey) -> None:
    entry = change.state.reasons[key]
    if not entry.holds:
        change.forget_reason(key)
        return
    change.put_reason(key, entry.reason, holds=False, write=False)
    # It ended at the end of its lease, however late that is noticed.
    late = change.moment.clock - entry.ends
    cause = replace(EXPIRED, closed_lease=entry.reason.lease_ms / 1000 - late)
    for name in entry.keys:
        change.recompute(name, cause)


def _expire_mitigation(change: Transition, name: str) -> None:
    record = change.state.mitigations[name].record
    if record.kind == PAUSE:
        return
    if record.state == ENDED:
        change.forget_mitigation(name)
    else:
        change.recompute(name, EXPIRED)


def _start(change: Transition, name: str) -> None:
    """Start one proposal if limits allow it."""
    demand = change.state.demands[name]
    reason = change.state.reasons[next(iter(demand))].reason
    change.recompute(name, cause_of(reason))
