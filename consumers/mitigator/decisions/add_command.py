"""Add command: an operator's own mitigation."""

from typing import Final

from msgspec.structs import replace

from consumers.mitigation.enforcer_names import ENFORCERS
from consumers.mitigation.measure import (
    FLOWSPEC,
    KINDS,
    Measure,
    canonical,
    validate_measure,
)
from consumers.mitigation.reason_key import mitigation_key
from consumers.mitigation.states import ENDED, SUPPRESSED
from consumers.mitigation.states import OPERATOR as BY_OPERATOR
from consumers.mitigator.decisions.received_command import (
    MAX_TEXT,
    ReceivedCommand,
    apply_decision,
    is_refused,
    operator_key,
    refuse_command,
)
from consumers.mitigator.state.recompute import put_mitigation
from consumers.mitigator.state.transition import Transition
from consumers.policy import guardrails
from consumers.policy.model import MAX_LEASE, MIN_LEASE
from fnm_bus import __version__
from fnm_bus.errors import InvalidRecord
from fnm_bus.event import Command, Effect, Reason, Want

DEFAULT_LEASE: Final = 900.0


def add(transition: Transition, received: ReceivedCommand) -> None:
    """Add an operator's reason, and lift a suppression of its mitigation."""
    command, policy = received.command, transition.context.policy
    try:
        measure, lease = measure_of_command(command)
    except (InvalidRecord, ValueError) as exc:
        refuse_command(transition, received, "invalid", str(exc))
        return
    checks = guardrails.check_measure(measure, policy.limits)
    if is_refused(transition, received, checks):
        return
    place = command.place or ""
    key = mitigation_key(measure.key, place)
    want = Want(
        place=place,
        kind=measure.kind,
        prefix=measure.prefix,
        flow=measure.flow,
        effect=Effect(then=measure.then),
    )
    reason_key = operator_key(key)
    reason = Reason(
        sensor=reason_key.sensor,
        scope=reason_key.scope,
        target=reason_key.target,
        part=reason_key.part,
        action="add",
        event_id=command.command_id[:MAX_TEXT],
        received_at=received.at,
        by=command.by,
        policy_digest=policy.digest,
        lease_ms=round(lease * 1000),
        wants=(want,),
        producer_version=__version__,
    )
    entry = transition.state.mitigations.get(key)
    if entry is not None and entry.record.state == SUPPRESSED:
        record = replace(entry.record, state=ENDED, ended_because=BY_OPERATOR)
        put_mitigation(transition, key, record, transition.moment.clock)
    transition.put_reason(reason_key, reason, active=True)
    apply_decision(transition, received, key, "added", reason=reason, checks=checks)


def measure_of_command(command: Command) -> tuple[Measure, float]:
    """Return the measure of an `add`, and its lease in seconds.

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
    places = ENFORCERS
    if command.place and command.place not in places:
        raise ValueError(
            f"place: expected {' or '.join(places)}, got {command.place:.40}"
        )
    return measure, lease
