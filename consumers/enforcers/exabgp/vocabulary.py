"""FlowSpec values and communities as ExaBGP's words, and back.

Values of a valid measure are converted to terms, and terms of a listing to the same
values: a measure's key is its match.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, Final

from consumers.mitigation.flow_words import FRAGMENTS, PROTOCOLS, TCP_FLAGS
from consumers.mitigation.measure import is_community

_PROTOCOL_NAMES: Final = {number: name for name, number in PROTOCOLS.items()}
_TCP_FLAGS: Final = {**{flag: flag for flag in TCP_FLAGS}, "urgent": "urg"}
_TCP_FLAG_WORDS: Final = {flag: word for word, flag in _TCP_FLAGS.items()}
_FRAGMENTS: Final = {
    **{flag: flag for flag in FRAGMENTS},
    "not-a-fragment": "!is-fragment",
}
_FRAGMENT_WORDS: Final = {flag: word for word, flag in _FRAGMENTS.items()}
_COMMUNITIES: Final = {
    "blackhole": "65535:666",
    "no-export": "65535:65281",
    "no-advertise": "65535:65282",
    "no-export-subconfed": "65535:65283",
    "no-peer": "65535:65284",
}
"""The communities that ExaBGP lists by name."""


def protocol_terms(words: Sequence[str]) -> list[str]:
    """Return protocols as terms; a listed protocol without a name is a number."""
    return [f"={PROTOCOLS.get(word, word)}" for word in words]


def protocol_words(terms: Iterable[str]) -> tuple[str, ...]:
    """Return terms of a listing as protocols.

    Raises:
        ValueError: a term is unknown.
    """
    numbers = map(_listed_protocol, terms)
    return tuple(_PROTOCOL_NAMES.get(number, str(number)) for number in numbers)


def tcp_flag_terms(words: Sequence[str]) -> list[str]:
    """Return TCP flags as terms; flags that are joined by | have to be set together."""
    joined = ([_TCP_FLAGS[flag] for flag in word.split("|")] for word in words)
    return [f"={'+'.join(flags)}" for flags in joined]


def tcp_flag_words(terms: Iterable[str]) -> tuple[str, ...]:
    """Return terms of a listing as TCP flags.

    Raises:
        ValueError: a term is unknown.
    """
    joined = (strip_operator("=", term).split("+") for term in terms)
    return tuple(
        "|".join(sorted(look_up(_TCP_FLAG_WORDS, flag) for flag in flags))
        for flags in joined
    )


def fragment_terms(words: Sequence[str]) -> list[str]:
    """Return fragmentation flags as terms."""
    return [_FRAGMENTS[word] for word in words]


def fragment_words(terms: Iterable[str]) -> tuple[str, ...]:
    """Return terms of a listing as fragmentation flags.

    Raises:
        ValueError: a term is unknown.
    """
    return tuple(look_up(_FRAGMENT_WORDS, term) for term in terms)


def canonical_communities(texts: Iterable[str]) -> tuple[str, ...]:
    """Return communities by number, sorted, without duplicates; large ones last.

    Args:
        texts: `64500:666`, large communities (RFC 8092) as `64500:1:2`, or ExaBGP's
            names of well-known communities.

    Raises:
        ValueError: a text is not a community.
    """
    communities = {_COMMUNITIES.get(text, text) for text in texts}
    for text in communities:
        if not is_community(text):
            raise ValueError(
                f"communities: {text:.100} is not a community; write 64500:666 or"
                " 64500:1:2 (large)"
            )
    return tuple(sorted(communities, key=_community_order))


def community_attributes(communities: Sequence[str], end: str = "") -> str:
    """Return canonical communities as attributes of a route."""
    text = ""
    for name, colons in (("community", 1), ("large-community", 2)):
        values = [value for value in communities if value.count(":") == colons]
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


def _community_order(text: str) -> tuple[int, list[int]]:
    parts = [int(part) for part in text.split(":")]
    return len(parts), parts


def _listed_protocol(term: str) -> int:
    text = strip_operator("=", term)
    return int(text) if text.isdecimal() else look_up(_protocol_codes(), text)


@cache
def _protocol_codes() -> Mapping[str, int]:
    return dict(import_module("exabgp.protocol").Protocol.codes)
