"""FlowSpec values and communities as ExaBGP's words, and back.

A measure's key is its match. So a value is accepted only if ExaBGP's listing of the
value can be converted back to the same words; other values are refused.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, Final

from consumers.enforcers.backend import UnsupportedMeasure
from consumers.mitigation.flow_words import PROTOCOLS

_ICMP: Final = 1
_ICMP6: Final = 58
_IPV6: Final = 6
_TCP_FLAGS: Final = {
    "fin": "fin",
    "syn": "syn",
    "rst": "rst",
    "push": "push",
    "ack": "ack",
    "urgent": "urg",
    "ece": "ece",
    "cwr": "cwr",
}
_FRAGMENTS: Final = {
    "is-fragment": "is-fragment",
    "first-fragment": "first-fragment",
    "last-fragment": "last-fragment",
    "not-a-fragment": "!is-fragment",
    "dont-fragment": "dont-fragment",
}
_COMMUNITIES: Final = {
    "blackhole": "65535:666",
    "no-export": "65535:65281",
    "no-advertise": "65535:65282",
    "no-export-subconfed": "65535:65283",
    "no-peer": "65535:65284",
}
"""The communities that ExaBGP lists by name."""

_U8, _U16, _U32 = 0xFF, 0xFFFF, 0xFFFF_FFFF
_STANDARD, _LARGE = 2, 3
_DIGITS: Final = re.compile(r"[0-9]{1,10}")
"""int() raises for more than 4,300 digits, and accepts the digits of any script."""


def protocol_terms(words: Sequence[str], version: int) -> list[str]:
    """Return protocols as terms, for IPv4 (4) or IPv6 (6).

    Raises:
        UnsupportedMeasure: a name is unknown, is not canonical, or belongs to the other
            family.
    """
    return [f"={_protocol_number(word, version)}" for word in words]


def protocol_words(terms: Iterable[str]) -> tuple[str, ...]:
    """Return terms of a listing as protocols.

    Raises:
        ValueError: a term is unknown.
    """
    names = {number: name for name, number in PROTOCOLS.items()}
    return tuple(names.get(n, str(n)) for n in map(_listed_protocol, terms))


def check_u16(field: str, values: Sequence[int]) -> Sequence[int]:
    """Return *values*.

    Raises:
        UnsupportedMeasure: a value does not fit into 16 bits.
    """
    for value in values:
        if not 0 <= value <= _U16:
            raise UnsupportedMeasure(f"{field}: {value} is not between 0 and {_U16}")
    return values


def tcp_flag_terms(words: Sequence[str]) -> list[str]:
    """Return TCP flags as terms; flags that are joined by | have to be set together.

    Raises:
        UnsupportedMeasure: a flag is unknown, or repeated in one term.
    """
    terms = []
    for word in words:
        flags = word.split("|")
        if len(set(flags)) < len(flags):
            raise UnsupportedMeasure(f"tcp_flags: {word} repeats a flag")
        exabgp_flags = (_translate("tcp_flags", _TCP_FLAGS, flag) for flag in flags)
        terms.append("=" + "+".join(exabgp_flags))
    return terms


def tcp_flag_words(terms: Iterable[str]) -> tuple[str, ...]:
    """Return terms of a listing as TCP flags.

    Raises:
        ValueError: a term is unknown.
    """
    words = {flag: word for word, flag in _TCP_FLAGS.items()}
    return tuple(
        "|".join(sorted(look_up(words, f) for f in strip_operator("=", t).split("+")))
        for t in terms
    )


def fragment_terms(words: Sequence[str], version: int) -> list[str]:
    """Return fragmentation flags as terms, for IPv4 (4) or IPv6 (6).

    Raises:
        UnsupportedMeasure: a flag is unknown, or does not exist in the family.
    """
    if version == _IPV6 and "dont-fragment" in words:
        raise UnsupportedMeasure(
            "fragmentation_flags: IPv6 has no dont-fragment (RFC 8956)"
        )
    return [_translate("fragmentation_flags", _FRAGMENTS, word) for word in words]


def fragment_words(terms: Iterable[str]) -> tuple[str, ...]:
    """Return terms of a listing as fragmentation flags.

    Raises:
        ValueError: a term is unknown.
    """
    words = {flag: word for word, flag in _FRAGMENTS.items()}
    return tuple(look_up(words, term) for term in terms)


def canonical_communities(texts: Iterable[str]) -> tuple[str, ...]:
    """Return communities by number, sorted, without duplicates; large ones last.

    Args:
        texts: `64500:666`, large communities (RFC 8092) as `64500:1:2`, or ExaBGP's
            names of well-known communities.

    Raises:
        UnsupportedMeasure: a text is not a community.
    """
    communities = {_parse_community(_COMMUNITIES.get(text, text)) for text in texts}
    in_order = sorted(communities, key=lambda parts: (len(parts), parts))
    return tuple(":".join(map(str, parts)) for parts in in_order)


def community_attributes(communities: Sequence[str], end: str = "") -> str:
    """Return canonical communities as attributes of a route.

    Args:
        communities: from `canonical_communities`.
        end: appended to each attribute.
    """
    text = ""
    for name, parts in (("community", _STANDARD), ("large-community", _LARGE)):
        values = [value for value in communities if value.count(":") == parts - 1]
        if values:
            text += f" {name} [ {' '.join(values)} ]{end}"
    return text


def look_up(table: Mapping[str, Any], name: str) -> Any:
    """Return the value of *name* in *table*.

    Raises:
        ValueError: *table* has no such name.
    """
    if name not in table:
        raise ValueError(f"{name} is unknown")
    return table[name]


def strip_operator(operator: str, term: str) -> str:
    """Return a term of a listing without its operator.

    Raises:
        ValueError: the term has another operator.
    """
    if not term.startswith(operator):
        raise ValueError(f"{term}: expected {operator}")
    return term.removeprefix(operator)


def _protocol_number(word: str, version: int) -> int:
    number = PROTOCOLS.get(word, int(word) if _DIGITS.fullmatch(word) else None)
    if number is None or number > _U8:
        raise UnsupportedMeasure(f"protocols: {word} is unknown; write its number")
    (name,) = protocol_words([f"={number}"])
    if name != word:
        raise UnsupportedMeasure(f"protocols: write {name} instead of {word}")
    if number == (_ICMP if version == _IPV6 else _ICMP6):
        other = "ipv6-icmp" if version == _IPV6 else "icmp"
        raise UnsupportedMeasure(
            f"protocols: {word} belongs to the other IP version; write {other}"
        )
    return number


def _listed_protocol(term: str) -> int:
    text = strip_operator("=", term)
    return int(text) if text.isdecimal() else look_up(_protocol_codes(), text)


@cache
def _protocol_codes() -> Mapping[str, int]:
    return dict(import_module("exabgp.protocol").Protocol.codes)


def _parse_community(text: str) -> tuple[int, ...]:
    parts = text.split(":")
    limit = {_STANDARD: _U16, _LARGE: _U32}.get(len(parts), -1)
    if not all(_DIGITS.fullmatch(part) and int(part) <= limit for part in parts):
        raise UnsupportedMeasure(
            f"communities: {text:.100} is not a community; write 64500:666 or"
            " 64500:1:2 (large)"
        )
    return tuple(map(int, parts))


def _translate(field: str, table: Mapping[str, str], word: str) -> str:
    if word not in table:
        raise UnsupportedMeasure(
            f"{field}: {word} is unknown; use one of {', '.join(table)}"
        )
    return table[word]
