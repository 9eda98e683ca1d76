"""Operator commands: what people ask of the mitigator, and the answer.

A person can withdraw anything and approve what a limit held; nobody can approve what a
guardrail refuses. Each command leaves an audit record with its `command_id`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace as replace_cause
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from msgspec.structs import replace

from consumers.mitigation.enforcer_names import known_enforcers
from consumers.mitigation.measure import (
    FLOWSPEC,
    KINDS,
    Measure,
    Network,
    canonical,
    measure_of,
    validate_measure,
)
from consumers.mitigation.reason_key import OPERATOR, ReasonKey, mitigation_key
from consumers.mitigation.states import ENDED, PAUSE, PROPOSED, SUPPRESSED, WANTED
from consumers.mitigation.states import OPERATOR as BY_OPERATOR
from consumers.mitigator.decisions.start import cause_of
from consumers.mitigator.state.next_record import ChangeCause, end_record
from consumers.mitigator.state.state import APPROVAL, MitigationEntry
from consumers.mitigator.state.transition import Transition
from consumers.mitigator.state.wants import action_of
from consumers.policy import guardrails
from consumers.policy.guardrails import REFUSE
from consumers.policy.model import MAX_LEASE, MIN_LEASE
from fnm_bus import __version__
from fnm_bus.errors import InvalidRecord
from fnm_bus.event import Check, Command, Effect, Mitigation, Reason, Want

DEFAULT_LEASE: Final = 900.0
_MAX_TEXT: Final = 1_000
_MAX_KEY: Final = 2_000
_TOLERANCE: Final = timedelta(seconds=5)
"""By how much two times of the brokers may differ where they are compared."""
_STARTING: Final = frozenset({"approve", "add", "resume"})
"""Must not be done long after they were sent; withdrawing always may."""


class ReceivedCommand(NamedTuple):
    """A command, and what the broker says of it.

    Attributes:
        command: what is asked.
        at: the broker's time of its record, UTC.
        offset: its place in the command topic.
    """

    command: Command
    at: datetime
    offset: int


def apply_command(change: Transition, sent: ReceivedCommand) -> None:
    """Let one command change the state."""
    command = sent.command
    apply = _VERBS.get(command.verb)
    if apply is None:
        refuse(change, sent, "unknown_verb", f"verb: expected {', '.join(_VERBS)}")
    elif not command.by:
        refuse(change, sent, "no_name", "by: expected the name of the person")
    elif len(command.by) > _MAX_TEXT or len(command.why) > _MAX_TEXT:
        refuse(change, sent, "too_long", f"by, why: at most {_MAX_TEXT} characters")
    elif command.verb in _STARTING and _is_old(change, sent):
        text = f"sent at {sent.at:%F %T} UTC, which is too long ago; send it again"
        refuse(change, sent, "too_old", text)
    elif command.command_id and not change.note_command(command.command_id):
        refuse(change, sent, "duplicate", "it was sent twice and counted already")
    else:
        apply(change, sent)


def refuse(change: Transition, sent: ReceivedCommand, code: str, text: str) -> None:
    """Report that a command changes nothing."""
    command = sent.command
    _answer(change, sent, "refused", f"{command.verb or 'command'}: {text}", code=code)


def _is_old(change: Transition, sent: ReceivedCommand) -> bool:
    age = (change.moment.now - sent.at).total_seconds()
    return age > change.context.policy.limits.max_event_age


def _approve(change: Transition, sent: ReceivedCommand) -> None:
    entry = _entry(change, sent, PROPOSED, WANTED, SUPPRESSED)
    if entry is None:
        return
    old, command = entry.record, sent.command
    if command.revision is None or command.revision != old.revision:
        text = (
            f"revision {command.revision} was approved, it is {old.revision} now:"
            " look at it again"
        )
        refuse(change, sent, "revision", text)
        return
    if old.state == WANTED and old.pending is None:
        refuse(
            change, sent, "state", f"{old.key} is wanted, nothing waits for approval"
        )
        return
    checks = guardrails.check_measure(
        measure_of(old), change.context.policy.limits, named=_named(change, old.key)
    )
    if _refused_by(change, sent, checks):
        return
    effect = old.pending or Effect(then=old.then, communities=old.communities)
    state = old.state if old.state == WANTED else PROPOSED
    # Who approves what touches no traffic approves no effect on traffic.
    approved = old.approved if old.dry_run else effect
    lifted = replace(
        old,
        state=state,
        # Until it is computed, no limit holds it: nothing has to stand in for it.
        held_by=() if state == WANTED else old.held_by or (APPROVAL,),
        approved=approved,
        by=command.by,
        pending=effect,
    )
    change.put_mitigation(old.key, lifted, entry.ends)
    _decide(change, sent, old.key, "approved")


def _reject(change: Transition, sent: ReceivedCommand) -> None:
    entry = _entry(change, sent, PROPOSED)
    if entry is not None:
        _suppress(change, sent, entry, "rejected")


def _withdraw(change: Transition, sent: ReceivedCommand) -> None:
    entry = _entry(change, sent, PROPOSED, WANTED)
    if entry is not None:
        _suppress(change, sent, entry, "withdrawn")


def _suppress(
    change: Transition, sent: ReceivedCommand, entry: MitigationEntry, answer: str
) -> None:
    """End a mitigation, and keep its reasons from bringing it back."""
    command, old = sent.command, entry.record
    text = f"{answer} by {command.by}: {command.why}"
    own = _own_key(old.key)  # a person's order ends with that, whoever gave it
    if own in change.state.reasons:
        change.forget_reason(own)
    demand = change.state.demands.get(old.key)
    if demand is None:
        cause = ChangeCause(text=text, ended_because=BY_OPERATOR, by=command.by)
        ended = end_record(old, cause).record or old
        lower = replace(ended, revision=old.revision + 1)
        change.put_mitigation(old.key, lower, change.moment.clock)
        _answer(change, sent, ENDED, text, code=BY_OPERATOR, key=old.key)
        return
    latest = max(
        (demand.latest(terms) for terms in demand.terms()), key=lambda hold: hold.ends
    )
    record = replace(
        old,
        state=SUPPRESSED,
        cause=text,
        by=command.by,
        held_by=(),
        pending=None,
        approved=None,
        revision=old.revision + 1,
    )
    change.put_mitigation(old.key, record, latest.ends + latest.lease)
    _answer(change, sent, SUPPRESSED, text, key=old.key)


def _add(change: Transition, sent: ReceivedCommand) -> None:
    try:
        measure, lease = ordered_measure(sent.command)
    except (InvalidRecord, ValueError) as exc:
        refuse(change, sent, "invalid", str(exc))
        return
    limits = change.context.policy.limits
    checks = guardrails.check_measure(measure, limits)
    if _refused_by(change, sent, checks):
        return
    command, place = sent.command, sent.command.place or ""
    name = mitigation_key(measure.key, place)
    want = Want(
        place=place,
        kind=measure.kind,
        prefix=measure.prefix,
        flow=measure.flow,
        effect=Effect(then=measure.then),
    )
    key = _own_key(name)
    reason = Reason(
        sensor=key.sensor,
        scope=key.scope,
        target=key.target,
        part=key.part,
        action="add",
        event_id=command.command_id[:_MAX_TEXT],
        received_at=sent.at,
        by=command.by,
        policy_digest=change.context.policy.digest,
        lease_ms=round(lease * 1000),
        wants=(want,),
        producer_version=__version__,
    )
    before = change.state.mitigations.get(name)
    if before is not None and before.record.state == SUPPRESSED:
        lifted = replace(before.record, state=ENDED, ended_because=BY_OPERATOR)
        change.put_mitigation(name, lifted, change.moment.clock)
    change.put_reason(key, reason, holds=True)
    _decide(change, sent, name, "added", reason=reason, checks=checks)


def _pause(change: Transition, sent: ReceivedCommand) -> None:
    _mask(change, sent, WANTED, "paused")


def _resume(change: Transition, sent: ReceivedCommand) -> None:
    _mask(change, sent, ENDED, "resumed")


_VERBS: Final[Mapping[str, Callable[[Transition, ReceivedCommand], None]]] = {
    "approve": _approve,
    "reject": _reject,
    "withdraw": _withdraw,
    "add": _add,
    "pause": _pause,
    "resume": _resume,
}


def ordered_measure(command: Command) -> tuple[Measure, float]:
    """Return the measure that an `add` asks for, and its lease in seconds.

    Raises:
        ValueError, InvalidRecord: a field is missing or wrong; the text names it.
    """
    if command.kind not in KINDS:
        raise ValueError(f"kind: expected {', '.join(KINDS)}, got {command.kind}")
    lease = DEFAULT_LEASE if command.lease_ms is None else command.lease_ms / 1000
    if not MIN_LEASE <= lease <= MAX_LEASE:
        raise ValueError(
            f"lease: expected {MIN_LEASE:.0f} s to {MAX_LEASE:.0f} s, got {lease:g} s"
        )
    if command.kind != FLOWSPEC:
        if not command.prefix:
            raise ValueError("prefix: expected a network")
        measure = Measure(kind=command.kind, prefix=command.prefix)
    elif command.flow is None or command.then is None:
        raise ValueError("flow, then: expected for a FlowSpec mitigation")
    else:
        flow = canonical(command.flow)
        measure = Measure(kind=FLOWSPEC, flow=flow, then=command.then)
    validate_measure(measure)
    places = known_enforcers()
    if command.place and command.place not in places:
        raise ValueError(
            f"place: expected {' or '.join(places)}, got {command.place:.40}"
        )
    return measure, lease


def _own_key(name: str) -> ReasonKey:
    return ReasonKey("", OPERATOR, name, OPERATOR)


def _named(change: Transition, name: str) -> tuple[Network, ...]:
    """Return the prefixes that the actions of a mitigation's reasons name."""
    demand = change.state.demands.get(name)
    prefixes: dict[Network, None] = {}
    seen = set()
    for key in demand or ():
        entry = change.state.reasons[key]
        want = entry.reason.wants[entry.keys.index(name)]
        source = entry.reason.rule, entry.reason.hostgroup, want.fallback
        if source not in seen:
            seen.add(source)
            policy = change.context.policy
            action = action_of(policy, entry.reason, fallback=want.fallback)
            prefixes |= dict.fromkeys(action.prefixes if action else ())
    return tuple(prefixes)


