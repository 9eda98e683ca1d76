"""Explain: what would be decided about an event, and why. Nothing is published."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from consumers.policy.facts import facts_of
from consumers.mitigator.judge import judge
from consumers.mitigator.lapse import lapse
from consumers.mitigator.state import State
from consumers.mitigator.turn import Terms, Turn
from fnm_bus.event import Audit, Event, Mitigation


class Explained(NamedTuple):
    """One event, and what came of it.

    Attributes:
        event: what was asked about.
        audits: what would be told, each with every check that was asked.
        changes: the records that would be written.
    """

    event: Event
    audits: tuple[Audit, ...]
    changes: tuple[Mitigation, ...]


def explain(event: Event, state: State, terms: Terms, now: datetime) -> Explained:
    """Return what *event* would change; *state* is changed as if it had."""
    turn = Turn(terms, state, now, now)
    for facts in facts_of(event):
        judge(turn, facts)
    changes = tuple(it for it in turn.changes.values() if it is not None)
    return Explained(event, tuple(turn.audits), changes)


def replay(events: Iterable[Event], terms: Terms) -> Iterator[Explained]:
    """Yield what would have come of *events*, each at the time when it was received.

    Beginning with nothing, in the order of their receipt: as this policy would have
    done it.
    """
    state = State(terms.policy.limits.own)
    for event in sorted(events, key=_received):
        at = event.receipt.received_at
        lapse(Turn(terms, state, at, at))
        yield explain(event, state, terms, at)


def shown(it: Explained) -> Iterator[str]:
    """Yield an explanation as lines for a terminal."""
    receipt = it.event.receipt
    about = getattr(it.event, "ip", None) or getattr(it.event, "hostgroup_name", "")
    yield (
        f"{it.event.action} {about}  sensor {receipt.sensor}"
        f"  received {receipt.received_at:%F %T} UTC  event {receipt.event_id}"
    )
    if not it.audits:
        yield "  nothing: it renews what stands, or its action is not one to act on"
    for audit in it.audits:
        for check in audit.checks:
            name = f"{check.stage} {check.name}"
            yield f"  {check.verdict:<9} {name:<28} {check.text}"
        dry = " (dry run)" if audit.dry_run else ""
        yield f"  ⇒ {audit.what}{dry}: {audit.key or ''} {audit.text}".rstrip()
    for one in it.changes:
        if one.state in {"wanted", "proposed"}:
            lease = one.lease_ms / 1000
            yield f"  {one.state}: {one.key} until {one.expires_at:%T} ({lease:.0f} s)"


def _received(event: Event) -> datetime:
    return event.receipt.received_at
