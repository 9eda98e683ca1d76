"""Orders: what people ask of the mitigator, and what it makes of that.

A person can end anything and approve what a guardrail held; nobody can approve what a
guardrail refuses.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from msgspec.structs import replace

from consumers.mitigation.measure import FLOWSPEC, KINDS, Measure, canonical, measure_of
from consumers.policy import guardrails
from consumers.mitigator.closing import end
from consumers.policy.guardrails import HOLD, REFUSE
from consumers.mitigator.lease import begun, changed, with_reason
from consumers.policy.model import customer_of
from consumers.mitigator.state import (
    ENDED,
    NONE,
    PAUSE,
    PROPOSED,
    SUPPRESSED,
    WANTED,
)
from consumers.mitigator.turn import Turn
from fnm_bus.event import Check, Command, Mitigation, Reason

_LEASE: Final = 900.0
_LONGEST: Final = 86_400.0
_STARTING: Final = frozenset({"approve", "add", "resume"})
"""What must not be done long after it was asked for; taking back always may."""
_OF_PEOPLE: Final = "operator"
"""Part of the reasons that are a person's order."""


def obey(turn: Turn, command: Command) -> None:
    """Let one command change the state; each leaves an audit record."""
    act = _VERBS.get(command.verb)
    if act is None:
        refuse(turn, command, f"verb: wanted one of {', '.join(_VERBS)}")
    elif not command.by:
        refuse(turn, command, "by: wanted the name of whoever asks")
    elif command.verb in _STARTING and _stale(turn, command):
        refuse(turn, command, f"asked at {command.asked_at:%F %T} UTC: too long ago")
    else:
        act(turn, command)


def _stale(turn: Turn, command: Command) -> bool:
    age = (turn.wall - command.asked_at).total_seconds()
    return age > turn.terms.policy.limits.fresh


def refuse(turn: Turn, command: Command, why: str) -> None:
    """Tell that a command changes nothing."""
    text = f"{command.verb or 'command'} by {command.by or 'nobody'}: {why}"
    turn.tell(
        "refused",
        text,
        key=command.key,
        by=command.by or "nobody",
        event_id=command.command_id,
    )


def _approve(turn: Turn, command: Command) -> None:
    it = _meant(turn, command, PROPOSED)
    if it is None:
        return
    checks = guardrails.allowed(measure_of(it), turn.terms.policy.limits)
    if guardrails.verdict(checks) == REFUSE:
        _tell_refusal(turn, command, checks, it.key)
        return
    cause = f"approved by {command.by}: {command.why}"
    turn.write(changed(it, turn.now, cause=cause, state=WANTED))
    _told(turn, command, "approved", cause, it.key)


def _deny(turn: Turn, command: Command) -> None:
    it = _meant(turn, command, PROPOSED)
    if it is not None:
        cause = f"denied by {command.by}: {command.why}"
        turn.write(changed(it, turn.now, cause=cause, state=SUPPRESSED))
        _told(turn, command, "denied", cause, it.key)


def _end(turn: Turn, command: Command) -> None:
    it = _meant(turn, command, PROPOSED, WANTED)
    if it is None:
        return
    cause = f"ended by {command.by}: {command.why}"
    # The order of a person is over; an attack goes on, and must not bring it back.
    reasons = tuple(
        replace(one, holds=one.holds and one.part != _OF_PEOPLE) for one in it.reasons
    )
    state = SUPPRESSED if any(one.holds for one in reasons) else ENDED
    turn.write(changed(it, turn.now, cause=cause, state=state, reasons=reasons))
    _told(turn, command, state, cause, it.key)


def _add(turn: Turn, command: Command) -> None:
    if turn.state.paused:
        refuse(turn, command, "everything is paused: resume first")
        return
    try:
        measure = ordered(command)
    except ValueError as exc:
        refuse(turn, command, str(exc))
        return
    limits, policy = turn.terms.policy.limits, turn.terms.policy
    before = turn.state.mitigations.get(measure.key)
    mine = guardrails.meant(measure, limits.own)
    customer = None if mine is None else customer_of((mine,), policy.customers)
    checks = guardrails.allowed(measure, limits)
    if before is None or before.state != WANTED:
        tally = turn.state.tally(turn.now)
        caps = guardrails.affordable(measure, tally, limits, customer)
        checks = (*checks, *caps)
    verdict = guardrails.verdict(checks)
    if verdict == REFUSE:
        _tell_refusal(turn, command, checks, measure.key)
        return
    live = before is not None and before.state in {WANTED, PROPOSED}
    base = before if before is not None and live else begun(measure, before, turn.now)
    state = PROPOSED if verdict == HOLD and base.state != WANTED else WANTED
    cause = f"added by {command.by}: {command.why}"
    base = replace(
        base,
        enforcers=command.enforcers,
        dry_run=turn.terms.dry_run,
        customer=customer.name if customer else None,
    )
    reasons = with_reason(base, _reason(turn, command, measure))
    turn.write(
        changed(
            base, turn.now, cause=cause, state=state, reasons=reasons, measure=measure
        )
    )
    _told(turn, command, state, cause, measure.key, checks=checks)


