"""Next record: the mitigation that follows from its reasons and people's decisions.

Pure. The first condition that is met (docs/decisions/reasons-and-mitigations.md):

    withdrawn or rejected by a person, its reasons hold or held  suppressed
    live, approved reasons; live before, or limits allow it      wanted
    live, approved reasons                                       proposed
    reasons that wait for approval                               proposed
    dry runs; limits allow it                                    wanted, dry run
    dry runs                                                     proposed, dry run
    nothing                                                      ended
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from msgspec.structs import replace

from consumers.mitigation.effects import covers, strength, unite
from consumers.mitigation.states import ENDED, OPERATOR, PROPOSED, SUPPRESSED, WANTED
from consumers.mitigator.state.demand import Demand, Terms
from consumers.mitigator.state.state import APPROVAL, MitigationEntry
from consumers.policy.guardrails import HOLD
from fnm_bus.event import EPOCH, Check, Effect, Mitigation

_EARLY: Final = 2.0
"""Seconds before the end of a part of the effect at which the weaker one is written."""


class Moment(NamedTuple):
    """Now, on the two clocks that matter.

    Attributes:
        clock: seconds since boot; leases are counted on it.
        now: the broker's time, UTC; records show it.
    """

    clock: float
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeCause:
    """Why a mitigation is computed again.

    Attributes:
        text: a sentence for people.
        ended_because: why it ends, if it does.
        closed_lease: lease of the reason that holds no longer, in seconds; a
            suppression outlasts the last reason by it.
        by: the person who decided, or "".
        hostgroup: of the event, or None.
        customer: whose network is affected, or None; filled in by the transition.
    """

    text: str
    ended_because: str
    closed_lease: float | None = None
    by: str = ""
    hostgroup: str | None = None
    customer: str | None = None


CheckStart = Callable[[bool, bool], tuple[Check, ...]]
"""Returns what limits allow; the arguments are dry run and fallback."""


class NextRecord(NamedTuple):
    """What follows; `record` has neither examples nor counts yet.

    Attributes:
        record: None where there is no mitigation.
        ends: when its lease expires, in seconds since boot.
        due: when it has to be computed again.
        chosen: terms of the reasons that the record is about.
        pending: terms of those that wait for approval.
        checks: what limits were checked.
    """

    record: Mitigation | None
    ends: float = 0.0
    due: float = 0.0
    chosen: tuple[Terms, ...] = ()
    pending: tuple[Terms, ...] = ()
    checks: tuple[Check, ...] = ()


def next_record(
    before: MitigationEntry | None,
    demand: Demand | None,
    cause: ChangeCause,
    moment: Moment,
    check_start: CheckStart,
) -> NextRecord:
    """Return the mitigation that follows.

    Args:
        before: the mitigation so far.
        demand: what holding reasons want of it, or None without any.
        cause: why it is computed.
        moment: now.
        check_start: what limits say to a start.
    """
    old = before.record if before else None
    if before is not None and before.record.state == SUPPRESSED:
        return _suppressed(before, demand, cause, moment)
    if demand is None:
        return _without_reasons(before, cause)
    approved = old.approved if old is not None and old.state != ENDED else None
    live, pending, dry = sorted_terms = _sort_terms(demand, approved, moment.clock)
    state, held_by, checks = _decide(sorted_terms, old, approved, check_start)
    is_dry = not live and not pending
    chosen = dry if is_dry else live or pending
    shown = (*live, *pending) if state == PROPOSED and not is_dry else chosen
    united = unite(terms.effect for terms in shown)
    ends, due = _lease(demand, chosen, united, moment.clock)
    waiting = unite(t.effect for t in (*live, *pending)) if pending else None
    fresh = old is None or old.state == ENDED
    started, started_dry = EPOCH, False
    if state == WANTED and not _is_live(old, is_dry):
        started, started_dry = moment.now, is_dry
    elif old is not None and not fresh:
        started, started_dry = old.started_at, old.started_dry_run
    # A reason that holds no longer is not why the others hold it.
    keeps = (
        cause.closed_lease is not None
        and old is not None
        and (old.state, old.then, old.dry_run) == (state, united.then, is_dry)
        and old.communities == united.communities
    )
    record = Mitigation(
        place=demand.place,
        kind=demand.measure.kind,
        prefix=demand.measure.prefix,
        flow=demand.measure.flow,
        state=state,
        then=united.then,
        communities=united.communities,
        dry_run=is_dry,
        held_by=held_by,
        pending=united if state == PROPOSED else waiting,
        approved=approved,
        created_at=moment.now if fresh or old is None else old.created_at,
        started_at=started,
        started_dry_run=started_dry,
        limits_digest="" if fresh or old is None else old.limits_digest,
        hostgroup=cause.hostgroup if fresh or old is None else old.hostgroup,
        customer=cause.customer if fresh or old is None else old.customer,
        cause=old.cause if old is not None and keeps else cause.text,
        by=cause.by or ("" if fresh or old is None else old.by),
    )
    return NextRecord(record, ends, due, chosen, pending, checks)


class _SortedTerms(NamedTuple):
    live: tuple[Terms, ...]
    pending: tuple[Terms, ...]
    dry: tuple[Terms, ...]


def _sort_terms(demand: Demand, approved: Effect | None, clock: float) -> _SortedTerms:
    """Return the terms that are live and approved, wait for approval, are dry runs."""
    live, pending, dry = [], [], []
    for terms in demand.terms():
        if terms.dry_run:
            dry.append(terms)
        elif not terms.approval or (approved and covers(approved, terms.effect)):
            live.append(terms)
        else:
            pending.append(terms)
    return _SortedTerms(
        _lasting(demand, live, clock),
        _lasting(demand, pending, clock),
        _lasting(demand, dry, clock),
    )


def _lasting(demand: Demand, terms: list[Terms], clock: float) -> tuple[Terms, ...]:
    """Return those that do not expire within moments, or all if they all do."""
    lasting = [one for one in terms if demand.latest(one).ends > clock + _EARLY]
    return tuple(lasting or terms)


def _decide(
    terms: _SortedTerms,
    old: Mitigation | None,
    approved: Effect | None,
    check_start: CheckStart,
) -> tuple[str, tuple[str, ...], tuple[Check, ...]]:
    """Return the state, what holds a proposal, and the limits that were checked."""
    live, pending, dry = terms
    if not live and pending:
        return PROPOSED, (APPROVAL,), ()
    is_dry = not live
    if _is_live(old, is_dry):
        return WANTED, (), ()
    if approved is not None and not is_dry:
        wanted = unite(one.effect for one in live)
        if covers(approved, wanted):
            return WANTED, (), ()
    chosen = live or dry
    checks = check_start(is_dry, all(one.fallback for one in chosen))
    held_by = tuple(check.code for check in checks if check.verdict == HOLD)
    return (PROPOSED if held_by else WANTED), held_by, checks


def _is_live(old: Mitigation | None, dry_run: bool) -> bool:  # noqa: FBT001 - of one's own
    """Return whether the mitigation was in force already, or its dry run was."""
    return old is not None and old.state == WANTED and (dry_run or not old.dry_run)


def _lease(
    demand: Demand, chosen: Sequence[Terms], united: Effect, clock: float
) -> tuple[float, float]:
    """Return when the effect loses its first part, and when to compute it again.

    A part is the action, or one community. It lasts as long as the reason that wants it
    for the longest time.
    """
    holds = [(terms.effect, demand.latest(terms).ends) for terms in chosen]
    last = max(ends for _effect, ends in holds)
    strongest = max(strength(effect.then) for effect, _ends in holds)
    parts = [max(e for f, e in holds if strength(f.then) == strongest)]
    for community in united.communities:
        wanting = [e for f, e in holds if community in f.communities]
        parts += [max(wanting)] if wanting else []
    first = min(parts)
    early = first - _EARLY
    return first, early if first < last and early > clock else first


def _suppressed(
    before: MitigationEntry, demand: Demand | None, cause: ChangeCause, moment: Moment
) -> NextRecord:
    """Keep a person's decision until its reasons are gone for one lease."""
    old = before.record
    if demand is None:
        if moment.clock >= before.ends:
            over = ChangeCause(text="its suppression is over", ended_because=OPERATOR)
            return end_record(old, over)
        ends = before.ends
        if cause.closed_lease is not None:
            ends = moment.clock + cause.closed_lease
        return NextRecord(old, ends, ends)
    latest = max(
        (demand.latest(terms) for terms in demand.terms()), key=lambda hold: hold.ends
    )
    ends = max(before.ends, latest.ends + latest.lease)
    return NextRecord(old, ends, ends, demand.terms())


def _without_reasons(before: MitigationEntry | None, cause: ChangeCause) -> NextRecord:
    if before is None or before.record.state == ENDED:
        return NextRecord(None)
    return end_record(before.record, cause)


def end_record(old: Mitigation, cause: ChangeCause) -> NextRecord:
    """Return the record of a mitigation that ends."""
    return NextRecord(
        replace(
            old,
            state=ENDED,
            ended_because=cause.ended_because,
            cause=cause.text,
            by=cause.by or old.by,
            held_by=(),
            pending=None,
            approved=None,
        )
    )
