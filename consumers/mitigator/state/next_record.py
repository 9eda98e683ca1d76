"""Next record: the mitigation that its reasons and a person's decisions result in.

Pure. The first condition that is met (docs/decisions/reasons-and-mitigations.md):

    withdrawn or rejected by a person, with reasons until recently  suppressed
    live, approved reasons; live before, or limits allow it         wanted
    live, approved reasons                                          proposed
    reasons that wait for approval                                  proposed
    dry runs; limits allow it                                       wanted, dry run
    dry runs                                                        proposed, dry run
    nothing                                                         ended
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from msgspec.structs import replace

from consumers.mitigation.effects import covers, strength, unite
from consumers.mitigation.states import ENDED, OPERATOR, PROPOSED, SUPPRESSED, WANTED
from consumers.mitigator.context import Moment
from consumers.mitigator.state.demand import Demand, Terms
from consumers.mitigator.state.entries import APPROVAL, MitigationEntry
from consumers.policy.guardrails import HOLD
from fnm_bus.event import EPOCH, Check, Effect, Mitigation

_EARLY: Final = 2.0
"""Seconds by which a weaker effect is written before the stronger one ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeCause:
    """Why a mitigation is computed again.

    Attributes:
        text: a sentence for people.
        ended_because: why it ends, if it does.
        closed_lease: lease of a reason that has just become inactive, in seconds; a
            suppression outlasts the last reason by it.
        by: the person who decided, or "".
        hostgroup: of the event, or None.
        customer: owner of the affected network, or None; set by the transition.
    """

    text: str
    ended_because: str
    closed_lease: float | None = None
    by: str = ""
    hostgroup: str | None = None
    customer: str | None = None


CheckStart = Callable[[bool, bool], tuple[Check, ...]]
"""Returns the checks of the limits; the arguments are dry run and fallback."""


class NextRecord(NamedTuple):
    """A mitigation's next record, still without examples and counts.

    Attributes:
        record: None if no mitigation exists.
        ends: when its lease expires, in seconds since boot.
        due: when it has to be computed again.
        chosen: terms of the reasons that the record is about.
        pending: terms of the reasons that wait for approval.
    """

    record: Mitigation | None
    ends: float = 0.0
    due: float = 0.0
    chosen: tuple[Terms, ...] = ()
    pending: tuple[Terms, ...] = ()
    checks: tuple[Check, ...] = ()


def next_record(
    entry: MitigationEntry | None,
    demand: Demand | None,
    cause: ChangeCause,
    moment: Moment,
    check_start: CheckStart,
) -> NextRecord:
    """Return a mitigation's next record."""
    if entry is not None and entry.record.state == SUPPRESSED:
        return _suppressed_record(entry, demand, cause, moment)
    if demand is None:
        if entry is None or entry.record.state == ENDED:
            return NextRecord(None)
        return end_record(entry.record, cause)
    previous = entry.record if entry else None
    current = previous if previous and previous.state != ENDED else None
    approved = current.approved if current else None
    groups = _group_terms(demand, approved, moment.clock)
    state, held_by, checks = _next_state(groups, previous, approved, check_start)
    live, pending, dry = groups
    is_dry = not live and not pending
    chosen = dry if is_dry else live or pending
    shown = (*live, *pending) if state == PROPOSED and not is_dry else chosen
    effect = unite(terms.effect for terms in shown)
    ends, due = _lease_end(demand, chosen, effect, moment.clock)
    waiting = unite(terms.effect for terms in (*live, *pending)) if pending else None
    started_at, started_dry_run = EPOCH, False
    if state == WANTED and not _is_live(previous, is_dry):
        started_at, started_dry_run = moment.now, is_dry
    elif current:
        started_at, started_dry_run = current.started_at, current.started_dry_run
    # The end of one reason is not the cause of a mitigation that others keep active.
    keeps_cause = (
        cause.closed_lease is not None
        and previous is not None
        and (previous.state, previous.then, previous.dry_run)
        == (state, effect.then, is_dry)
        and previous.communities == effect.communities
    )
    record = Mitigation(
        place=demand.place,
        kind=demand.measure.kind,
        prefix=demand.measure.prefix,
        flow=demand.measure.flow,
        state=state,
        then=effect.then,
        communities=effect.communities,
        dry_run=is_dry,
        held_by=held_by,
        pending=effect if state == PROPOSED else waiting,
        approved=approved,
        created_at=current.created_at if current else moment.now,
        started_at=started_at,
        started_dry_run=started_dry_run,
        limits_digest=current.limits_digest if current else "",
        hostgroup=current.hostgroup if current else cause.hostgroup,
        customer=current.customer if current else cause.customer,
        cause=previous.cause if previous and keeps_cause else cause.text,
        by=cause.by or (current.by if current else ""),
    )
    return NextRecord(record, ends, due, chosen, pending, checks)


