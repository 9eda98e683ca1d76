"""Affected addresses: the number of own addresses that the active measures affect.

Networks nest or are disjoint. For each prefix length in use, a table has the affected
addresses inside each prefix, so a change costs one step for each of these lengths.
"""

from consumers.mitigation.measure import Network
from consumers.policy.networks import BITS, prefix_at

_Table = dict[int, int]
"""First bits of a network as a number → a count."""


class AffectedAddresses:
    """A union of networks in which each address counts once.

    A network that was added twice has to be removed twice.
    """

    def __init__(self) -> None:
        self._families = {version: _Family(bits) for version, bits in BITS.items()}

    def add(self, network: Network) -> None:
        """Add a network."""
        family = self._families[network.version]
        family.add(network.prefixlen, prefix_at(network, network.prefixlen))

    def remove(self, network: Network) -> None:
        """Remove a network that was added.

        Raises:
            KeyError: it was not added as often.
        """
        family = self._families[network.version]
        family.remove(network.prefixlen, prefix_at(network, network.prefixlen))

    def count_new(self, network: Network) -> int:
        """Return the number of addresses that a network would add."""
        length = network.prefixlen
        family = self._families[network.version]
        return family.count_new(length, prefix_at(network, length))

    def count(self, version: int) -> int:
        """Return the number of affected addresses of IPv4 (4) or IPv6 (6)."""
        return self._families[version].count


class _Family:
    """Networks of one version."""

    def __init__(self, bits: int) -> None:
        self.count = 0
        self._bits = bits
        self._counts: dict[int, _Table] = {}
        self._inside: dict[int, _Table] = {}

    def add(self, length: int, prefix: int) -> None:
        counts = self._counts.setdefault(length, {})
        counts[prefix] = counts.get(prefix, 0) + 1
        if counts[prefix] == 1:
            self._change(length, prefix, 1)

    def remove(self, length: int, prefix: int) -> None:
        counts = self._counts.get(length, {})
        counts[prefix] -= 1
        if counts[prefix] == 0:
            del counts[prefix]
            self._change(length, prefix, -1)

    def count_new(self, length: int, prefix: int) -> int:
        is_present = prefix in self._counts.get(length, {})
        if is_present or self._has_outer(length, prefix):
            return 0
        return self._uncovered(length, prefix)

    def _change(self, length: int, prefix: int, sign: int) -> None:
        """Add a network's change of addresses to the networks around it."""
        delta = sign * self._uncovered(length, prefix)
        for outer in sorted(self._inside, reverse=True):
            if outer >= length:
                continue
            outer_prefix = prefix >> (length - outer)
            table = self._inside[outer]
            table[outer_prefix] = table.get(outer_prefix, 0) + delta
            if not table[outer_prefix]:
                del table[outer_prefix]
            if outer_prefix in self._counts.get(outer, {}):
                return
        self.count += delta

    def _uncovered(self, length: int, prefix: int) -> int:
        """Return the number of a network's addresses that no inner network affects."""
        if length not in self._inside:
            self._inside[length] = self._table(length)
        size = 1 << (self._bits - length)
        return size - self._inside[length].get(prefix, 0)

    def _has_outer(self, length: int, prefix: int, least: int = -1) -> bool:
        return any(
            least < outer < length and prefix >> (length - outer) in counts
            for outer, counts in self._counts.items()
        )

    def _table(self, length: int) -> _Table:
        """Return the table of a prefix length that was not in use yet."""
        table: _Table = {}
        for inner, counts in self._counts.items():
            if inner <= length:
                continue
            size = 1 << (self._bits - inner)
            for prefix in counts:
                if not self._has_outer(inner, prefix, length):
                    outer_prefix = prefix >> (inner - length)
                    table[outer_prefix] = table.get(outer_prefix, 0) + size
        return table