def _pause(turn: Turn, command: Command) -> None:
    cause = f"paused by {command.by}: {command.why}"
    turn.write(_button(turn, WANTED, cause))
    for it in turn.state.standing():
        # What a person ended stays suppressed: a resume must not bring it back.
        if it.kind != NONE and it.state != SUPPRESSED:
            end(turn, it, cause, by=command.by)
    _told(turn, command, "paused", cause, PAUSE)


def _resume(turn: Turn, command: Command) -> None:
    cause = f"resumed by {command.by}: {command.why}"
    turn.write(_button(turn, ENDED, cause))
    _told(turn, command, "resumed", cause, PAUSE)


_VERBS: Final[Mapping[str, Callable[[Turn, Command], None]]] = {
    "approve": _approve,
    "deny": _deny,
    "end": _end,
    "add": _add,
    "pause": _pause,
    "resume": _resume,
}


def ordered(command: Command) -> Measure:
    """Return the measure that an `add` asks for.

    Raises:
        ValueError: it is not whole; the text names the field.
    """
    if command.kind not in KINDS:
        raise ValueError(f"kind: wanted one of {', '.join(KINDS)}, got {command.kind}")
    seconds = (command.lease_ms or 0) / 1000
    if seconds > _LONGEST:
        raise ValueError(f"lease: at most {_LONGEST:.0f} s, got {seconds:.0f}")
    if command.kind != FLOWSPEC:
        if not command.prefix:
            raise ValueError("prefix: wanted a network, got nothing")
        measure = Measure(kind=command.kind, prefix=command.prefix)
        if [str(it) for it in measure.networks] != [command.prefix]:
            raise ValueError(f"prefix: wanted {measure.networks[0]}")
        return measure
    if command.flow is None or command.then is None:
        raise ValueError("flow, then: wanted for a FlowSpec mitigation, got nothing")
    flow = canonical(command.flow)
    return Measure(kind=FLOWSPEC, flow=flow, then=command.then)


def _reason(turn: Turn, command: Command, measure: Measure) -> Reason:
    networks = measure.networks
    return Reason(
        target=str(networks[0]) if networks else "",
        part=_OF_PEOPLE,
        event_id=command.command_id,
        action="add",
        sequence=round(turn.now.timestamp() * 1_000_000),
        received_at=command.asked_at,
        renewed_at=turn.now,
        lease_ms=command.lease_ms or round(_LEASE * 1000),
        holds=True,
    )


def _button(turn: Turn, state: str, cause: str) -> Mitigation:
    return Mitigation(
        key=PAUSE,
        kind=PAUSE,
        state=state,
        started_at=turn.now,
        changed_at=turn.now,
        expires_at=datetime(1970, 1, 1, tzinfo=UTC),
        cause=cause,
    )


def _meant(turn: Turn, command: Command, *states: str) -> Mitigation | None:
    it = turn.state.mitigations.get(command.key or "")
    if it is None or it.kind in {PAUSE, NONE}:
        refuse(turn, command, f"there is no mitigation {command.key}")
    elif it.state not in states:
        wanted = " or ".join(states)
        refuse(turn, command, f"{command.key} is {it.state}, wanted {wanted}")
    else:
        return it
    return None


def _tell_refusal(
    turn: Turn, command: Command, checks: tuple[Check, ...], key: str
) -> None:
    bad = [f"{it.name}: {it.text}" for it in checks if it.verdict == REFUSE]
    refuse(turn, replace(command, key=key), "; ".join(bad))


def _told(  # noqa: PLR0913 - what an audit record holds
    turn: Turn,
    command: Command,
    what: str,
    text: str,
    key: str,
    *,
    checks: tuple[Check, ...] = (),
) -> None:
    turn.tell(
        what,
        text,
        key=key,
        by=command.by,
        event_id=command.command_id,
        checks=checks,
    )
