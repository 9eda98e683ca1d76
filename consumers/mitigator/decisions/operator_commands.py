"""Operator commands: a person's requests, and their results.

A person can withdraw anything, and approve a mitigation that a limit holds. Nobody can
approve a measure that a guardrail refuses. Each command has an audit record with its
`command_id`.
"""

from collections.abc import Callable, Mapping
from typing import Final

from msgspec.structs import replace

from consumers.mitigation.measure import Network, measure_of
from consumers.mitigation.states import ENDED, PAUSE, PROPOSED, SUPPRESSED, WANTED
from consumers.mitigation.states import OPERATOR as BY_OPERATOR
from consumers.mitigator.decisions.add_command import add
from consumers.mitigator.decisions.received_command import (
    MAX_TEXT,
    ReceivedCommand,
    apply_decision,
    audit_command,
    find_mitigation,
    is_refused,
    operator_key,
    refuse_command,
)
from consumers.mitigator.state.entries import APPROVAL, MitigationEntry
from consumers.mitigator.state.next_record import ChangeCause, end_record
from consumers.mitigator.state.recompute import put_mitigation
from consumers.mitigator.state.transition import Transition
from consumers.mitigator.state.wants import action_of
from consumers.policy import guardrails
from fnm_bus.event import Effect, Mitigation

_STARTING: Final = frozenset({"approve", "add", "resume"})
"""Commands that are refused when they are old; withdrawing is always allowed."""


def apply_command(transition: Transition, received: ReceivedCommand) -> None:
    """Apply one command."""
    command = received.command
    apply = _VERBS.get(command.verb)
    if apply is None:
        code, text = "unknown_verb", f"verb: expected {', '.join(_VERBS)}"
    elif not command.by:
        code, text = "no_name", "by: expected the name of the person"
    elif len(command.by) > MAX_TEXT or len(command.comment) > MAX_TEXT:
        code, text = "too_long", f"by, comment: at most {MAX_TEXT} characters"
    elif command.verb in _STARTING and _is_old(transition, received):
        text = f"it was sent at {received.at:%F %T} UTC, too long ago; send it again"
        code = "too_old"
    elif command.command_id and not transition.remember_command(command.command_id):
        code, text = "duplicate", "it was received twice, and applied the first time"
    else:
        apply(transition, received)
        return
    refuse_command(transition, received, code, text)


def _is_old(transition: Transition, received: ReceivedCommand) -> bool:
    age = (transition.moment.now - received.at).total_seconds()
    return age > transition.context.policy.limits.max_event_age


def _approve(transition: Transition, received: ReceivedCommand) -> None:
    entry = find_mitigation(transition, received, PROPOSED, WANTED, SUPPRESSED)
    if entry is None:
        return
    record, command = entry.record, received.command
    if command.revision is None or command.revision != record.revision:
        text = (
            f"revision {command.revision} was approved, but the present one is"
            f" {record.revision}: check the mitigation again"
        )
        refuse_command(transition, received, "revision", text)
        return
    if record.state == WANTED and record.pending is None:
        text = f"{record.key} is wanted, nothing waits for approval"
        refuse_command(transition, received, "state", text)
        return
    checks = guardrails.check_measure(
        measure_of(record),
        transition.context.policy.limits,
        named=_named_prefixes(transition, record.key),
    )
    if is_refused(transition, received, checks):
        return
    effect = record.pending or Effect(then=record.then, communities=record.communities)
    is_wanted = record.state == WANTED
    approved = replace(
        record,
        state=WANTED if is_wanted else PROPOSED,
        # No limit holds it until it is computed: it needs no fallback meanwhile.
        held_by=() if is_wanted else record.held_by or (APPROVAL,),
        # The approval of a dry run approves no effect on traffic.
        approved=record.approved if record.dry_run else effect,
        by=command.by,
        pending=effect,
    )
    put_mitigation(transition, record.key, approved, entry.ends)
    apply_decision(transition, received, record.key, "approved")


def _reject(transition: Transition, received: ReceivedCommand) -> None:
    entry = find_mitigation(transition, received, PROPOSED)
    if entry is not None:
        _suppress(transition, received, entry, "rejected")


def _withdraw(transition: Transition, received: ReceivedCommand) -> None:
    entry = find_mitigation(transition, received, PROPOSED, WANTED)
    if entry is not None:
        _suppress(transition, received, entry, "withdrawn")


def _suppress(
    transition: Transition, received: ReceivedCommand, entry: MitigationEntry, verb: str
) -> None:
    """End a mitigation, and keep its reasons from starting it again."""
    command, previous = received.command, entry.record
    key, state = previous.key, transition.state
    text = f"{verb} by {command.by}: {command.comment}"
    reason_key = operator_key(key)  # any person may end an operator's own reason
    if reason_key in state.reasons:
        transition.forget_reason(reason_key)
    demand = state.demands.get(key)
    if demand is None:
        cause = ChangeCause(text=text, ended_because=BY_OPERATOR, by=command.by)
        record = end_record(previous, cause).record or previous
        ends, code = transition.moment.clock, BY_OPERATOR
    else:
        record = replace(
            previous,
            state=SUPPRESSED,
            cause=text,
            by=command.by,
            held_by=(),
            pending=None,
            approved=None,
        )
        latest = demand.latest()
        ends, code = latest.ends + latest.seconds, ""
    record = replace(record, revision=previous.revision + 1)
    put_mitigation(transition, key, record, ends)
    audit_command(transition, received, record.state, text, code=code, key=key)


def _pause(transition: Transition, received: ReceivedCommand) -> None:
    _write_pause(transition, received, WANTED, "paused")


def _resume(transition: Transition, received: ReceivedCommand) -> None:
    _write_pause(transition, received, ENDED, "resumed")


_VERBS: Final[Mapping[str, Callable[[Transition, ReceivedCommand], None]]] = {
    "approve": _approve,
    "reject": _reject,
    "withdraw": _withdraw,
    "add": add,
    "pause": _pause,
    "resume": _resume,
}


def _named_prefixes(transition: Transition, key: str) -> tuple[Network, ...]:
    """Return the prefixes that the actions of a mitigation's reasons name."""
    policy, reasons = transition.context.policy, transition.state.reasons
    prefixes: dict[Network, None] = {}
    checked = set()
    for reason_key in transition.state.demands.get(key, ()):
        entry = reasons[reason_key]
        fallback = entry.reason.wants[entry.keys.index(key)].fallback
        source = entry.reason.rule, entry.reason.hostgroup, fallback
        if source not in checked:
            checked.add(source)
            action = action_of(policy, entry.reason, fallback=fallback)
            prefixes |= dict.fromkeys(action.prefixes if action else ())
    return tuple(prefixes)


def _write_pause(
    transition: Transition, received: ReceivedCommand, state: str, verb: str
) -> None:
    command = received.command
    text = f"All mitigations {verb} by {command.by}: {command.comment}"
    entry = transition.state.mitigations.get(PAUSE)
    record = Mitigation(
        kind=PAUSE,
        state=state,
        created_at=transition.moment.now,
        revision=(entry.record.revision if entry else 0) + 1,
        cause=text,
        by=command.by,
        command_offset=received.offset,
    )
    put_mitigation(transition, PAUSE, record, transition.moment.clock)
    audit_command(transition, received, verb, text, key=PAUSE)
