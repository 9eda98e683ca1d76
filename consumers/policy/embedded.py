"""IPv4 addresses inside IPv6 addresses: NAT64, 6to4 and IPv4-mapped forms."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from consumers.mitigation.measure import Network
from consumers.policy.networks import is_within

_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_FORMS: Final[tuple[tuple[IPv6Network, tuple[range, ...]], ...]] = (
    (IPv6Network("64:ff9b::/96"), (range(96, 128),)),  # RFC 6052
    # RFC 8215; RFC 6052, section 2.2, has these places of the IPv4 address, which
    # leave out bits 64 to 71.
    (IPv6Network("64:ff9b:1::/48"), (range(48, 64), range(72, 88))),
    (IPv6Network("64:ff9b:1::/48"), (range(56, 64), range(72, 96))),
    (IPv6Network("64:ff9b:1::/48"), (range(72, 104),)),
    (IPv6Network("64:ff9b:1::/48"), (range(96, 128),)),
    (IPv6Network("2002::/16"), (range(16, 48),)),  # 6to4, RFC 3056
    (_MAPPED, (range(96, 128),)),  # RFC 4291
)


def embedded_networks(network: IPv6Network) -> Iterator[IPv4Network]:
    """Yield the IPv4 networks whose IPv6 forms overlap *network*."""
    bits = f"{int(network.network_address):0128b}"
    for outer, places in _FORMS:
        if is_within(outer, network):
            yield IPv4Network("0.0.0.0/0")
        elif is_within(network, outer):
            prefix = "".join(
                bits[place]
                for bit_range in places
                for place in bit_range
                if place < network.prefixlen
            )
            start = int(prefix.ljust(32, "0"), 2)
            yield IPv4Network((start, len(prefix)))


def with_mapped(networks: Iterable[Network]) -> Iterator[Network]:
    """Yield *networks*, and the IPv4 network inside each IPv4-mapped one."""
    for network in networks:
        yield network
        if isinstance(network, IPv6Network) and is_within(network, _MAPPED):
            yield from embedded_networks(network)
