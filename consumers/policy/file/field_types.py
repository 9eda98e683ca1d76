"""Types of the values in a policy file.

The `Doc` of a type describes the allowed values; the reference is generated from it.
"""

import math
import re
from ipaddress import ip_network
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from typing_extensions import Doc

from consumers.mitigation.measure import (
    MAX_COMMUNITIES,
    MAX_RATE,
    Network,
    is_community,
    is_route_target,
)
from consumers.policy.event_check import MAX_NAME
from consumers.policy.facts import CLOSES, OPENS
from consumers.policy.model import MAX_LEASE, lease_fault

_DURATION: Final = re.compile(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6})s)?")
_ROUTE_TARGET: Final = re.compile(r"(0|[1-9][0-9]{0,9}):(0|[1-9][0-9]{0,9})")
_MAX_SECONDS: Final = 0xFFFF_FFFF
_INT64: Final = 2**63 - 1


def parse_network(value: object) -> Network:
    """Return a network.

    Raises:
        ValueError: the value is not text, not a network, or has host bits.
    """
    # ip_network(7) would be 0.0.0.7; pydantic reports no TypeError as a problem.
    if not isinstance(value, str):
        raise ValueError(  # noqa: TRY004 - as above
            f'expected text such as "203.0.113.0/24", got {value!r:.40}'
        )
    try:
        if "%" in value:
            raise ValueError("a zone")  # noqa: TRY301 - the same answer
        masked = ip_network(value, strict=False)
    except ValueError:
        raise ValueError(
            f'expected a network such as "203.0.113.0/24", got "{value:.60}"'
        ) from None
    host, slash, length = value.partition("/")
    if slash and not (length.isascii() and length.isdigit()):
        raise ValueError(f'"{value}" has a mask: write "{masked}"')
    try:
        return ip_network(value)
    except ValueError:
        raise ValueError(
            f'"{value}" has host bits: "{masked}" is the network, "{host}" the host'
        ) from None


def parse_seconds(value: object) -> float:
    """Return a duration in seconds; infinity for a number that is too large.

    Raises:
        ValueError: the value is not a duration.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) < _MAX_SECONDS else math.inf
    parts = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
    if parts is None:
        raise ValueError(
            f'expected "30s", "5m", "1h30m" or a number of seconds, got {value!r:.40}'
        )
    hours, minutes, rest = (int(part or 0) for part in parts.groups())
    return float(hours * 3600 + minutes * 60 + rest)


def parse_route_target(text: str) -> tuple[int, int]:
    """Return the two numbers of a route target, as "64500:100".

    Raises:
        ValueError: it is not a route target (RFC 4360, RFC 5668).
    """
    match = _ROUTE_TARGET.fullmatch(text)
    if match is not None:
        number, value = int(match[1]), int(match[2])
        if is_route_target(number, value):
            return number, value
    raise ValueError(f'expected a route target such as "64500:100", got "{text:.40}"')


def _validate_community(text: str) -> str:
    if is_community(text):
        return text
    raise ValueError(
        f'"{text:.40}" is not a community: "64500:666", each part 65535 at most, or'
        ' "64500:1:666", each part 4294967295 at most'
    )


def _validate_redirect(text: str) -> str:
    parse_route_target(text)
    return text


def _validate_lease(value: float) -> float:
    if fault := lease_fault(value):
        raise ValueError(fault)
    return value


def _validate_duration(value: float) -> float:
    if 0 < value <= MAX_LEASE:
        return value
    raise ValueError(
        f"expected more than 0 s, {MAX_LEASE / 3600:g} h at most, got {value:g} s"
    )


def _validate_action(word: str) -> str:
    if word in OPENS:
        return word
    expected = ", ".join(sorted(OPENS))
    if word in CLOSES:
        raise ValueError(
            f'"{word}" would never match: it ends an attack, and no rule is tried;'
            f" expected {expected}"
        )
    raise ValueError(f'"{word:.40}" would never match: expected {expected}')


def list_as_tuple(value: object) -> object:
    """Return a list as a tuple, and everything else as it is."""
    return tuple(value) if isinstance(value, list) else value


def _to_tuple(value: object) -> object:
    """Return one value as a list of one."""
    return list_as_tuple(value) if isinstance(value, list | dict) else (value,)


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Text = Annotated[str, Field(min_length=1)]
Size = Annotated[int, Field(ge=0, le=_INT64), Doc("integer, 0 or more")]
Rate = Annotated[int, Field(ge=1, le=MAX_RATE), Doc("integer, 1 or more")]
Above = Annotated[int, Field(ge=1, le=_INT64), Doc("integer, 1 or more")]
Name = Annotated[
    str,
    Field(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=MAX_NAME),
    Doc("text on one line"),
]

Duration = Annotated[
    float,
    BeforeValidator(parse_seconds),
    AfterValidator(_validate_duration),
    Doc('duration: `"30s"`, `"5m"`, `"1h30m"` or a number of seconds'),
]
Lease = Annotated[
    float,
    BeforeValidator(parse_seconds),
    AfterValidator(_validate_lease),
    Doc("duration, 5 s to 24 h"),
]
Redirect = Annotated[
    str, AfterValidator(_validate_redirect), Doc('route target, as `"64500:100"`')
]

_List = BeforeValidator(_to_tuple)
_Some = Field(min_length=1)
_Networks = tuple[Annotated[Network, BeforeValidator(parse_network)], ...]
AnyNetworks = Annotated[_Networks, _List, Doc("network or list of networks")]
Networks = Annotated[
    _Networks, _List, _Some, Doc("network or list of networks, not empty")
]
Communities = Annotated[
    tuple[Annotated[str, AfterValidator(_validate_community)], ...],
    _List,
    Field(max_length=MAX_COMMUNITIES),
    Doc('list of `"a:b"` (RFC 1997) or `"a:b:c"` (RFC 8092)'),
]
Words = Annotated[
    tuple[Text, ...], _List, _Some, Doc("word or list of words, not empty")
]
Enforcers = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=64)], ...],
    _List,
    Field(min_length=1, max_length=16),
    Doc("name or list of names, not empty"),
]
Lowered = Annotated[
    tuple[Annotated[Text, BeforeValidator(_lower)], ...],
    _List,
    _Some,
    Doc("word or list of words, not empty"),
]
Scopes = Annotated[
    tuple[Literal["host", "hostgroup"], ...],
    _List,
    _Some,
    Doc('`"host"`, `"hostgroup"`, or a list'),
]
Actions = Annotated[
    tuple[Annotated[str, AfterValidator(_validate_action)], ...],
    _List,
    _Some,
    Doc('`"ban"`, `"partial_block"`, `"attack_status"`, or a list'),
]
Directions = Annotated[
    tuple[
        Annotated[
            Literal["incoming", "outgoing", "internal", "other", "unknown", "none"],
            BeforeValidator(_lower),
        ],
        ...,
    ],
    _List,
    _Some,
    Doc(
        '`"incoming"`, `"outgoing"`, `"internal"`, `"other"`, `"unknown"`, `"none"`,'
        " or a list"
    ),
]
Severities = Annotated[
    tuple[
        Annotated[
            Literal["low", "middle", "high", "unknown", "none"], BeforeValidator(_lower)
        ],
        ...,
    ],
    _List,
    _Some,
    Doc('`"low"`, `"middle"`, `"high"`, `"unknown"`, `"none"`, or a list'),
]
