"""Words of FlowSpec matches: protocols, TCP flags and fragmentation flags.

Any other word is refused: a match without it would be wider.
"""

from collections.abc import Mapping
from typing import Final

PROTOCOLS: Final[Mapping[str, int]] = {
    "hopopt": 0,
    "icmp": 1,
    "igmp": 2,
    "ipv4": 4,
    "tcp": 6,
    "udp": 17,
    "dccp": 33,
    "ipv6": 41,
    "rsvp": 46,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "ipv6-icmp": 58,
    "ospf": 89,
    "ipip": 94,
    "pim": 103,
    "ipcomp": 108,
    "vrrp": 112,
    "l2tp": 115,
    "sctp": 132,
    "udplite": 136,
}
"""IANA's names of the protocols that every FlowSpec backend supports."""

TCP_FLAGS: Final = frozenset(
    {"fin", "syn", "rst", "push", "ack", "urgent", "ece", "cwr"}
)
FRAGMENTS: Final = frozenset(
    {
        *("is-fragment", "first-fragment", "last-fragment", "not-a-fragment"),
        "dont-fragment",
    }
)
_IPV4: Final = 4
_IPV4_ONLY: Final = frozenset({"icmp", "igmp"})
_IPV6_ONLY: Final = frozenset({"ipv6-icmp"})


def protocol_fault(word: str, version: int) -> str:
    """Return the fault of a protocol in a match of IPv4 (4) or IPv6 (6), or ""."""
    if word not in PROTOCOLS:
        return f'protocol "{word:.40}" is not supported'
    if word in (_IPV6_ONLY if version == _IPV4 else _IPV4_ONLY):
        return f'protocol "{word}" does not exist in IPv{version}'
    return ""


def fragment_fault(word: str, version: int) -> str:
    """Return the fault of a fragmentation flag in IPv4 (4) or IPv6 (6), or ""."""
    if word not in FRAGMENTS:
        return f'fragmentation flag "{word:.40}" is not supported'
    if word == "dont-fragment" and version != _IPV4:
        return "IPv6 has no dont-fragment (RFC 8956)"
    return ""


def tcp_flags_fault(word: str) -> str:
    """Return the fault of a TCP flag, or of several joined by a vertical bar, or ""."""
    flags = word.split("|")
    if not TCP_FLAGS.issuperset(flags):
        return f'TCP flag "{word:.40}" is not supported'
    if len(set(flags)) < len(flags):
        return f'TCP flags "{word:.80}" name one flag twice'
    return ""
