"""Received command: its checks, and its audit record with the answer."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from consumers.mitigation.reason_key import OPERATOR, ReasonKey
from consumers.mitigation.states import OPERATOR as BY_OPERATOR
from consumers.mitigation.states import PAUSE, WANTED
from consumers.mitigator.decisions.start import cause_of
from consumers.mitigator.state.entries import MitigationEntry
from consumers.mitigator.state.next_record import ChangeCause
from consumers.mitigator.state.recompute import recompute
from consumers.mitigator.state.transition import Transition
from consumers.policy.guardrails import REFUSE
from fnm_bus.event import Check, Command, Reason

MAX_TEXT: Final = 1_000
"""Characters of a command's texts."""
_MAX_KEY: Final = 2_000
_TOLERANCE: Final = timedelta(seconds=5)
"""Largest difference between the clocks of two brokers."""


class ReceivedCommand(NamedTuple):
    """A command with the time and offset of its record.

    Attributes:
        at: the broker's time of its record, UTC.
        offset: of its record in the command topic.
    """

    command: Command
    at: datetime
    offset: int


def operator_key(key: str) -> ReasonKey:
    """Return the key of an operator's reason for a mitigation."""
    return ReasonKey("", OPERATOR, key, OPERATOR)


def find_mitigation(
    transition: Transition, received: ReceivedCommand, *states: str
) -> MitigationEntry | None:
    """Return the command's mitigation; refuse the command if its state is wrong.

    A command that was sent before the mitigation's start is about an earlier one.
    """
    key = received.command.key or ""
    entry = transition.state.mitigations.get(key)
    if entry is None or entry.record.kind == PAUSE:
        text = f"there is no mitigation {key[:200]}"
        refuse_command(transition, received, "unknown_key", text)
    elif entry.record.state not in states:
        text = f"{key} is {entry.record.state}, expected {' or '.join(states)}"
        refuse_command(transition, received, "state", text)
    elif received.at < entry.record.created_at - _TOLERANCE:
        text = (
            f"it was sent at {received.at:%F %T} UTC, before {key} began at"
            f" {entry.record.created_at:%F %T}; to apply it to this one, send it again"
        )
        refuse_command(transition, received, "too_old", text)
    else:
        return entry
    return None


def is_refused(
    transition: Transition, received: ReceivedCommand, checks: tuple[Check, ...]
) -> bool:
    """Return whether a guardrail refuses a command; report it."""
    refusals = [check for check in checks if check.verdict == REFUSE]
    if refusals:
        text = "; ".join(f"{check.name}: {check.text}" for check in refusals)
        code = refusals[0].code
        audit_command(transition, received, "refused", text, code=code, checks=checks)
    return bool(refusals)


def apply_decision(  # noqa: PLR0913 - the fields of an audit record
    transition: Transition,
    received: ReceivedCommand,
    key: str,
    verb: str,
    *,
    reason: Reason | None = None,
    checks: tuple[Check, ...] = (),
) -> None:
    """Recompute a mitigation after a person's decision, and report the result."""
    command = received.command
    text = f"{verb} by {command.by}: {command.comment}"
    cause = ChangeCause(text=text, ended_because=BY_OPERATOR, by=command.by)
    if reason is not None:
        cause = replace(cause_of(reason), text=text, by=command.by)
    state = recompute(transition, key, cause)
    if not state:
        transition.rollback()
        text = "too many mitigations are proposed"
        refuse_command(transition, received, "too_many_proposals", text)
        return
    held_by = transition.state.mitigations[key].record.held_by
    codes = f"; held by {', '.join(held_by)}" if held_by else ""
    decision = verb if verb == "approved" and state == WANTED else state
    audit_command(
        transition, received, decision, f"{text}{codes}", key=key, checks=checks
    )


def refuse_command(
    transition: Transition, received: ReceivedCommand, code: str, text: str
) -> None:
    """Report a command that changes nothing."""
    text = f"{received.command.verb or 'command'}: {text}"
    audit_command(transition, received, "refused", text, code=code)


def audit_command(  # noqa: PLR0913 - the fields of an audit record
    transition: Transition,
    received: ReceivedCommand,
    decision: str,
    text: str,
    *,
    code: str = "",
    key: str | None = None,
    checks: tuple[Check, ...] = (),
) -> None:
    """Add the audit record that answers a command."""
    command = received.command
    transition.add_audit(
        decision,
        text,
        code=code,
        key=key or (command.key or "")[:_MAX_KEY] or None,
        by=command.by[:MAX_TEXT] or "unknown",
        event_id=command.command_id[:MAX_TEXT],
        checks=checks,
    )
