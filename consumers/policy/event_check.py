"""Check of an event: whether our parser could have made it.

Only the fields that decisions depend on are checked. The JSON type comes first:
`ip_address(7)` is 0.0.0.7.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from consumers.mitigation.flow_match import invalid
from fnm_bus.errors import InvalidNotification, InvalidRecord
from fnm_bus.event import AttackDetails, Event, HostEvent, HostgroupEvent, StatusEvent
from fnm_bus.event.identifiers import parse_address, parse_network
from fnm_bus.event.parse import MAX_MEMBERS

MAX_SEQUENCE: Final = 2**53 - 1
"""Larger numbers are rounded by JavaScript and jq."""
MAX_NAME: Final = 255
"""Characters of a name or word."""

_INT64: Final = 2**63 - 1
_UNFIT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_WORDS: Final = (
    *("attack_uuid", "attack_severity", "attack_direction", "attack_protocol"),
    *("attack_detection_threshold", "attack_detection_threshold_direction"),
    "host_group",
)
_NUMBERS: Final = tuple(
    f"total_{direction}_{unit}"
    for direction in ("incoming", "outgoing")
    for unit in ("traffic", "traffic_bits", "pps")
)


def validate_event(event: Event) -> None:
    """Check the fields of an event that become facts.

    Raises:
        InvalidRecord: the text names the first invalid field.
    """
    receipt = event.receipt
    _validate_name("receipt.sensor", receipt.sensor)
    _validate_name("receipt.event_id", receipt.event_id)
    _validate_name("action", event.action)
    _validate_number("receipt.sequence", receipt.sequence, MAX_SEQUENCE)
    received_at = receipt.received_at
    if not isinstance(received_at, datetime) or received_at.utcoffset() is None:
        raise invalid("receipt.received_at", "expected a time with its zone")
    _validate_target(event)
    if event.attack_details is not None:
        _validate_details(event.attack_details)
    if isinstance(event, HostEvent) and event.text_mode is not None:
        mode = event.text_mode
        _validate_word("text_mode.direction", mode.direction)
        if mode.power_pps is not None:
            _validate_number("text_mode.power_pps", mode.power_pps, _INT64)
    _validate_rules(event)


def _validate_target(event: Event) -> None:
    match event:
        case HostEvent(ip=ip):
            _validate_address(ip)
        case StatusEvent(ip=ip, hostgroup_name=name) if ip is not None:
            if name is not None:
                raise invalid(
                    "hostgroup_name", "expected an address or a name, not both"
                )
            _validate_address(ip)
        case HostgroupEvent() | StatusEvent():
            _validate_name("hostgroup_name", event.hostgroup_name)
            _validate_networks(event.hostgroup_networks)


def _validate_address(ip: Any) -> None:
    try:
        canonical = parse_address(ip, "ip")
    except InvalidNotification as exc:
        raise InvalidRecord(exc.reason) from exc
    if canonical != ip:
        raise invalid("ip", f"expected the canonical text {canonical}, got {ip:.80}")


def _validate_networks(networks: Any) -> None:
    if not isinstance(networks, tuple) or len(networks) > MAX_MEMBERS:
        raise invalid("hostgroup_networks", f"expected at most {MAX_MEMBERS} networks")
    for index, member in enumerate(networks):
        text = member.network
        if text is None:
            continue
        if not isinstance(text, str) or parse_network(text) != text:
            raise invalid(
                f"hostgroup_networks.{index}.network",
                f"expected canonical text without host bits, got {text!r:.80}",
            )


def _validate_details(details: AttackDetails) -> None:
    for name in _WORDS:
        word = getattr(details, name)
        if word is not None:
            _validate_word(f"attack_details.{name}", word)
    for name in _NUMBERS:
        number = getattr(details, name)
        if number is not None:
            _validate_number(f"attack_details.{name}", number, _INT64)


def _validate_rules(event: Event) -> None:
    rules: Any = event.flow_spec_rules
    if not isinstance(rules, tuple) or len(rules) > MAX_MEMBERS:
        raise invalid("flow_spec_rules", f"expected at most {MAX_MEMBERS} rules")
    extra: Any = event.extra
    if not isinstance(extra, Mapping):
        raise invalid("extra", "expected a map")


def _validate_name(field: str, text: Any) -> None:
    _validate_word(field, text)
    if not text.strip() or _UNFIT.search(text):
        raise invalid(
            field, f"expected text without control characters, got {text[:40]!r}"
        )


def _validate_word(field: str, text: Any) -> None:
    if not isinstance(text, str):
        raise invalid(field, f"expected text, got {text!r:.40}")
    if len(text) > MAX_NAME:
        raise invalid(field, f"{len(text)} characters, allowed are {MAX_NAME}")


def _validate_number(field: str, number: Any, most: int) -> None:
    # type(), because a bool is an int.
    if type(number) is not int or not 0 <= number <= most:
        raise invalid(field, f"expected 0 to {most}, got {number!r:.40}")
