"""The identifiers of an event: addresses, networks and names, strictly parsed."""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from fnm_bus.errors import InvalidNotification, InvalidRecord
from fnm_bus.event.extra import child_pointer, describe, shorten
from fnm_bus.event.types import Event, HostEvent, HostgroupEvent, StatusEvent

MAX_NAME = 1024
"""Greatest length of an action or of a hostgroup's name, in characters."""

_ADDRESS = "an IPv4 or IPv6 address without prefix, zone or blanks"
# Control characters, and lone surrogates of command lines: keys and headers of records
# must not contain them.
_UNFIT_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def parse_address(value: Any, field: str) -> str:
    """Return the canonical text of an address (RFC 5952 for IPv6).

    IPv6 may have any form, including leading zeros in a group as in Community's reports
    (`fd00::0001`). An IPv4-mapped address (`::ffff:192.0.2.1`) stays an IPv6 address
    with the mixed text of RFC 5952 section 5.

    Raises:
        InvalidNotification: not text, or not a bare address: a number, a bool, a
            prefix, a zone, a port, a leading zero in an IPv4 part, blanks, line breaks.
    """
    # The JSON type first: ip_address(7) is 0.0.0.7 and ip_address(True) is 0.0.0.1.
    if type(value) is not str or "%" in value:
        raise InvalidNotification(field, _ADDRESS, describe(value))
    try:
        return _canonical_address(value)
    except ValueError as error:
        raise InvalidNotification(field, _ADDRESS, describe(value)) from error


def check_event(event: Event) -> None:
    """Refuse an event that `parse` would never return.

    A decoded record has the types of its schema, but another program may have written
    it. Consumers call this before they act, so that a target is an address, a network
    or a name in canonical text.

    Raises:
        InvalidRecord: the text has the field, as a JSON Pointer, and the fault.
    """
    try:
        parse_name(event.action, "/action", "an action")
        match event:
            case HostEvent(ip=ip):
                _check_address(ip)
            case HostgroupEvent(hostgroup_name=name):
                parse_name(name, "/hostgroup_name", "the name of a hostgroup")
            case StatusEvent(ip=str(ip), hostgroup_name=None):
                _check_address(ip)
            case StatusEvent(ip=ip, hostgroup_name=name):
                _check_no_address(ip)
                parse_name(name, "/hostgroup_name", "the name of a hostgroup")
        if isinstance(event, HostgroupEvent | StatusEvent):
            _check_networks(event)
    except InvalidNotification as exc:
        raise InvalidRecord(f"{type(event).__name__}: {exc.reason}") from exc


def _check_address(ip: str) -> None:
    if parse_address(ip, "/ip") != ip:
        raise InvalidNotification("/ip", "an address in canonical text", describe(ip))


def _check_no_address(ip: str | None) -> None:
    if ip is not None:
        raise InvalidNotification("/ip", "no address beside a hostgroup", describe(ip))


def _check_networks(event: HostgroupEvent | StatusEvent) -> None:
    for index, member in enumerate(event.hostgroup_networks):
        if (
            member.network is not None
            and parse_network(member.network) != member.network
        ):
            raise InvalidNotification(
                child_pointer(child_pointer("/hostgroup_networks", index), "network"),
                "a network in canonical text, or null",
                describe(member.network),
            )


@lru_cache(maxsize=32_768)  # each event repeats the networks of its hostgroup
def parse_network(text: str) -> str | None:
    """Return the canonical text of a network, or None for another text.

    Host bits are removed: `10.10.1.2/16`, as in the vendor's hostgroup example, becomes
    `10.10.0.0/16`. A bare address is a network of one address.
    """
    _, slash, length = text.partition("/")
    # ipaddress also accepts netmasks, whose meaning is ambiguous, and zones.
    if "%" in text or (slash and not (length.isascii() and length.isdigit())):
        return None
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return None
    return f"{_canonical_text(network.network_address)}/{network.prefixlen}"


def parse_name(value: Any, field: str, expected: str) -> str:
    """Return a name or an action: text without control characters.

    Raises:
        InvalidNotification: not text, blank, longer than `MAX_NAME`, or with a control
            character.
    """
    if type(value) is not str or not value.strip():
        raise InvalidNotification(field, expected, describe(value))
    if len(value) > MAX_NAME:
        actual = f"{len(value)}: {shorten(value)}"
        raise InvalidNotification(
            field, f"{expected}, at most {MAX_NAME} characters", actual
        )
    if _UNFIT_CHARACTERS.search(value):
        raise InvalidNotification(
            field, f"{expected} without control characters", describe(value)
        )
    return value


@lru_cache(maxsize=4096)  # a document repeats one address in all packet samples
def _canonical_address(value: str) -> str:
    return _canonical_text(ip_address(value))


def _canonical_text(value: IPv4Address | IPv6Address) -> str:
    # Python 3.13 changed its text of mapped addresses; a record's key must not change.
    if isinstance(value, IPv6Address) and value.ipv4_mapped is not None:
        return f"::ffff:{value.ipv4_mapped}"
    return str(value)
