"""Summary: the fields of a record that both formats have."""

from datetime import datetime
from ipaddress import ip_address
from typing import NamedTuple

from consumers.mitigation.attack_size import bits_of, direction_of, pps_of
from fnm_bus.errors import InvalidNotification
from fnm_bus.event import (
    AttackDetails,
    Audit,
    Command,
    DeadLetter,
    Event,
    HostEvent,
    HostgroupEvent,
    Mitigation,
    Reason,
    StatusEvent,
)
from fnm_bus.event.identifiers import parse_address
from fnm_bus.kafka.addressing import scope_of, subject_of, traceparent
from fnm_bus.kafka.reader import ConsumedRecord

_PROTOCOLS = frozenset({"tcp", "udp", "icmp"})


class Summary(NamedTuple):
    """One record in the words of both formats; "" and None are absent values.

    Attributes:
        record_id: the event's id; for another record topic, partition and offset.
        at: the event's or the action's time; for another record the record's.
        kind: host, hostgroup, status, audit, mitigation, reason, command, deadletter
            or tombstone.
        action: FastNetMon's or the mitigator's word.
        text: the record as a sentence.
        sensor: the sensor behind the record.
        address: the attacked host, or the host that attacks, canonical text.
        direction: incoming, outgoing, another word of FastNetMon, or "".
        hostgroup: the attacked hostgroup, or the host's.
        protocol: tcp, udp or icmp; "" if none or another is reported.
        attack: the attack's UUID.
        pps: packets/s in the direction of the attack.
        bits: bit/s in the direction of the attack.
        actor: the program or the person that acted.
        code: the cause as a stable word.
        rule: the policy rule.
        mitigation: key of the mitigation.
        trace: identifier of the trace, the event's id without hyphens.
    """

    record_id: str
    at: datetime
    kind: str
    action: str = ""
    text: str = ""
    sensor: str = ""
    address: str = ""
    direction: str = ""
    hostgroup: str = ""
    protocol: str = ""
    attack: str = ""
    pps: int | None = None
    bits: int | None = None
    actor: str = ""
    code: str = ""
    rule: str = ""
    mitigation: str = ""
    trace: str = ""


def summarize(record: ConsumedRecord) -> Summary:
    """Return the summary of any record; a tombstone has a kind and nothing else."""
    position = f"{record.topic}/{record.partition}/{record.offset}"
    match record.event:
        case HostEvent() | HostgroupEvent() | StatusEvent() as event:
            summary = _of_event(event)
        case Audit() as audit:
            summary = _of_audit(audit, position)
        case Mitigation() as mitigation:
            summary = _of_mitigation(mitigation, position)
        case Reason() as reason:
            summary = _of_reason(reason, position, record.at)
        case Command() as command:
            summary = _of_command(command, position)
        case DeadLetter() as letter:
            summary = _of_dead_letter(letter, position)
        case None:
            summary = Summary(position, record.at, "tombstone")
    return summary


def _of_event(event: Event) -> Summary:
    details = event.attack_details or AttackDetails()
    receipt = event.receipt
    direction = direction_of(event)
    hostgroup = details.host_group or ""
    if not isinstance(event, HostEvent):
        hostgroup = event.hostgroup_name or hostgroup
    protocol = (details.attack_protocol or "").lower()
    return Summary(
        receipt.event_id,
        receipt.received_at,
        "status" if isinstance(event, StatusEvent) else scope_of(event),
        action=event.action,
        text=f"{receipt.sensor}: {event.action} of {subject_of(event)}",
        sensor=receipt.sensor,
        address=_address(subject_of(event)) if scope_of(event) == "host" else "",
        direction=direction,
        hostgroup=hostgroup,
        protocol=protocol if protocol in _PROTOCOLS else "",
        attack=details.attack_uuid or "",
        pps=pps_of(event, direction),
        bits=bits_of(event, direction),
        trace=_trace(receipt.event_id),
    )


def _of_audit(audit: Audit, position: str) -> Summary:
    return Summary(
        position,
        audit.at,
        "audit",
        action=audit.action,
        text=audit.text,
        sensor=audit.sensor or "",
        address=_address(audit.target or ""),
        actor=audit.by,
        code=audit.code,
        rule=audit.rule or "",
        mitigation=audit.key or "",
        trace=_trace(audit.event_id or ""),
    )


def _of_mitigation(mitigation: Mitigation, position: str) -> Summary:
    return Summary(
        position,
        mitigation.changed_at,
        "mitigation",
        action=mitigation.state,
        text=mitigation.cause,
        hostgroup=mitigation.hostgroup or "",
        actor=mitigation.by,
        code=mitigation.ended_because,
        mitigation=mitigation.key,
    )


def _of_reason(reason: Reason, position: str, at: datetime) -> Summary:
    return Summary(
        position,
        at,
        "reason",
        action=reason.action,
        sensor=reason.sensor,
        address=_address(reason.target),
        direction=reason.direction,
        hostgroup=reason.hostgroup or "",
        pps=reason.pps,
        bits=reason.bits,
        actor=reason.by,
        rule=reason.rule,
        trace=_trace(reason.event_id),
    )


def _of_command(command: Command, position: str) -> Summary:
    return Summary(
        position,
        command.requested_at,
        "command",
        action=command.verb,
        text=command.comment,
        actor=command.by,
        mitigation=command.key or "",
        trace=_trace(command.command_id),
    )


def _of_dead_letter(letter: DeadLetter, position: str) -> Summary:
    return Summary(
        position,
        letter.failed_at,
        "deadletter",
        text=letter.reason,
        sensor=letter.sensor or "",
        actor=letter.producer_name,
    )


def _address(target: str) -> str:
    """Return an address in canonical text; "" for a hostgroup and for no host.

    A SIEM drops a whole line if its address is invalid or has a zone.
    """
    try:
        address = parse_address(target, "/target")
    except InvalidNotification:
        return ""
    return "" if ip_address(address).is_unspecified else address


def _trace(cause: str) -> str:
    context = traceparent(cause)
    return context.decode().split("-")[1] if context else ""
