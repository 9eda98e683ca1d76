"""Expire: leases that are over, proposals that may start, and what is forgotten."""

from typing import Final

from consumers.mitigation.reason_key import ReasonKey
from consumers.mitigation.states import ENDED, LEASE, PAUSE, WANTED
from consumers.mitigator.next_record import Cause
from consumers.mitigator.start import cause_of
from consumers.mitigator.transition import Transition

_MOST: Final = 200
"""Reasons or mitigations in one transaction; the next one follows at once."""
MAX_ENDED: Final = 10_000
_SECONDS_PER_MINUTE: Final = 60
_EXPIRED: Final = Cause(text="its lease expired", ended_because=LEASE)


def expire(change: Transition) -> bool:
    """End what nobody renewed, and forget what ended long ago.

    Returns:
        Whether more is due already.
    """
    state, clock = change.state, change.moment.clock
    reasons = state.due_reasons(clock, _MOST)
    for key in reasons:
        _expire_reason(change, key)
    mitigations = state.due_mitigations(clock, _MOST)
    for name in mitigations:
        record = state.mitigations[name].record
        if record.state == ENDED and record.kind != PAUSE:
            change.forget_mitigation(name)
        elif record.kind != PAUSE:
            change.recompute(name, _EXPIRED)
    excess = len(state.ended) - MAX_ENDED
    for name in list(state.ended)[: min(max(excess, 0), _MOST)]:
        change.forget_mitigation(name)
    return _MOST in {len(reasons), len(mitigations)} or excess > _MOST


def start_waiting(change: Transition) -> None:
    """Start proposals that limits held, the oldest first, as far as limits allow.

    Call it once a second: it starts at most a sixtieth of `max_new_per_minute`.
    """
    limits = change.context.policy.limits
    most = max(limits.max_new_per_minute // _SECONDS_PER_MINUTE, 1)
    for name in list(change.state.waiting)[:_MOST]:
        if most <= 0:
            return
        demand = change.state.demands.get(name)
        if demand is None:
            continue
        first = next(iter(demand))
        entry = change.state.reasons[first]
        want = entry.reason.wants[entry.keys.index(name)]
        if change.recompute(name, cause_of(change.context, entry.reason, want)) != (
            WANTED
        ):
            change.state.waiting.move_to_end(name)
            continue
        most -= 1
        for key in list(demand):
            for other in change.set_fallback(key):
                change.recompute(other, _RELIEVED)


_RELIEVED: Final = Cause(
    text="the limit is free: each host has its own measure again",
    ended_because="superseded",
)


def _expire_reason(change: Transition, key: ReasonKey) -> None:
    entry = change.state.reasons[key]
    if not entry.holds:
        change.forget_reason(key)
        return
    change.put_reason(key, entry.reason, holds=False, write=False)
    for name in entry.keys:
        change.recompute(name, _EXPIRED)
