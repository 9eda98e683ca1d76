"""Record content: counts and examples of a mitigation's record, and what changed in it.

Pure. Every text is cut, so that a record stays within its bound.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from consumers.mitigation.effects import describe
from consumers.mitigation.reason_key import ReasonKey
from consumers.mitigation.states import ENDED, OPERATOR, SUPPRESSED, WANTED
from consumers.mitigator.state.demand import Demand, Terms
from consumers.mitigator.state.next_record import NextRecord
from consumers.mitigator.state.state import ReasonEntry
from fnm_bus.event import Check, Mitigation, Reason, ReasonSummary

MAX_RECORD_BYTES: Final = 8_000
_MAX_TEXT: Final = 300
"""Characters of a sentence in a mitigation."""
_MAX_NAME: Final = 100
"""Characters of a name in a mitigation."""
_EXAMPLES: Final = 5

Reasons = Mapping[ReasonKey, ReasonEntry]


def with_reasons(
    record: Mitigation, demand: Demand, after: NextRecord, reasons: Reasons
) -> Mitigation:
    """Return the record with counts, examples and conflicts."""
    live = pending = dry = 0
    conflicts = []
    for terms in demand.terms():
        count = demand.count(terms)
        if terms.dry_run:
            dry += count
        elif terms in after.pending:
            pending += count
        else:
            live += count
        if terms in after.chosen and terms.effect.then != record.then:
            conflicts.append(f"{describe(terms.effect.then)} ({count})")
    terms_shown = dict.fromkeys((*after.chosen, *after.pending))
    shown = demand.first(terms_shown, _EXAMPLES)
    return replace(
        record,
        live_reasons=live,
        pending_reasons=pending,
        dry_reasons=dry,
        reasons=tuple(_example(reasons[k].reason, demand.terms_of(k)) for k in shown),
        conflicts=tuple(conflicts[:_EXAMPLES]),
    )


def _example(reason: Reason, terms: Terms) -> ReasonSummary:
    return ReasonSummary(
        sensor=reason.sensor[:_MAX_NAME],
        scope=reason.scope,
        target=reason.target[:_MAX_NAME],
        part=reason.part[:_MAX_NAME],
        rule=reason.rule[:_MAX_NAME],
        by=reason.by[:_MAX_NAME],
        action=reason.action[:_MAX_NAME],
        event_id=reason.event_id[:_MAX_NAME],
        attack=reason.attack[:_MAX_NAME],
        received_at=reason.received_at,
        dry_run=terms.dry_run,
        direction=reason.direction[:_MAX_NAME],
        pps=reason.pps,
        bits=reason.bits,
    )


def bound(record: Mitigation) -> Mitigation:
    """Return a record whose size is within its bound."""
    cut = replace(record, cause=record.cause[:_MAX_TEXT], by=record.by[:_MAX_NAME])
    if len(msgspec.json.encode(cut)) > MAX_RECORD_BYTES:
        return replace(cut, reasons=(), conflicts=())
    return cut


def has_same_counts(old: Mitigation, record: Mitigation) -> bool:
    """Return whether the counts of two records are of the same order of magnitude."""
    return all(
        _magnitude(getattr(old, name)) == _magnitude(getattr(record, name))
        for name in ("live_reasons", "pending_reasons", "dry_reasons")
    )


def is_start(old: Mitigation | None, record: Mitigation) -> bool:
    """Return whether a wanted mitigation starts: anew, or live after a dry run."""
    if old is None or old.state != WANTED:
        return True
    return old.dry_run and not record.dry_run


def is_persons_decision(old: Mitigation | None, record: Mitigation) -> bool:
    """Return whether a person brought a mitigation into its state."""
    if record.state == ENDED and record.ended_because == OPERATOR:
        return old is None or old.state != SUPPRESSED  # its time is over
    return record.state == SUPPRESSED


def content_of(record: Mitigation) -> tuple[object, ...]:
    """Return what a person approves or sees change; renewals keep it."""
    return (
        record.state,
        record.then,
        record.communities,
        record.dry_run,
        record.pending,
        record.approved,
        record.started_at,
    )


def suppressed_check(key: str, record: Mitigation) -> Check:
    """Return the check that reports why an event starts nothing."""
    return Check(
        stage="order",
        name=SUPPRESSED,
        code=SUPPRESSED,
        verdict="refuse",
        text=f"{key} is suppressed: {record.cause}",
    )


def _magnitude(count: int) -> int:
    """Return 0 and 1 for themselves, and the number of digits + 1 of all others."""
    return count if count <= 1 else len(str(count)) + 1
