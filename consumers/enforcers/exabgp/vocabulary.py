"""Values of FlowSpec and of communities in ExaBGP's words, and back.

A measure is named by what it matches. So a value is used only when ExaBGP will list it
in a way that leads back to the same words; else it is refused.
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
"""Those that ExaBGP lists by name."""

_U8, _U16, _U32 = 0xFF, 0xFFFF, 0xFFFF_FFFF
_STANDARD, _LARGE = 2, 3
_DIGITS: Final = re.compile(r"[0-9]{1,10}")
"""int() raises on more than 4,300 digits, and takes those of every script."""


def protocols(words: Sequence[str], version: int) -> list[str]:
    """Return protocols as terms, for IPv4 (4) or IPv6 (6).

    Raises:
        UnsupportedMeasure: a name is unknown, is not the one that is used here, or
            belongs to the other family.
    """
    return [f"={_protocol(it, version)}" for it in words]


def protocol_words(terms: Iterable[str]) -> tuple[str, ...]:
    """Return terms of a listing as protocols.

    Raises:
        ValueError: it is no term of ours.
    """
    names = {number: name for name, number in PROTOCOLS.items()}
    return tuple(names.get(it, str(it)) for it in map(_listed_protocol, terms))


def numbers(field: str, values: Sequence[int]) -> Sequence[int]:
    """Return *values*.

    Raises:
        UnsupportedMeasure: one does not fit 16 bits.
    """
    for it in values:
        if not 0 <= it <= _U16:
            raise UnsupportedMeasure(f"{field}: {it} is not between 0 and {_U16}")
    return values


def tcp_flags(words: Sequence[str]) -> list[str]:
    """Return TCP flags as terms; of those that are joined by | all have to be set.

    Raises:
        UnsupportedMeasure: a flag is not known, or stands twice in one term.
    """
    found = []
    for word in words:
        flags = word.split("|")
        if len(set(flags)) < len(flags):
            raise UnsupportedMeasure(f"tcp_flags: a flag stands twice in {word}")
        found.append("=" + "+".join(_word("tcp_flags", _TCP_FLAGS, it) for it in flags))
    return found


def tcp_words(terms: Iterable[str]) -> tuple[str, ...]:
    """Return terms of a listing as TCP flags.

    Raises:
        ValueError: it is no term of ours.
    """
    names = {said: word for word, said in _TCP_FLAGS.items()}
    return tuple(
        "|".join(sorted(known(names, it) for it in after("=", term).split("+")))
        for term in terms
    )


def fragments(words: Sequence[str], version: int) -> list[str]:
    """Return fragmentation flags as terms, for IPv4 (4) or IPv6 (6).

    Raises:
        UnsupportedMeasure: a flag is not known, or unknown to the family.
    """
    if version == _IPV6 and "dont-fragment" in words:
        raise UnsupportedMeasure(
            "fragmentation_flags: IPv6 has no dont-fragment (RFC 8956)"
        )
    return [_word("fragmentation_flags", _FRAGMENTS, it) for it in words]


def fragment_words(terms: Iterable[str]) -> tuple[str, ...]:
    """Return terms of a listing as fragmentation flags.

    Raises:
        ValueError: it is no term of ours.
    """
    names = {said: word for word, said in _FRAGMENTS.items()}
    return tuple(known(names, it) for it in terms)


def communities(texts: Iterable[str]) -> tuple[str, ...]:
    """Return communities by number, sorted, without duplicates; large ones last.

    Args:
        texts: `64500:666`, large ones (RFC 8092) as `64500:1:2`, or names that ExaBGP
            gives to well-known ones.

    Raises:
        UnsupportedMeasure: one is none.
    """
    found = {_community(_COMMUNITIES.get(it, it)) for it in texts}
    return tuple(":".join(map(str, it)) for it in sorted(found, key=_order))


def attributes(texts: Sequence[str], end: str = "") -> str:
    """Return communities as `communities` returns them as attributes of a route.

    Args:
        texts: the communities.
        end: what follows each attribute.
    """
    said = ""
    for name, parts in (("community", _STANDARD), ("large-community", _LARGE)):
        some = [it for it in texts if it.count(":") == parts - 1]
        if some:
            said += f" {name} [ {' '.join(some)} ]{end}"
    return said


def known(table: Mapping[str, Any], name: str) -> Any:
    """Return what *table* has for *name*.

    Raises:
        ValueError: it has nothing.
    """
    if name not in table:
        raise ValueError(f"{name} is not known")
    return table[name]


def after(operator: str, term: str) -> str:
    """Return what follows the operator in a term of a listing.

    Raises:
        ValueError: the term begins with another one.
    """
    if not term.startswith(operator):
        raise ValueError(f"{term}: wanted {operator}")
    return term.removeprefix(operator)


def _protocol(word: str, version: int) -> int:
    number = PROTOCOLS.get(word, int(word) if _DIGITS.fullmatch(word) else None)
    if number is None or number > _U8:
        raise UnsupportedMeasure(f"protocols: {word} is unknown; write its number")
    (name,) = protocol_words([f"={number}"])
    if name != word:
        raise UnsupportedMeasure(f"protocols: write {name} instead of {word}")
    if number == (_ICMP if version == _IPV6 else _ICMP6):
        other = "ipv6-icmp" if version == _IPV6 else "icmp"
        raise UnsupportedMeasure(
            f"protocols: {word} is of the other family; write {other}"
        )
    return number


def _listed_protocol(term: str) -> int:
    text = after("=", term)
    return int(text) if text.isdecimal() else known(_codes(), text)


@cache
def _codes() -> Mapping[str, int]:
    return dict(import_module("exabgp.protocol").Protocol.codes)


def _community(text: str) -> tuple[int, ...]:
    parts = text.split(":")
    most = {_STANDARD: _U16, _LARGE: _U32}.get(len(parts), -1)
    if not all(_DIGITS.fullmatch(it) and int(it) <= most for it in parts):
        raise UnsupportedMeasure(
            f"communities: {text:.100} is not a community; write 64500:666 or"
            " 64500:1:2 (large)"
        )
    return tuple(map(int, parts))


def _order(community: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    return len(community), community


def _word(field: str, table: Mapping[str, str], word: str) -> str:
    if word not in table:
        raise UnsupportedMeasure(
            f"{field}: {word} is unknown; known: {', '.join(table)}"
        )
    return table[word]
