"""Expire: ended leases, proposals that may start, and records to forget.

Each reason and mitigation is a transition of its own, so that one failure does not stop
the others.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from consumers.mitigation.reason_key import ReasonKey
from consumers.mitigation.states import ENDED, LEASE, PAUSE
from consumers.mitigator.decisions.start import cause_of
from consumers.mitigator.state.next_record import ChangeCause
from consumers.mitigator.state.recompute import recompute
from consumers.mitigator.state.state import State
from consumers.mitigator.state.transition import Transition
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

MAX_ENDED: Final = 10_000
_BATCH: Final = 200
"""Reasons and mitigations, each, in one call; the next call continues."""
_SECONDS_PER_MINUTE: Final = 60
_SHARED_LIMITS: Final = frozenset({"max_active", "max_new_per_minute"})
"""Limits of all live mitigations together, and of all dry runs."""
EXPIRED: Final = ChangeCause(text="its lease expired", ended_because=LEASE)

TransitionFactory = Callable[[], Transition]
"""Returns a new transition of the state."""


def run_isolated(
    new_transition: TransitionFactory, step: Callable[..., object], *arguments: object
) -> Transition | None:
    """Return a transition with one step; None if the step failed and was undone."""
    transition = new_transition()
    try:
        step(transition, *arguments)
    except Exception:
        log.exception("step_undone", step=step.__name__, key=arguments[:1])
        transition.rollback()
        return None
    return transition


def expire_leases(
    state: State, new_transition: TransitionFactory
) -> Iterator[Transition]:
    """End expired reasons and mitigations, and forget those that ended long ago.

    Yields:
        A transition for each change, up to a few hundred. Call it again as long as it
        yields.
    """
    clock = new_transition().moment.clock
    for reason_key in state.due_reasons(clock, _BATCH):
        transition = run_isolated(new_transition, _expire_reason, reason_key)
        if transition is not None:
            yield transition
        else:  # make it due again
            state.put_reason(reason_key, state.reasons[reason_key])
    for key in state.due_mitigations(clock, _BATCH):
        transition = run_isolated(new_transition, _expire_mitigation, key)
        if transition is not None:
            yield transition
        else:
            state.put_mitigation(key, state.mitigations[key])
    excess = len(state.ended) - MAX_ENDED
    for key in list(state.ended)[: max(min(excess, _BATCH), 0)]:
        transition = new_transition()
        transition.forget_mitigation(key)
        yield transition


def start_proposals(
    state: State, new_transition: TransitionFactory
) -> Iterator[Transition]:
    """Start proposals that limits allow now, the oldest first.

    Call it once a second: it starts at most a sixtieth of `max_new_per_minute`.
    """
    limits = new_transition().context.policy.limits
    left = max(limits.max_new_per_minute // _SECONDS_PER_MINUTE, 1)
    checked = 0
    full: set[bool] = set()
    for key in list(state.waiting):
        if not left or checked >= _BATCH or len(full) == len(state.counts):
            return
        if key not in state.waiting:  # an earlier start made it superfluous
            continue
        if key not in state.demands:  # its reasons were lost: it can only expire
            state.waiting.move_to_end(key)
            continue
        record = state.mitigations[key].record
        if record.dry_run in full and not _SHARED_LIMITS.isdisjoint(record.held_by):
            continue
        checked += 1
        transition = run_isolated(new_transition, _start_proposal, key)
        if transition is None:
            state.waiting.move_to_end(key)
            continue
        yield transition
        entry = state.mitigations.get(key)
        if key not in state.waiting or entry is None:
            left -= 1
        elif _SHARED_LIMITS.isdisjoint(entry.record.held_by):
            state.waiting.move_to_end(key)  # this limit may not hold the others
        else:
            full.add(entry.record.dry_run)


def _expire_reason(transition: Transition, reason_key: ReasonKey) -> None:
    entry = transition.state.reasons[reason_key]
    if not entry.active:
        transition.forget_reason(reason_key)
        return
    transition.put_reason(reason_key, entry.reason, active=False, write=False)
    # The reason ended with its lease, however late that is noticed.
    delay = transition.moment.clock - entry.ends
    cause = replace(EXPIRED, closed_lease=entry.reason.lease_ms / 1000 - delay)
    for key in entry.keys:
        recompute(transition, key, cause)


def _expire_mitigation(transition: Transition, key: str) -> None:
    record = transition.state.mitigations[key].record
    if record.kind == PAUSE:
        return
    if record.state == ENDED:
        transition.forget_mitigation(key)
    else:
        recompute(transition, key, EXPIRED)


def _start_proposal(transition: Transition, key: str) -> None:
    """Start one proposal if limits allow it."""
    demand = transition.state.demands[key]
    reason = transition.state.reasons[next(iter(demand))].reason
    recompute(transition, key, cause_of(reason))
