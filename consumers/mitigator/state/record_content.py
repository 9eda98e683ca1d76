"""Record content: counts and examples in a mitigation's record, and its changes.

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
from consumers.mitigator.state.entries import ReasonEntry
from consumers.mitigator.state.next_record import NextRecord
from consumers.policy.flow_rules import refusal
from fnm_bus.event import Check, Mitigation, Reason, ReasonSummary

MAX_RECORD_BYTES: Final = 8_000
_MAX_TEXT: Final = 300
"""Characters of a sentence in a mitigation."""
_MAX_NAME: Final = 100
"""Characters of a name in a mitigation."""
_EXAMPLES: Final = 5

Reasons = Mapping[ReasonKey, ReasonEntry]


def add_reason_summaries(
    record: Mitigation, demand: Demand, result: NextRecord, reasons: Reasons
) -> Mitigation:
    """Return the record with counts, examples and conflicts."""
    live = pending = dry = 0
    conflicts = []
    for terms in demand.terms():
        count = demand.count(terms)
        if terms.dry_run:
            dry += count
        elif terms in result.pending:
            pending += count
        else:
            live += count
        if terms in result.chosen and terms.effect.then != record.then:
            conflicts.append(f"{describe(terms.effect.then)} ({count})")
    terms_shown = dict.fromkeys((*result.chosen, *result.pending))
    reason_keys = demand.first(terms_shown, _EXAMPLES)
    return replace(
        record,
        live_reasons=live,
        pending_reasons=pending,
        dry_reasons=dry,
        reasons=tuple(
            _summary(reasons[key].reason, demand.terms_of(key)) for key in reason_keys
        ),
        conflicts=tuple(conflicts[:_EXAMPLES]),
    )


def _summary(reason: Reason, terms: Terms) -> ReasonSummary:
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


def cut_to_bound(record: Mitigation) -> Mitigation:
    """Return a record whose size is within its bound."""
    cut = replace(record, cause=record.cause[:_MAX_TEXT], by=record.by[:_MAX_NAME])
    if len(msgspec.json.encode(cut)) > MAX_RECORD_BYTES:
        return replace(cut, reasons=(), conflicts=())
    return cut


def has_same_counts(previous: Mitigation, record: Mitigation) -> bool:
    """Return whether the counts of two records are of the same order of magnitude."""
    return all(
        _magnitude(getattr(previous, name)) == _magnitude(getattr(record, name))
        for name in ("live_reasons", "pending_reasons", "dry_reasons")
    )


def is_start(previous: Mitigation | None, record: Mitigation) -> bool:
    """Return whether a wanted mitigation starts, or goes live after a dry run."""
    if previous is None or previous.state != WANTED:
        return True
    return previous.dry_run and not record.dry_run


def is_persons_decision(previous: Mitigation | None, record: Mitigation) -> bool:
    """Return whether a person brought a mitigation into its state."""
    if record.state == ENDED and record.ended_because == OPERATOR:
        # The end of a suppression is no decision.
        return previous is None or previous.state != SUPPRESSED
    return record.state == SUPPRESSED


def content_of(record: Mitigation) -> tuple[object, ...]:
    """Return the fields that a person approves or sees; renewals keep them."""
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
    """Return the check that reports a suppressed mitigation."""
    text = f"{key} is suppressed: {record.cause}"
    return refusal(SUPPRESSED, SUPPRESSED, text, "order")


def _magnitude(count: int) -> int:
    """Return counts 0 and 1 unchanged, and the number of digits + 1 of any other."""
    return count if count <= 1 else len(str(count)) + 1
