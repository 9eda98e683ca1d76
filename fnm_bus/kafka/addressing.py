"""The topic, key, headers and id of a record."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_network
from typing import Final
from urllib.parse import quote
from uuid import UUID, uuid5

from fnm_bus.event import (
    AnyRecord,
    Audit,
    Command,
    Event,
    FlowSpecRule,
    HostEvent,
    HostgroupEvent,
    Reason,
    StatusEvent,
)

_NAMESPACE: Final = UUID("6f9d3f0a-3f0c-5c55-9b0a-6a1d2f7b8c4e")
"""Namespace of our ids (RFC 9562, section 5.5). Never change it."""

_NO_MATCH: Final = frozenset({"uuid", "action", "action_type", "ipv4_nexthops"})
"""Fields of a Flow Spec rule that are not part of its match."""
_PREFIXES: Final = frozenset({"source_prefix", "destination_prefix"})
_ADDRESSES: Final = _PREFIXES | {"agent_addresses"}
_UNUSUAL: Final = re.compile(r"[^a-z0-9_]+")
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Topics:
    """The names of the topics.

    Attributes:
        host: bans and unbans of hosts, and of their Flow Spec rules.
        hostgroup: bans and unbans of hostgroups.
        status: FastNetMon's regular updates of each attack.
        reason: the reasons of mitigations, compacted.
        mitigation: the wanted state, compacted.
        command: commands of operators and programs to the mitigator.
        audit: decisions, and actions of enforcers.
        deadletter: documents and records that could not be processed.
    """

    host: str = "fastnetmon.host.v1"
    hostgroup: str = "fastnetmon.hostgroup.v1"
    status: str = "fastnetmon.status.v1"
    reason: str = "fastnetmon.reason.v1"
    mitigation: str = "fastnetmon.mitigation.v1"
    command: str = "fastnetmon.command.v1"
    audit: str = "fastnetmon.audit.v1"
    deadletter: str = "fastnetmon.deadletter.v1"

    def of_events(self) -> Mapping[str, str]:
        """Return topic → full name of its records, for the topics of events."""
        return {
            self.host: "fastnetmon.HostEvent",
            self.hostgroup: "fastnetmon.HostgroupEvent",
            self.status: "fastnetmon.StatusEvent",
        }

    def of_framed(self) -> Mapping[str, str]:
        """Return topic → full name of its records, for topics with registered schemas.

        Their records have Confluent's framing if the schema id is pinned.
        """
        return {
            **self.of_events(),
            self.audit: "fastnetmon.Audit",
            self.deadletter: "fastnetmon.DeadLetter",
        }

    def of_all(self) -> Mapping[str, str]:
        """Return topic → full name of its records, for all topics."""
        return {
            **self.of_framed(),
            self.reason: "fastnetmon.Reason",
            self.mitigation: "fastnetmon.Mitigation",
            self.command: "fastnetmon.Command",
        }


def event_id(sensor: str, entry: str) -> str:
    """Return the UUIDv5 of a notification, from its sensor and its spool entry.

    An entry that is published twice has one id; two bans of a host have two.
    """
    return str(uuid5(_NAMESPACE, f"{sensor}/{entry}"))


def derived_id(*parts: str | int) -> str:
    """Return the UUIDv5 of a record's identity, for `headers_for`.

    Args:
        parts: the identity, for example topic, partition and offset of the record that
            a dead letter is about. The order of the parts matters.
    """
    return str(uuid5(_NAMESPACE, json.dumps(parts)))


def topic_of(event: Event, topics: Topics) -> str:
    """Return the topic of *event*."""
    match event:
        case HostEvent():
            return topics.host
        case HostgroupEvent():
            return topics.hostgroup
        case StatusEvent():
            return topics.status


def subject_of(event: Event) -> str:
    """Return the target of *event*: an address in canonical text, or a hostgroup."""
    match event:
        case HostEvent(ip=ip):
            return ip
        case HostgroupEvent(hostgroup_name=name):
            return name
        case StatusEvent(ip=ip, hostgroup_name=name):
            return ip or name or ""


def scope_of(event: Event) -> str:
    """Return "host" or "hostgroup"."""
    match event:
        case HostEvent():
            return "host"
        case HostgroupEvent():
            return "hostgroup"
        case StatusEvent(ip=ip):
            return "host" if ip else "hostgroup"


def key_of(event: Event) -> bytes:
    """Return the key: events of one target share a partition and keep their order."""
    return subject_of(event).encode()


def headers_of(event: Event) -> tuple[tuple[str, bytes], ...]:
    """Return the CloudEvents attributes of *event*, in Kafka's binary mode.

    (CloudEvents 1.0.2, Kafka protocol binding, section 3.2.) `traceparent` follows
    them.
    """
    receipt = event.receipt
    return _headers(
        receipt.event_id,
        _source(receipt.sensor),
        _type(scope_of(event), event.action),
        receipt.received_at,
        receipt.event_id,
    )


def headers_for(
    record: AnyRecord, source: str, record_id: str, at: datetime
) -> tuple[tuple[str, bytes], ...]:
    """Return the CloudEvents attributes of any record, in Kafka's binary mode.

    For an event the result is that of `headers_of`; the other arguments are ignored.
    A reason and an audit record have the `traceparent` of the event or the command
    that caused them. Mitigations have none: several events may want a measure.

    Args:
        record: the record; its type gives `ce_type`, such as
            `fastnetmon.mitigation` or `fastnetmon.deadletter`.
        source: name of the program that writes the record.
        record_id: unique among the records of *source*; equal if a record is published
            again.
        at: time of the record; a time without a zone counts as UTC.
    """
    if isinstance(record, Event):
        return headers_of(record)
    return _headers(
        record_id,
        f"/fnm-bus/{quote(source, safe='')}".encode(),
        f"fastnetmon.{type(record).__name__.lower()}".encode(),
        at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC),
        _cause_of(record),
    )


def _cause_of(record: AnyRecord) -> str | None:
    """Return the identifier of the event or the command behind *record*."""
    match record:
        case Audit() | Reason():
            return record.event_id
        case Command():
            return record.command_id
    return None


def traceparent(event_id: str) -> bytes | None:
    """Return the trace context of an event: the trace id is its event id.

    (W3C Trace Context, section 3.2.) It is the same in each program and after each
    repetition, so traces join without a library. The parent id is the second half of
    the event id, and the trace is marked as sampled.

    Returns:
        None if *event_id* is not a UUID in lower case.
    """
    if not _UUID.fullmatch(event_id):
        return None
    trace = event_id.replace("-", "")
    parent = trace[16:]
    # An id of zeros is invalid, and a UUID has its variant in the second half.
    return f"00-{trace}-{parent}-01".encode() if parent.strip("0") else None


def _headers(
    id_: str, source: bytes, kind: bytes, at: datetime, cause: str | None
) -> tuple[tuple[str, bytes], ...]:
    context = traceparent(cause) if cause else None
    return (
        ("ce_specversion", b"1.0"),
        ("ce_id", id_.encode()),
        ("ce_source", source),
        ("ce_type", kind),
        ("ce_time", at.isoformat().replace("+00:00", "Z").encode()),
        ("content-type", b"application/avro"),
        *((("traceparent", context),) if context else ()),
    )


def rule_identity(rule: FlowSpecRule) -> str:
    """Return the identity of a Flow Spec rule: its uuid, or its canonical match.

    The canonical match is JSON text on one line. It does not depend on order and
    spelling: lists are sorted and without duplicates, prefixes are networks in
    canonical text, words are lower case, joined TCP flags are sorted. The rule's action
    is not part of its identity.
    """
    if rule.uuid:
        return rule.uuid
    match: dict[str, object] = {}
    for name in rule.__struct_fields__:
        value = getattr(rule, name)
        if not value or name in _NO_MATCH:
            continue
        if isinstance(value, tuple):
            match[name] = sorted({_canonical(name, item) for item in value})
        else:
            match[name] = _canonical(name, value)
    return json.dumps(match, sort_keys=True, separators=(",", ":"))


def _canonical(name: str, value: int | str) -> int | str:
    if isinstance(value, int):
        return value
    if name not in _ADDRESSES:
        return "|".join(sorted(value.lower().split("|")))
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        return value  # unchanged: two invalid values must not become equal
    return str(network if name in _PREFIXES else network.network_address)


@lru_cache(maxsize=64)
def _source(sensor: str) -> bytes:
    # A URI reference: RFC 3986 allows few characters unquoted.
    return f"/fastnetmon/{quote(sensor, safe='')}".encode()


@lru_cache(maxsize=256)
def _type(scope: str, action: str) -> bytes:
    return f"fastnetmon.{scope}.{_UNUSUAL.sub('_', action.lower())}".encode()
