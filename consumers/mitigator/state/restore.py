"""Restore: the state from the latest records of the reason and mitigation topics.

Pure. A lease begins at the broker's time of its record. So the result depends neither
on the clocks of the mitigators that wrote the records, nor on the present one's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from consumers.mitigation.measure import NOTIFY
from consumers.mitigation.reason_key import key_of_reason
from consumers.mitigation.states import ENDED, PAUSE
from consumers.mitigator.context import DecisionContext, Moment
from consumers.mitigator.state.entries import MitigationEntry, ReasonEntry
from consumers.mitigator.state.state import State
from consumers.mitigator.state.wants import key_of_want
from consumers.policy.model import MAX_LEASE
from fnm_bus.event import EPOCH, Mitigation, Reason
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_MAX_LEASE_MS: Final = round(MAX_LEASE * 1000)
_MAX_REVISION: Final = 2**53


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """The latest record of a key."""

    record: Reason | Mitigation
    at: datetime


def restore_state(
    context: DecisionContext,
    reasons: Iterable[StoredRecord],
    mitigations: Iterable[StoredRecord],
    moment: Moment,
) -> State:
    """Return the state that the latest records of both topics describe.

    An unusable record is logged and left out.
    """
    limits = context.policy.limits
    state = State(limits.own_networks, dry_run=context.dry_run)
    for stored in mitigations:
        _restore(context, state, stored, moment)
    state.sort_waiting()
    for stored in sorted(reasons, key=lambda stored: stored.at):
        _restore(context, state, stored, moment)
    return state


def _restore(
    context: DecisionContext, state: State, stored: StoredRecord, moment: Moment
) -> None:
    record = stored.record
    begun = moment.clock - max((moment.now - stored.at).total_seconds(), 0.0)
    try:
        if isinstance(record, Mitigation):
            _restore_mitigation(context, state, record, begun)
        else:
            _restore_reason(context, state, record, begun, moment.clock)
    except Exception:
        log.exception("record_left_out", record=repr(record)[:200])


def _restore_reason(
    context: DecisionContext, state: State, reason: Reason, begun: float, clock: float
) -> None:
    # A record with a longer lease than any policy allows must not stop the mitigator.
    reason = replace(reason, lease_ms=min(reason.lease_ms, _MAX_LEASE_MS))
    ends = begun + reason.lease_ms / 1000
    active = not reason.closed and ends > clock
    retention = context.closed_retention if reason.closed else context.ended_retention
    due = ends if active else max(ends, begun) + retention
    keys = tuple(key_of_want(want) for want in reason.wants)
    fallback = active and any(
        key in state.waiting
        for key, want in zip(keys, reason.wants, strict=True)
        if not want.fallback
    )
    entry = ReasonEntry(reason, keys, ends, due, active, fallback)
    state.put_reason(key_of_reason(reason), entry)


def _restore_mitigation(
    context: DecisionContext, state: State, record: Mitigation, begun: float
) -> None:
    record = replace(
        record,
        # A suppression lasts one lease longer than its reasons.
        lease_ms=min(record.lease_ms, 2 * _MAX_LEASE_MS),
        revision=min(record.revision, _MAX_REVISION),
    )
    ends = begun + record.lease_ms / 1000
    due = begun + context.ended_retention if record.state == ENDED else ends
    state.put_mitigation(record.key, MitigationEntry(record, ends, due))
    if record.started_at != EPOCH and record.kind not in {NOTIFY, PAUSE}:
        state.counts[record.started_dry_run].start(record.started_at)
