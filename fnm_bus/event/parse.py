"""A notification becomes an event, or an `InvalidNotification`.

Action, scope, target (`ip` or `hostgroup_name`), and the shape of `attack_details` and
`flow_spec_rules` are strict. A fault in any other field never prevents an event:
unknown and misfit values travel in the event's `extra`.

An empty list of a Flow Spec rule matches anything. If `extra` has a value below the
path of a rule (`/flow_spec_rules/0/...`), the rule in the event may match more than
FastNetMon's. Programs that act on rules have to check this.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from msgspec import UNSET, Struct

from fnm_bus.errors import InvalidNotification
from fnm_bus.event import json_document, text_report
from fnm_bus.event.extra import ExtraFields, FieldMismatch, child_pointer, describe
from fnm_bus.event.identifiers import parse_address, parse_name, parse_network
from fnm_bus.event.json_document import MAX_DOCUMENT
from fnm_bus.event.optional_fields import Reader, field_readers, read_record, read_texts
from fnm_bus.event.packet_samples import read_samples
from fnm_bus.event.types import (
    AttackDetails,
    Event,
    FlowSpecRule,
    HostEvent,
    HostgroupEvent,
    HostgroupNetwork,
    Receipt,
    StatusEvent,
)

__all__ = ["MAX_DOCUMENT", "FieldMismatch", "Parsed", "parse"]

STATUS = "attack_status"
HOST_SCOPES = frozenset({"", "host", "per_host"})
HOSTGROUP_SCOPE = "hostgroup"
MAX_MEMBERS = 50_000
"""Largest number of Flow Spec rules, and of hostgroup networks, in one document."""

_COMMON = frozenset(
    {
        "action",
        "alert_scope",
        "attack_details",
        "packet_dump",
        "packet_dump_detailed",
        "flow_spec_rules",
    }
)
_HOST = _COMMON | {"ip"}
_HOSTGROUP = _COMMON | {
    "hostgroup_name",
    "parent_hostgroup_name",
    "hostgroup_networks",
}
_ANY_SCOPE = _HOST | _HOSTGROUP
_OURS = frozenset({"receipt", "text_mode", "truncated", "extra"})
"""Fields of an event that no document sets."""
_EMPTY: tuple[Any, ...] = (None, "", [])


class Parsed(NamedTuple):
    """An event, and its mismatches with the schemas.

    Attributes:
        event: frozen and valid; its `extra` has the values without a field.
        mismatches: secondary values that do not fit their field, sorted by path.
    """

    event: Event
    mismatches: tuple[FieldMismatch, ...]


def parse(document: bytes, arguments: Sequence[str], receipt: Receipt) -> Parsed:
    """Turn one notification into an event.

    The content decides between JSON and text mode. In JSON mode the arguments have no
    effect; they are in the receipt.

    Args:
        document: FastNetMon's bytes on standard input, at most `MAX_DOCUMENT`.
        arguments: the call's arguments, without the program's name.
        receipt: becomes the event's receipt.

    Raises:
        InvalidNotification: it can never become an event; the error has the field, the
            expected and the actual value.
    """
    extra = ExtraFields()
    event: Event
    if len(document) <= MAX_DOCUMENT and text_report.is_text_mode(document, arguments):
        event = text_report.read_text_report(document, arguments, receipt, extra)
    else:
        try:
            fields = json_document.load(document)
        except InvalidNotification as error:
            if text_report.is_report(document):
                raise text_report.missing_arguments(arguments) from error
            raise
        event = _read_event(fields, receipt, extra)
    return Parsed(event, tuple(sorted(extra.mismatches)))


def _read_event(fields: dict[str, Any], receipt: Receipt, extra: ExtraFields) -> Event:
    action = _required(fields, "action", "an action")
    action = parse_name(action, "/action", "an action")
    scope, is_host = _read_scope(fields.get("alert_scope"))
    target = _read_host(fields) if is_host else _read_hostgroup(fields, extra)
    details = _read_details(fields.get("attack_details"), extra)
    rules = _read_rules(fields.get("flow_spec_rules"), extra)
    lines = read_texts(fields.get("packet_dump"), "/packet_dump", extra)
    packets = read_samples(
        fields.get("packet_dump_detailed"), "/packet_dump_detailed", extra
    )
    kind: type[HostEvent | HostgroupEvent | StatusEvent] = (
        HostEvent if is_host else HostgroupEvent
    )
    if action == STATUS:
        kind = StatusEvent
    names = _HOST if is_host else _HOSTGROUP
    if not names >= fields.keys():
        optional = _optional_readers(kind)
        _keep_unknown(fields, names | optional.keys(), extra)
        for name, read in optional.items():
            value = read(fields.get(name), child_pointer("", name), extra)
            if value is not UNSET:
                target[name] = value
    return kind(
        receipt=receipt,
        action=action,
        alert_scope=scope,
        attack_details=details,
        packet_dump=lines,
        packet_dump_detailed=packets,
        flow_spec_rules=rules,
        # Sorted, so that the order of keys in the document has no effect.
        extra=dict(sorted(extra.values.items())) if extra.values else {},
        **target,
    )


@cache
def _optional_readers(kind: type[Struct]) -> Mapping[str, Reader]:
    """Return how to read the fields of a document that need no code of their own."""
    handled = _ANY_SCOPE | _OURS
    readers = field_readers(kind)
    return {name: readers[name] for name in readers.keys() - handled}


def _read_scope(value: Any) -> tuple[str | None, bool]:
    """Return the original scope (None if empty), and whether it is a host's.

    An unknown scope is refused: taking its target for a host could block the wrong one.
    The quarantine keeps the notification.
    """
    if value is None:
        return None, True
    if type(value) is str:
        if value in HOST_SCOPES:
            return value or None, True
        if value == HOSTGROUP_SCOPE:
            return value, False
    raise InvalidNotification(
        "/alert_scope", "host, per_host, hostgroup or nothing", describe(value)
    )


def _read_host(fields: dict[str, Any]) -> dict[str, Any]:
    ip = _required(fields, "ip", "the address of a host")
    return {"ip": parse_address(ip, "/ip")}


def _read_hostgroup(fields: dict[str, Any], extra: ExtraFields) -> dict[str, Any]:
    expected = "the name of a hostgroup"
    name = _required(fields, "hostgroup_name", expected)
    parent = fields.get("parent_hostgroup_name")
    if parent is not None and type(parent) is not str:
        extra.add_misfit("/parent_hostgroup_name", "text", parent)
        parent = None
    return {
        "hostgroup_name": parse_name(name, "/hostgroup_name", expected),
        "parent_hostgroup_name": parent or None,
        "hostgroup_networks": _read_networks(fields.get("hostgroup_networks"), extra),
    }


def _read_networks(value: Any, extra: ExtraFields) -> tuple[HostgroupNetwork, ...]:
    path = "/hostgroup_networks"
    if value is None:
        return ()
    if type(value) is not list or len(value) > MAX_MEMBERS:
        extra.add_misfit(path, f"a list of at most {MAX_MEMBERS} networks", value)
        return ()
    networks: list[HostgroupNetwork] = []
    for index, sent in enumerate(value):
        if type(sent) is not str:
            extra.add_misfit(child_pointer(path, index), "a network as text", sent)
            continue
        canonical = parse_network(sent)
        if canonical is None:
            kept_in = f"hostgroup_networks[{len(networks)}].sent"
            extra.add_mismatch(
                child_pointer(path, index), "a network", describe(sent), kept_in
            )
        networks.append(HostgroupNetwork(sent=sent, network=canonical))
    return tuple(networks)


def _read_details(value: Any, extra: ExtraFields) -> AttackDetails | None:
    path = "/attack_details"
    if value is None:
        return None
    if type(value) is not dict:
        raise InvalidNotification(path, "an object", describe(value))
    return read_record(AttackDetails, value, path, extra)


def _read_rules(value: Any, extra: ExtraFields) -> tuple[FlowSpecRule, ...]:
    path = "/flow_spec_rules"
    if value is None:
        return ()
    if type(value) is not list or len(value) > MAX_MEMBERS:
        expected = f"a list of at most {MAX_MEMBERS} objects"
        raise InvalidNotification(path, expected, describe(value))
    for index, rule in enumerate(value):
        if type(rule) is not dict:
            raise InvalidNotification(
                child_pointer(path, index), "an object", describe(rule)
            )
    return tuple(
        read_record(FlowSpecRule, rule, child_pointer(path, index), extra)
        for index, rule in enumerate(value)
    )


def _keep_unknown(
    fields: dict[str, Any], names: frozenset[str], extra: ExtraFields
) -> None:
    for name in fields.keys() - names:
        # Third-party fixtures have empty hostgroup fields in host documents: absent.
        if name not in _ANY_SCOPE or fields[name] not in _EMPTY:
            extra.add_unknown(child_pointer("", name), fields[name])


def _required(fields: dict[str, Any], name: str, expected: str) -> Any:
    if name not in fields:
        raise InvalidNotification(child_pointer("", name), expected, "nothing")
    return fields[name]
