"""A notification becomes an event, or a reason why it cannot.

What decides is strict: action, scope, the subject (`ip` or `hostgroup_name`), the
shape of `attack_details` and of `flow_spec_rules`. The rest never costs a ban: what is
unknown or does not fit travels in the event's `extra`.

A Flow Spec rule with anything in `extra` below its path (`/flow_spec_rules/0/...`) may
match more in the event than FastNetMon meant, for an empty list matches anything:
whoever acts on rules must look.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from msgspec import UNSET, Struct

from fnm_bus.errors import InvalidNotification
from fnm_bus.event import json_document
from fnm_bus.event import text_report as text
from fnm_bus.event.extra import ExtraFields, FieldMismatch, describe, step
from fnm_bus.event.identifiers import address, network, word
from fnm_bus.event.json_document import MAX_DOCUMENT
from fnm_bus.event.optional_fields import Reader, readers, record, texts
from fnm_bus.event.packet_samples import samples
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
"""How many Flow Spec rules, or hostgroup networks, one document may hold."""

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
_SUBJECTS = _HOST | _HOSTGROUP
_OURS = frozenset({"receipt", "text_mode", "truncated", "extra"})
"""Fields of an event that no document sets."""
_EMPTY: tuple[Any, ...] = (None, "", [])


class Parsed(NamedTuple):
    """An event, and what in it was not as the schemas say.

    Attributes:
        event: frozen and valid; its `extra` holds what no field could take.
        drift: one entry for each secondary value that did not fit, in order of path.
    """

    event: Event
    drift: tuple[FieldMismatch, ...]


def parse(document: bytes, arguments: Sequence[str], receipt: Receipt) -> Parsed:
    """Turn one notification into an event, or say exactly what is wrong.

    JSON and text mode are told apart by content. In JSON mode the arguments do not
    matter; they are in the receipt.

    Args:
        document: what FastNetMon wrote to standard input, at most `MAX_DOCUMENT` bytes.
        arguments: the call's arguments, without the program's name.
        receipt: goes into the event as it is.

    Raises:
        InvalidNotification: it can never become an event; field, wanted and got tell.
    """
    aside = ExtraFields()
    event: Event
    if len(document) <= MAX_DOCUMENT and text.is_text(document, arguments):
        event = text.read(document, arguments, receipt, aside)
    else:
        try:
            fields = json_document.load(document)
        except InvalidNotification as error:
            if text.is_report(document):
                raise text.no_arguments(arguments) from error
            raise
        event = _event(fields, receipt, aside)
    return Parsed(event, tuple(sorted(aside.drift)))


def _event(fields: dict[str, Any], receipt: Receipt, aside: ExtraFields) -> Event:
    action = word(_present(fields, "action", "an action"), "/action", "an action")
    scope, for_host = _scope(fields.get("alert_scope"))
    about = _host(fields) if for_host else _hostgroup(fields, aside)
    details = _details(fields.get("attack_details"), aside)
    rules = _rules(fields.get("flow_spec_rules"), aside)
    lines = texts(fields.get("packet_dump"), "/packet_dump", aside)
    packets = samples(
        fields.get("packet_dump_detailed"), "/packet_dump_detailed", aside
    )
    kind: type[HostEvent | HostgroupEvent | StatusEvent] = (
        HostEvent if for_host else HostgroupEvent
    )
    if action == STATUS:
        kind = StatusEvent
    handled = _HOST if for_host else _HOSTGROUP
    if not handled >= fields.keys():
        optional = _optional_readers(kind)
        _unknown(fields, handled | optional.keys(), aside)
        for name, read in optional.items():
            value = read(fields.get(name), step("", name), aside)
            if value is not UNSET:
                about[name] = value
    return kind(
        receipt=receipt,
        action=action,
        alert_scope=scope,
        attack_details=details,
        packet_dump=lines,
        packet_dump_detailed=packets,
        flow_spec_rules=rules,
        # Sorted, so that the order of keys in the document does not show.
        extra=dict(sorted(aside.extra.items())) if aside.extra else {},
        **about,
    )


@cache
def _optional_readers(kind: type[Struct]) -> Mapping[str, Reader]:
    """Return how to read the fields of a document that need no code of their own."""
    handled = _SUBJECTS | _OURS
    return {k: read for k, read in readers(kind).items() if k not in handled}


def _scope(value: Any) -> tuple[str | None, bool]:
    """Return the scope as sent (None when empty), and whether it is a host's.

    An unknown scope is refused: it would decide whom the event is about, and taking
    another subject for a host could block the wrong one. The quarantine keeps it.
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


def _host(fields: dict[str, Any]) -> dict[str, Any]:
    wanted = "the address of a host"
    return {"ip": address(_present(fields, "ip", wanted), "/ip")}


def _hostgroup(fields: dict[str, Any], aside: ExtraFields) -> dict[str, Any]:
    wanted = "the name of a hostgroup"
    name = _present(fields, "hostgroup_name", wanted)
    parent = fields.get("parent_hostgroup_name")
    if parent is not None and type(parent) is not str:
        aside.drifted("/parent_hostgroup_name", "text", parent)
        parent = None
    return {
        "hostgroup_name": word(name, "/hostgroup_name", wanted),
        "parent_hostgroup_name": parent or None,
        "hostgroup_networks": _networks(fields.get("hostgroup_networks"), aside),
    }


def _networks(value: Any, aside: ExtraFields) -> tuple[HostgroupNetwork, ...]:
    path = "/hostgroup_networks"
    if value is None:
        return ()
    if type(value) is not list or len(value) > MAX_MEMBERS:
        aside.drifted(path, f"a list of at most {MAX_MEMBERS} networks", value)
        return ()
    found: list[HostgroupNetwork] = []
    for index, sent in enumerate(value):
        if type(sent) is not str:
            aside.drifted(step(path, index), "a network as text", sent)
            continue
        canonical = network(sent)
        if canonical is None:
            kept = f"hostgroup_networks[{len(found)}].sent"
            aside.note(step(path, index), "a network", describe(sent), kept)
        found.append(HostgroupNetwork(sent=sent, network=canonical))
    return tuple(found)


def _details(value: Any, aside: ExtraFields) -> AttackDetails | None:
    path = "/attack_details"
    if value is None:
        return None
    if type(value) is not dict:
        raise InvalidNotification(path, "an object", describe(value))
    return record(AttackDetails, value, path, aside)


def _rules(value: Any, aside: ExtraFields) -> tuple[FlowSpecRule, ...]:
    path = "/flow_spec_rules"
    if value is None:
        return ()
    if type(value) is not list or len(value) > MAX_MEMBERS:
        wanted = f"a list of at most {MAX_MEMBERS} objects"
        raise InvalidNotification(path, wanted, describe(value))
    for index, rule in enumerate(value):
        if type(rule) is not dict:
            raise InvalidNotification(step(path, index), "an object", describe(rule))
    return tuple(
        record(FlowSpecRule, rule, step(path, index), aside)
        for index, rule in enumerate(value)
    )


def _unknown(fields: dict[str, Any], known: frozenset[str], aside: ExtraFields) -> None:
    for name in fields.keys() - known:
        # Third-party fixtures have empty hostgroup fields in host documents: absent.
        if name not in _SUBJECTS or fields[name] not in _EMPTY:
            aside.unknown(step("", name), fields[name])


def _present(fields: dict[str, Any], name: str, wanted: str) -> Any:
    if name not in fields:
        raise InvalidNotification(step("", name), wanted, "nothing")
    return fields[name]
