"""FlowSpec matches: the canonical form that identifies a match, and its validity."""

import json
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, TypeAlias

import msgspec

from consumers.mitigation.flow_words import (
    fragment_fault,
    protocol_fault,
    tcp_flags_fault,
)
from consumers.mitigation.reason_key import MAX_KEY_BYTES
from fnm_bus.errors import InvalidRecord
from fnm_bus.event import FlowMatch

Network: TypeAlias = IPv4Network | IPv6Network

MAX_VALUES: Final = 100
"""Values of one match, prefixes not counted: an UPDATE has room for 4,096 bytes."""
PREFIX_FIELDS: Final = ("destination_prefix", "source_prefix")

_NUMBERS: Final = ("source_ports", "destination_ports", "packet_lengths")
_WORDS: Final = ("protocols", "fragmentation_flags", "tcp_flags")
_U16: Final = 0xFFFF


def match_text(flow: FlowMatch) -> str:
    """Return a match as text: JSON without blanks and empty parts, keys sorted.

    Raises:
        ValueError: a prefix is not a network.
    """
    parts = msgspec.to_builtins(canonical(flow))
    kept = {name: value for name, value in parts.items() if value}
    return json.dumps(kept, sort_keys=True, separators=(",", ":"))


def canonical(flow: FlowMatch) -> FlowMatch:
    """Return a match in its canonical form.

    Lists are sorted and without duplicates, words are lower case, joined TCP flags are
    sorted, prefixes are networks without host bits. A prefix of length 0 matches
    anything and becomes the absent field.

    Raises:
        ValueError: a prefix is not a network.
    """
    return FlowMatch(
        destination_prefix=_network(flow.destination_prefix),
        source_prefix=_network(flow.source_prefix),
        protocols=_words(flow.protocols),
        source_ports=tuple(sorted(set(flow.source_ports))),
        destination_ports=tuple(sorted(set(flow.destination_ports))),
        packet_lengths=tuple(sorted(set(flow.packet_lengths))),
        fragmentation_flags=_words(flow.fragmentation_flags),
        tcp_flags=_words(flow.tcp_flags),
    )


def network_of(text: str) -> Network:
    """Return a network as documents write it; host bits are removed.

    Raises:
        ValueError: it is not text, or not a network. A mask is refused: 0.0.0.0, for
            example, means /0 in some programs and /32 in others.
    """
    if not isinstance(text, str) or "%" in text:  # ip_network(7) would be 0.0.0.7/32
        raise ValueError(f"{text!r:.80} is not a network")
    _, slash, length = text.partition("/")
    if slash and not (length.isascii() and length.isdigit()):
        raise ValueError(f"{text!r:.80} has a mask")
    return ip_network(text, strict=False)


def match_size_fault(flow: FlowMatch) -> str:
    """Return the fault of a canonical match that is too large, or ""."""
    count = sum(len(getattr(flow, name)) for name in (*_NUMBERS, *_WORDS))
    if count > MAX_VALUES:
        return f"the match has {count} values, allowed are {MAX_VALUES}"
    size = len(f"flowspec|{match_text(flow)}".encode())
    if size > MAX_KEY_BYTES:
        return f"the match has {size} bytes as text, allowed are {MAX_KEY_BYTES}"
    return ""


def word_fault(flow: FlowMatch, version: int) -> tuple[str, str]:
    """Return the fault of the first word that FlowSpec does not support.

    Returns:
        The field's name and a phrase for people; two empty texts without a fault.
    """
    faults = {
        "protocols": (protocol_fault(word, version) for word in flow.protocols),
        "fragmentation_flags": (
            fragment_fault(word, version) for word in flow.fragmentation_flags
        ),
        "tcp_flags": (tcp_flags_fault(word) for word in flow.tcp_flags),
    }
    for field, texts in faults.items():
        for text in texts:
            if text:
                return field, text
    return "", ""


def validate_match(flow: FlowMatch | None) -> None:
    """Check that a FlowSpec match is valid and canonical, and not too large.

    Raises:
        InvalidRecord: the text names the field and the fault.
    """
    if not isinstance(flow, FlowMatch):
        raise invalid("flow", "a flowspec measure needs a match")
    networks = [
        validate_prefix(f"flow.{name}", text)
        for name in PREFIX_FIELDS
        if (text := getattr(flow, name)) is not None
    ]
    if not networks:
        raise invalid("flow", "a match needs a destination or source prefix")
    if len({network.version for network in networks}) > 1:
        raise invalid("flow", "one prefix is IPv4, the other IPv6")
    for name in _NUMBERS:
        _validate_list(f"flow.{name}", getattr(flow, name), int)
    for name in _WORDS:
        _validate_list(f"flow.{name}", getattr(flow, name), str)
    if fault := match_size_fault(flow):
        raise invalid("flow", fault)
    field, fault = word_fault(flow, networks[0].version)
    if fault:
        raise invalid(f"flow.{field}", fault)
    if flow != canonical(flow):
        raise invalid("flow", f"expected its canonical form {match_text(flow):.200}")


def validate_prefix(field: str, text: str | None) -> Network:
    """Return a network after a check that its text is canonical and not /0.

    Args:
        field: name of the field, for the error.
        text: from a record; its type is checked first.

    Raises:
        InvalidRecord: the value is not text, has host bits or another spelling, or is
            /0.
    """
    # ip_network(7) would be 0.0.0.7/32.
    if not isinstance(text, str) or "%" in text:
        raise invalid(field, f"{text!r:.80} is not a network")
    try:
        network = ip_network(text)
    except ValueError as exc:
        raise invalid(field, f"{exc!s:.120}") from exc
    if str(network) != text:
        raise invalid(field, f"expected the canonical text {network}, got {text:.80}")
    if not network.prefixlen:
        raise invalid(field, f"{network} is any address")
    return network


def invalid(field: str, fault: str) -> InvalidRecord:
    """Return the error that names a field and its fault."""
    return InvalidRecord(f"{field}: {fault}")


def _validate_list(field: str, values: Sequence[int | str], kind: type) -> None:
    # type(), because a bool is an int.
    if not isinstance(values, tuple) or any(
        type(value) is not kind for value in values
    ):
        raise invalid(field, f"expected a list of {kind.__name__}")
    if len(values) > MAX_VALUES:
        raise invalid(field, f"{len(values)} values, allowed are {MAX_VALUES}")
    for value in values:
        if isinstance(value, int) and not 0 <= value <= _U16:
            raise invalid(field, f"{value!r:.40} is not between 0 and {_U16}")


def _network(text: str | None) -> str | None:
    if not text:
        return None
    network = network_of(text)
    return str(network) if network.prefixlen else None


def _words(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({"|".join(sorted(word.lower().split("|"))) for word in words}))
