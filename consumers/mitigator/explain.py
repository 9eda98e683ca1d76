"""Explain: the decision about an event, with its checks. Nothing is published."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

from consumers.mitigation.measure import NOTIFY
from consumers.mitigation.states import PROPOSED, WANTED
from consumers.mitigator.context import DecisionContext, Moment
from consumers.mitigator.decisions.decide import apply_event
from consumers.mitigator.decisions.expire import expire_leases, start_proposals
from consumers.mitigator.state.state import State
from consumers.mitigator.state.transition import Transition
from fnm_bus.errors import InvalidRecord
from fnm_bus.event import Audit, Check, Event, Mitigation

_LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)
"""Decisions add times to an event's date, and the last possible year is 9999."""


class Explanation(NamedTuple):
    """One event, and the decision about it.

    Attributes:
        error: why the event would become a dead letter, or "".
    """

    event: Event
    audits: tuple[Audit, ...]
    mitigations: tuple[Mitigation, ...]
    error: str = ""

    @property
    def started(self) -> int:
        """The number of new mitigations, wanted or proposed."""
        return sum(kind != NOTIFY for kind in self._new_kinds())

    @property
    def reported(self) -> int:
        """The number of attacks that people would only be informed about."""
        return sum(kind == NOTIFY for kind in self._new_kinds())

    def _new_kinds(self) -> Iterator[str]:
        new = {audit.key for audit in self.audits if audit.action in {WANTED, PROPOSED}}
        return (record.kind for record in self.mitigations if record.key in new)


def explain_event(
    event: Event, state: State, context: DecisionContext, moment: Moment
) -> Explanation:
    """Return the decision about an event; the state changes accordingly."""
    transition = Transition(context, state, moment)
    try:
        apply_event(transition, event)
    except InvalidRecord as exc:
        transition.rollback()
        return Explanation(event, (), (), str(exc))
    except Exception as exc:  # noqa: BLE001 - the mitigator writes a dead letter for it, too
        transition.rollback()
        return Explanation(event, (), (), f"unexpected {type(exc).__name__}: {exc}")
    written = [
        record for record in transition.mitigations.values() if record is not None
    ]
    return Explanation(event, tuple(transition.audits), tuple(written))


def replay_events(
    events: Iterable[Event], context: DecisionContext
) -> Iterator[Explanation]:
    """Yield this policy's decisions about events, each at the event's time of receipt.

    The replay begins without any mitigation.
    """
    state = State(context.policy.limits.own_networks, dry_run=context.dry_run)
    for event in sorted(events, key=lambda event: event.receipt.received_at):
        at = min(event.receipt.received_at, _LATEST)
        moment = Moment(clock=at.timestamp(), now=at)
        _advance(context, state, moment)
        yield explain_event(event, state, context, moment)


def explanation_lines(explanation: Explanation) -> Iterator[str]:
    """Yield an explanation as lines for a terminal."""
    event = explanation.event
    receipt = event.receipt
    target = getattr(event, "ip", None) or getattr(event, "hostgroup_name", "")
    yield (
        f"{event.action} {target}  sensor {receipt.sensor}"
        f"  received {receipt.received_at:%F %T} UTC  event {receipt.event_id}"
    )
    if explanation.error:
        yield f"  dead letter: {explanation.error}"
    elif not explanation.audits:
        yield "  nothing: it renews active mitigations, or no rule acts on its action"
    for audit in explanation.audits:
        yield from map(check_line, audit.checks)
        if audit.checks_omitted:
            yield f"  … and {audit.checks_omitted} further checks"
        dry = " (dry run)" if audit.dry_run else ""
        yield f"  ⇒ {audit.action}{dry}: {audit.key or ''} {audit.text}".rstrip()
    for record in explanation.mitigations:
        if record.state in {WANTED, PROPOSED}:
            lease = record.lease_ms / 1000
            until = f"until {record.expires_at:%T} UTC ({lease:.0f} s)"
            informs = ", which blocks nothing" if record.kind == NOTIFY else ""
            yield f"  {record.state}: {record.key} {until}{informs}"


def check_line(check: Check) -> str:
    """Return a check for people, in columns."""
    name = f"{check.stage} {check.name}"
    return f"  {check.verdict:<9} {name:<32} {check.text}"


def _advance(context: DecisionContext, state: State, moment: Moment) -> None:
    """Expire leases and start proposals, as the mitigator would have done."""

    def new_transition() -> Transition:
        return Transition(context, state, moment)

    # A call removes due keys from the list, so all of them have to be processed.
    while list(expire_leases(state, new_transition)):
        pass
    for _transition in start_proposals(state, new_transition):
        pass
