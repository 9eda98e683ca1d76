"""Lease: how reasons keep a mitigation standing, and until when."""

from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec.structs import replace

from consumers.mitigation.measure import Measure
from consumers.policy.facts import ATTACK, Facts
from consumers.mitigator.state import ENDED, Place, place_of
from fnm_bus import __version__
from fnm_bus.event import Mitigation, Reason

RENEW_AFTER: Final = 1 / 3
"""Share of a lease after which a renewal is written; earlier ones only count."""


def reason_of(
    facts: Facts, rule: str, lease: float, now: datetime, renewals: int = 0
) -> Reason:
    """Return the reason that an event gives, with a lease in seconds."""
    return Reason(
        sensor=facts.sensor,
        target=facts.target,
        part=facts.part,
        attack_uuid=facts.attack_uuid,
        event_id=facts.event_id,
        action=facts.action,
        rule=rule,
        sequence=facts.sequence,
        received_at=facts.received_at,
        renewed_at=now,
        lease_ms=round(lease * 1000),
        renewals=renewals,
        holds=True,
        pps=facts.pps,
        bits=facts.bits,
    )


def term(lease: float, facts: Facts, ban_time: float, *, renewing: bool) -> float:
    """Return the lease of an event's reason, in seconds.

    A sensor that sends no status updates cannot renew, nor is it known to send any for
    hostgroups and for Flow Spec rules of a partial block: such a lease is at least
    FastNetMon's ban time.
    """
    told = facts.action == "attack_status" or facts.scope == "host"
    if renewing and told and facts.part == ATTACK:
        return lease
    return max(lease, ban_time)


def with_reason(mitigation: Mitigation, reason: Reason) -> tuple[Reason, ...]:
    """Return the reasons with *reason* in the place of the one it follows."""
    place = place_of(reason)
    return (*(it for it in mitigation.reasons if place_of(it) != place), reason)


def without(
    mitigation: Mitigation, place: Place, sequence: int | None = None
) -> tuple[Reason, ...]:
    """Return the reasons of which the one at *place* holds no more.

    It is kept, with *sequence* if that is greater, so that what comes late is known.
    """
    return tuple(
        replace(it, holds=False, sequence=max(it.sequence, sequence or 0))
        if place_of(it) == place
        else it
        for it in mitigation.reasons
    )


def ends_at(reason: Reason) -> datetime:
    """Return when a reason stops to hold unless it is renewed."""
    return reason.renewed_at + timedelta(milliseconds=reason.lease_ms)


def holds(reasons: tuple[Reason, ...]) -> bool:
    """Return whether one of the reasons holds."""
    return any(it.holds for it in reasons)


def changed(  # noqa: PLR0913 - what a record may differ in from the one before
    mitigation: Mitigation,
    now: datetime,
    *,
    cause: str,
    state: str | None = None,
    reasons: tuple[Reason, ...] | None = None,
    measure: Measure | None = None,
) -> Mitigation:
    """Return the next record of a mitigation; its lease is what its reasons give it."""
    kept = mitigation.reasons if reasons is None else reasons
    ends = max((ends_at(it) for it in kept if it.holds), default=now)
    left = max(ends - now, timedelta())
    after = mitigation.state if state is None else state
    if after == ENDED:
        left = timedelta()
    done = mitigation if measure is None else carrying(mitigation, measure)
    return replace(
        done,
        state=after,
        reasons=kept,
        lease_ms=left // timedelta(milliseconds=1),
        expires_at=now + left,
        changed_at=now,
        revision=mitigation.revision + 1,
        cause=cause,
        producer_version=__version__,
    )


def carrying(mitigation: Mitigation, measure: Measure) -> Mitigation:
    """Return a mitigation with what *measure* does to the same match."""
    return replace(
        mitigation,
        kind=measure.kind,
        prefix=measure.prefix,
        flow=measure.flow,
        then=measure.then,
        communities=measure.communities,
    )


def begun(measure: Measure, before: Mitigation | None, now: datetime) -> Mitigation:
    """Return a mitigation that starts; it keeps the reasons of one that ended."""
    return carrying(
        Mitigation(
            key=measure.key,
            kind=measure.kind,
            started_at=now,
            changed_at=datetime(1970, 1, 1, tzinfo=UTC),
            reasons=tuple(replace(it, holds=False) for it in before.reasons)
            if before
            else (),
        ),
        measure,
    )