def _entry(
    change: Transition, sent: ReceivedCommand, *states: str
) -> MitigationEntry | None:
    """Return the mitigation that a command names, if it is in one of *states*.

    A command that was sent before the mitigation began is about an earlier one.
    """
    key = sent.command.key or ""
    entry = change.state.mitigations.get(key)
    if entry is None or entry.record.kind == PAUSE:
        refuse(change, sent, "unknown_key", f"there is no mitigation {key[:200]}")
    elif entry.record.state not in states:
        text = f"{key} is {entry.record.state}, expected {' or '.join(states)}"
        refuse(change, sent, "state", text)
    elif sent.at < entry.record.created_at - _TOLERANCE:
        text = (
            f"it was sent at {sent.at:%F %T} UTC, before {key} began at"
            f" {entry.record.created_at:%F %T}; send it again if it is about that, too"
        )
        refuse(change, sent, "too_old", text)
    else:
        return entry
    return None


def _refused_by(
    change: Transition, sent: ReceivedCommand, checks: tuple[Check, ...]
) -> bool:
    bad = [check for check in checks if check.verdict == REFUSE]
    if bad:
        text = "; ".join(f"{check.name}: {check.text}" for check in bad)
        _answer(change, sent, "refused", text, code=bad[0].code, checks=checks)
    return bool(bad)


