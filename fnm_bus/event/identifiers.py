"""Whom an event is about: addresses, networks and names, strictly read."""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from fnm_bus.errors import InvalidNotification, InvalidRecord
from fnm_bus.event.extra import describe, shorten, step
from fnm_bus.event.types import Event, HostEvent, HostgroupEvent, StatusEvent

MAX_NAME = 1024
"""Greatest length of an action or of a hostgroup's name, in characters."""

_ADDRESS = "an IPv4 or IPv6 address without prefix, zone or blanks"
# Control characters, and the half characters that only command lines can hold: no
# word of FastNetMon's has one, and keys and headers must not.
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def address(value: Any, field: str) -> str:
    """Return the canonical text of an address.

    IPv6 comes in any spelling, also with leading zeros in a group as Community prints
    it (`fd00::0001`), and leaves as RFC 5952 says. An IPv4-mapped address
    (`::ffff:192.0.2.1`) stays an IPv6 address, and a target of its own: FastNetMon
    said IPv6. Its text is the mixed one of RFC 5952 section 5.

    Raises:
        InvalidNotification: not text, or not one bare address: a number, a bool, a
            prefix, a zone, a port, a leading zero in an IPv4 part, blanks, line breaks.
    """
    # The JSON type first: ip_address(7) is 0.0.0.7 and ip_address(True) is 0.0.0.1.
    if type(value) is not str:
        raise InvalidNotification(field, _ADDRESS, describe(value))
    if "%" in value:
        raise InvalidNotification(field, _ADDRESS, describe(value))
    try:
        return _canonical(value)
    except ValueError as error:
        raise InvalidNotification(field, _ADDRESS, describe(value)) from error


def check_event(event: Event) -> None:
    """Refuse an event that the parser would never make.

    A decoded record has the types of its schema, and nothing more is known of it when
    another program wrote it. Consumers apply this before they act, so that a target is
    an address, a network or a name in canonical text.

    Raises:
        InvalidRecord: the text names the field, as a JSON Pointer, and what is wrong.
    """
    try:
        word(event.action, "/action", "an action")
        match event:
            case HostEvent(ip=ip):
                _check_address(ip)
            case HostgroupEvent(hostgroup_name=name):
                word(name, "/hostgroup_name", "the name of a hostgroup")
            case StatusEvent(ip=str(ip), hostgroup_name=None):
                _check_address(ip)
            case StatusEvent(ip=ip, hostgroup_name=name):
                _no_address(ip)
                word(name, "/hostgroup_name", "the name of a hostgroup")
        if isinstance(event, HostgroupEvent | StatusEvent):
            _check_networks(event)
    except InvalidNotification as exc:
        raise InvalidRecord(f"{type(event).__name__}: {exc.reason}") from exc


def _check_address(ip: str) -> None:
    if address(ip, "/ip") != ip:
        raise InvalidNotification("/ip", "an address in canonical text", describe(ip))


def _no_address(ip: str | None) -> None:
    if ip is not None:
        raise InvalidNotification("/ip", "no address beside a hostgroup", describe(ip))


def _check_networks(event: HostgroupEvent | StatusEvent) -> None:
    for index, member in enumerate(event.hostgroup_networks):
        if member.network is not None and network(member.network) != member.network:
            raise InvalidNotification(
                step(step("/hostgroup_networks", index), "network"),
                "a network in canonical text, or null",
                describe(member.network),
            )


@lru_cache(maxsize=32_768)  # the networks of a hostgroup come again with every event
def network(sent: str) -> str | None:
    """Return the canonical text of a network, or None when it is not one.

    Host bits are allowed and removed (`10.10.1.2/16` is `10.10.0.0/16`, which the
    vendor's hostgroup example holds); a bare address is a network of one.
    """
    _, slash, length = sent.partition("/")
    # ipaddress would also take netmasks, whose meaning is ambiguous, and zones.
    if "%" in sent or (slash and not (length.isascii() and length.isdigit())):
        return None
    try:
        found = ip_network(sent, strict=False)
    except ValueError:
        return None
    return f"{_text(found.network_address)}/{found.prefixlen}"


def word(value: Any, field: str, wanted: str) -> str:
    """Return a name or an action: any text without control characters.

    Raises:
        InvalidNotification: not text, empty or blank, longer than `MAX_NAME`, or with a
            control character.
    """
    if type(value) is not str:
        raise InvalidNotification(field, wanted, describe(value))
    if not value.strip():
        raise InvalidNotification(field, wanted, describe(value))
    if len(value) > MAX_NAME:
        got = f"{len(value)}: {shorten(value)}"
        raise InvalidNotification(
            field, f"{wanted}, at most {MAX_NAME} characters", got
        )
    if _UNFIT.search(value):
        raise InvalidNotification(
            field, f"{wanted} without control characters", describe(value)
        )
    return value


@lru_cache(maxsize=4096)  # a document of 50 packets names one address 50 times
def _canonical(value: str) -> str:
    return _text(ip_address(value))


def _text(value: IPv4Address | IPv6Address) -> str:
    # Python changed its text of mapped addresses in 3.13; a key must not change.
    if isinstance(value, IPv6Address) and value.ipv4_mapped is not None:
        return f"::ffff:{value.ipv4_mapped}"
    return str(value)
