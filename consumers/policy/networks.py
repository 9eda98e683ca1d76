"""Sets of networks, to look up a network that contains or overlaps another.

The time of a look-up depends on the number of different prefix lengths, not of
networks: a hostgroup may have 20,000.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from functools import cached_property

from consumers.mitigation.measure import Network

BITS = {4: 32, 6: 128}
"""Version of IP → bits of an address."""


def is_within(inner: Network, outer: Network) -> bool:
    """Return whether *inner* is a part of *outer*, or equal; families do not mix."""
    return (
        inner.version == outer.version
        and outer.prefixlen <= inner.prefixlen
        and prefix_at(inner, outer.prefixlen) == prefix_at(outer, outer.prefixlen)
    )


def prefix_at(network: Network, length: int) -> int:
    """Return the first *length* bits of a network's address as a number."""
    return int(network.network_address) >> (BITS[network.version] - length)


class NetworkSet:
    """Networks that are looked up often; immutable."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self.networks = tuple(networks)
        self._by_length: dict[int, dict[int, dict[int, Network]]] = {4: {}, 6: {}}
        for network in self.networks:
            length = network.prefixlen
            lengths = self._by_length[network.version]
            lengths.setdefault(length, {}).setdefault(
                prefix_at(network, length), network
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NetworkSet) and self.networks == other.networks

    def __hash__(self) -> int:
        return hash(self.networks)

    def containing(self, network: Network) -> Network | None:
        """Return a network of the set that contains *network*, or None."""
        for length, prefixes in self._by_length[network.version].items():
            if length <= network.prefixlen:
                match = prefixes.get(prefix_at(network, length))
                if match is not None:
                    return match
        return None

    def overlapping(self, network: Network) -> Network | None:
        """Return a network of the set that contains *network* or is a part of it."""
        outer = self.containing(network)
        if outer is not None:
            return outer
        starts, _, networks = self.widest[network.version]
        first, last = _range(network)
        at = bisect_left(starts, first)
        inside = at < len(starts) and starts[at] <= last
        return networks[at] if inside else None

    def contains_all(self, others: "NetworkSet") -> bool:
        """Return whether each of *others* is a part of one network of the set.

        The time depends on the smaller of the two sets. No set contains a set without
        networks.
        """
        if not others.networks:
            return False
        if len(others.networks) <= len(self.networks):
            return all(
                self.containing(network) is not None for network in others.networks
            )
        return self._count_inside(others) == sum(
            len(starts) for starts, _, _ in others.widest.values()
        )

    def addresses(self, version: int) -> int:
        """Return the number of the networks' addresses, each counted once."""
        starts, ends, _ = self.widest[version]
        return sum(end - start + 1 for start, end in zip(starts, ends, strict=True))

    def _count_inside(self, others: "NetworkSet") -> int:
        """Return the number of the widest of *others* inside networks of this set."""
        count = 0
        for version, (starts, ends, _) in self.widest.items():
            other_starts, other_ends, _ = others.widest[version]
            for start, end in zip(starts, ends, strict=True):
                at = bisect_left(other_starts, start)
                count += bisect_right(other_starts, end) - at
                # Networks nest or are disjoint: only the first can be the wider one.
                if at < len(other_starts) and other_starts[at] == start:
                    count -= other_ends[at] > end
        return count

    @cached_property
    def widest(self) -> dict[int, tuple[list[int], list[int], list[Network]]]:
        """Version → starts, ends and networks, without those inside others."""
        return {version: _drop_nested(self._family(version)) for version in BITS}

    def _family(self, version: int) -> Iterator[Network]:
        for prefixes in self._by_length[version].values():
            yield from prefixes.values()


def _drop_nested(
    networks: Iterable[Network],
) -> tuple[list[int], list[int], list[Network]]:
    ranges = sorted(
        ((*_range(network), network) for network in networks),
        key=lambda item: (item[0], -item[1]),
    )
    starts: list[int] = []
    ends: list[int] = []
    kept: list[Network] = []
    for start, end, network in ranges:
        if not ends or start > ends[-1]:
            starts.append(start)
            ends.append(end)
            kept.append(network)
    return starts, ends, kept


def _range(network: Network) -> tuple[int, int]:
    first = int(network.network_address)
    return first, first + (1 << (BITS[network.version] - network.prefixlen)) - 1