class _TermGroups(NamedTuple):
    live: tuple[Terms, ...]
    pending: tuple[Terms, ...]
    dry: tuple[Terms, ...]


def _group_terms(demand: Demand, approved: Effect | None, clock: float) -> _TermGroups:
    """Return the live, approved terms, those that wait for approval, and dry runs."""
    live, pending, dry = [], [], []
    for terms in demand.terms():
        if terms.dry_run:
            dry.append(terms)
        elif not terms.approval or (approved and covers(approved, terms.effect)):
            live.append(terms)
        else:
            pending.append(terms)
    return _TermGroups(
        _without_expiring(demand, live, clock),
        _without_expiring(demand, pending, clock),
        _without_expiring(demand, dry, clock),
    )


def _without_expiring(
    demand: Demand, group: list[Terms], clock: float
) -> tuple[Terms, ...]:
    """Return the terms that do not expire within seconds; all, if all of them do."""
    lasting = [terms for terms in group if demand.latest(terms).ends > clock + _EARLY]
    return tuple(lasting or group)


def _next_state(
    groups: _TermGroups,
    previous: Mitigation | None,
    approved: Effect | None,
    check_start: CheckStart,
) -> tuple[str, tuple[str, ...], tuple[Check, ...]]:
    """Return the state, the codes that hold a proposal, and the limits' checks."""
    live, pending, dry = groups
    if not live and pending:
        return PROPOSED, (APPROVAL,), ()
    is_dry = not live
    if _is_live(previous, is_dry):
        return WANTED, (), ()
    if approved is not None and not is_dry:
        effect = unite(terms.effect for terms in live)
        if covers(approved, effect):
            return WANTED, (), ()
    checks = check_start(is_dry, all(terms.fallback for terms in live or dry))
    held_by = tuple(check.code for check in checks if check.verdict == HOLD)
    return (PROPOSED if held_by else WANTED), held_by, checks


def _is_live(previous: Mitigation | None, dry_run: bool) -> bool:  # noqa: FBT001 - private
    """Return whether the mitigation, or its dry run, was in force already."""
    return (
        previous is not None
        and previous.state == WANTED
        and (dry_run or not previous.dry_run)
    )


def _lease_end(
    demand: Demand, chosen: Sequence[Terms], united: Effect, clock: float
) -> tuple[float, float]:
    """Return when the effect loses its first part, and when to compute it again.

    A part is the action, or one community. A part lasts until the last lease of the
    reasons that want it.
    """
    effects = [(terms.effect, demand.latest(terms).ends) for terms in chosen]
    last = max(ends for _effect, ends in effects)
    strongest = max(strength(effect.then) for effect, _ends in effects)
    part_ends = [
        max(ends for effect, ends in effects if strength(effect.then) == strongest)
    ]
    for community in united.communities:
        leases = [ends for effect, ends in effects if community in effect.communities]
        part_ends += [max(leases)] if leases else []
    first = min(part_ends)
    early = first - _EARLY
    return first, early if first < last and early > clock else first


def _suppressed_record(
    entry: MitigationEntry, demand: Demand | None, cause: ChangeCause, moment: Moment
) -> NextRecord:
    """Keep a person's decision until one lease after the last reason."""
    if demand is not None:
        latest = demand.latest()
        ends = max(entry.ends, latest.ends + latest.seconds)
        return NextRecord(entry.record, ends, ends, demand.terms())
    if moment.clock >= entry.ends:
        expiry = ChangeCause(text="its suppression expired", ended_because=OPERATOR)
        return end_record(entry.record, expiry)
    ends = entry.ends
    if cause.closed_lease is not None:
        ends = moment.clock + cause.closed_lease
    return NextRecord(entry.record, ends, ends)


def end_record(record: Mitigation, cause: ChangeCause) -> NextRecord:
    """Return the last record of a mitigation."""
    return NextRecord(
        replace(
            record,
            state=ENDED,
            ended_because=cause.ended_because,
            cause=cause.text,
            by=cause.by or record.by,
            held_by=(),
            pending=None,
            approved=None,
        )
    )