def _decide(  # noqa: PLR0913 - what an answer holds
    change: Transition,
    sent: ReceivedCommand,
    name: str,
    word: str,
    *,
    reason: Reason | None = None,
    checks: tuple[Check, ...] = (),
) -> None:
    """Compute a mitigation again after a person's decision, and answer with it."""
    command = sent.command
    text = f"{word} by {command.by}: {command.why}"
    cause = ChangeCause(text=text, ended_because=BY_OPERATOR, by=command.by)
    if reason is not None:
        of_want = cause_of(reason)
        cause = replace_cause(of_want, text=text, by=command.by)
    state = change.recompute(name, cause)
    if not state:
        change.rollback()
        refuse(change, sent, "too_many_proposals", "too many mitigations are proposed")
        return
    record = change.state.mitigations[name].record
    held = f"; held by {', '.join(record.held_by)}" if record.held_by else ""
    what = word if word == "approved" and state == WANTED else state
    _answer(change, sent, what, f"{text}{held}", key=name, checks=checks)


def _mask(change: Transition, sent: ReceivedCommand, state: str, word: str) -> None:
    command, now = sent.command, change.moment.now
    text = f"All mitigations {word} by {command.by}: {command.why}"
    old = change.state.mitigations.get(PAUSE)
    record = Mitigation(
        kind=PAUSE,
        state=state,
        created_at=now,
        revision=(old.record.revision if old else 0) + 1,
        cause=text,
        by=command.by,
        command_offset=sent.offset,
    )
    change.put_mitigation(PAUSE, record, change.moment.clock)
    _answer(change, sent, word, text, key=PAUSE)


def _answer(  # noqa: PLR0913 - what an audit record holds
    change: Transition,
    sent: ReceivedCommand,
    what: str,
    text: str,
    *,
    code: str = "",
    key: str | None = None,
    checks: tuple[Check, ...] = (),
) -> None:
    command = sent.command
    change.report(
        what,
        text,
        code=code,
        key=key or (command.key or "")[:_MAX_KEY] or None,
        by=command.by[:_MAX_TEXT] or "unknown",
        event_id=command.command_id[:_MAX_TEXT],
        checks=checks,
    )
