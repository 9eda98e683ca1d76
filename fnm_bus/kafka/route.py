"""Where a record goes: its topic, its key, its headers and its id."""

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
    Event,
    FlowSpecRule,
    HostEvent,
    HostgroupEvent,
    StatusEvent,
)

_NAMESPACE: Final = UUID("6f9d3f0a-3f0c-5c55-9b0a-6a1d2f7b8c4e")
"""Namespace of our ids (RFC 9562, section 5.5). Never to be changed."""

_NO_MATCH: Final = frozenset({"uuid", "action", "action_type", "ipv4_nexthops"})
"""Fields of a Flow Spec rule that say what it does, not what it matches."""
_PREFIXES: Final = frozenset({"source_prefix", "destination_prefix"})
_ADDRESSES: Final = _PREFIXES | {"agent_addresses"}
_UNUSUAL: Final = re.compile(r"[^a-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Topics:
    """The names of the topics.

    Attributes:
        host: bans and unbans of hosts, and of their Flow Spec rules.
        hostgroup: bans and unbans of hostgroups.
        status: what FastNetMon says every few seconds of each attack.
        reason: who wants which measures, compacted.
        mitigation: the wanted state, compacted.
        command: what people ask of the mitigator.
        audit: what was decided and done.
        deadletter: what could not be understood.
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
        """Return topic → full name of the record that stands on it, for the events."""
        return {
            self.host: "fastnetmon.HostEvent",
            self.hostgroup: "fastnetmon.HostgroupEvent",
            self.status: "fastnetmon.StatusEvent",
        }

    def of_framed(self) -> Mapping[str, str]:
        """Return topic → full name for every topic whose records a registry describes.

        These are registered, and have Confluent's framing where their id is pinned.
        """
        return {
            **self.of_events(),
            self.audit: "fastnetmon.Audit",
            self.deadletter: "fastnetmon.DeadLetter",
        }


def event_id(sensor: str, entry: str) -> str:
    """Return the UUIDv5 of a notification: of its sensor and its file in the spool.

    The same file published twice has the same id; two bans of one host never do.
    """
    return str(uuid5(_NAMESPACE, f"{sensor}/{entry}"))


def derived_id(*parts: str | int) -> str:
    """Return the UUIDv5 of what identifies a record, for `headers_for`.

    Args:
        parts: for example topic, partition and offset of what the record is about. The
            same parts have the same id; parts in another order have another.
    """
    return str(uuid5(_NAMESPACE, json.dumps(parts)))


def topic_of(event: Event, topics: Topics) -> str:
    """Return the topic that *event* goes to."""
    match event:
        case HostEvent():
            return topics.host
        case HostgroupEvent():
            return topics.hostgroup
        case StatusEvent():
            return topics.status


def subject_of(event: Event) -> str:
    """Return what *event* is about: an address in canonical text, or a hostgroup."""
    match event:
        case HostEvent(ip=ip):
            return ip
        case HostgroupEvent(hostgroup_name=name):
            return name
        case StatusEvent(ip=ip, hostgroup_name=name):
            return ip or name or ""


def scope_of(event: Event) -> str:
    """Return "host" or "hostgroup", however FastNetMon spelled it."""
    match event:
        case HostEvent():
            return "host"
        case HostgroupEvent():
            return "hostgroup"
        case StatusEvent(ip=ip):
            return "host" if ip else "hostgroup"


def key_of(event: Event) -> bytes:
    """Return the key: events of one target share a partition, so they keep an order."""
    return subject_of(event).encode()


def headers_of(event: Event) -> tuple[tuple[str, bytes], ...]:
    """Return the CloudEvents attributes of *event*, in Kafka's binary mode.

    (CloudEvents 1.0.2, Kafka protocol binding, section 3.2.)
    """
    receipt = event.receipt
    return _headers(
        receipt.event_id,
        _source(receipt.sensor),
        _type(scope_of(event), event.action),
        receipt.received_at,
    )


def headers_for(
    record: AnyRecord, source: str, record_id: str, at: datetime
) -> tuple[tuple[str, bytes], ...]:
    """Return the CloudEvents attributes of any record, in Kafka's binary mode.

    An event has those of `headers_of`, whatever the other arguments are.

    Args:
        record: what the headers are for; its kind gives `ce_type`, such as
            `fastnetmon.mitigation` or `fastnetmon.deadletter`.
        source: name of the program that wrote the record.
        record_id: unique among the records of *source*; the same when the same record
            is published again.
        at: when the record was made; a time without a zone counts as UTC.
    """
    if isinstance(record, Event):
        return headers_of(record)
    return _headers(
        record_id,
        f"/fnm-bus/{quote(source, safe='')}".encode(),
        f"fastnetmon.{type(record).__name__.lower()}".encode(),
        at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC),
    )


def _headers(
    id_: str, source: bytes, kind: bytes, at: datetime
) -> tuple[tuple[str, bytes], ...]:
    return (
        ("ce_specversion", b"1.0"),
        ("ce_id", id_.encode()),
        ("ce_source", source),
        ("ce_type", kind),
        ("ce_time", at.isoformat().replace("+00:00", "Z").encode()),
        ("content-type", b"application/avro"),
    )


def rule_identity(rule: FlowSpecRule) -> str:
    """Return what names a Flow Spec rule: its uuid, or its match in canonical form.

    The canonical match is JSON text on one line. Two documents that match the same in
    another order or spelling name one rule: lists are sorted and without duplicates,
    prefixes are networks in canonical text, words are lower case, TCP flags that are
    joined are sorted. What is done with a match does not belong to it.
    """
    if rule.uuid:
        return rule.uuid
    match: dict[str, object] = {}
    for name in rule.__struct_fields__:
        value = getattr(rule, name)
        if not value or name in _NO_MATCH:
            continue
        if isinstance(value, tuple):
            match[name] = sorted({_canonical(name, it) for it in value})
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
        return value  # as sent: no rule is like another because both are odd
    return str(network if name in _PREFIXES else network.network_address)


@lru_cache(maxsize=64)
def _source(sensor: str) -> bytes:
    # A URI reference: RFC 3986 leaves few characters as they are.
    return f"/fastnetmon/{quote(sensor, safe='')}".encode()


@lru_cache(maxsize=256)
def _type(scope: str, action: str) -> bytes:
    return f"fastnetmon.{scope}.{_UNUSUAL.sub('_', action.lower())}".encode()
