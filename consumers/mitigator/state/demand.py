"""Demand: all active wants of one measure at one place, grouped by equal terms.

A change in a group of 65,000 reasons costs as much as in a group of two.
"""

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from consumers.mitigation.measure import Measure
from consumers.mitigation.reason_key import ReasonKey
from fnm_bus.event import Effect


class Terms(NamedTuple):
    """The conditions and the effect that a reason wants."""

    effect: Effect
    dry_run: bool = False
    approval: bool = False
    fallback: bool = False


class WantLease(NamedTuple):
    """One reason's lease of a measure.

    Attributes:
        ends: when the lease expires, in seconds since boot.
        seconds: its length.
    """

    ends: float
    seconds: float


class _Group:
    """The reasons with equal terms, and the one that expires last."""

    def __init__(self) -> None:
        # After many removals at its front, an OrderedDict stays quick; a dict does not.
        self.leases: OrderedDict[ReasonKey, WantLease] = OrderedDict()
        self._by_end: list[tuple[float, ReasonKey]] = []

    def add(self, reason_key: ReasonKey, lease: WantLease) -> None:
        self.leases[reason_key] = lease
        heapq.heappush(self._by_end, (-lease.ends, reason_key))
        if len(self._by_end) > 4 * len(self.leases) + 8:  # mostly replaced leases
            self._by_end = [(-lease.ends, key) for key, lease in self.leases.items()]
            heapq.heapify(self._by_end)

    def remove(self, reason_key: ReasonKey) -> None:
        self.leases.pop(reason_key, None)

    def latest(self) -> WantLease:
        while True:
            ends, reason_key = self._by_end[0]
            lease = self.leases.get(reason_key)
            if lease is not None and lease.ends == -ends:
                return lease
            heapq.heappop(self._by_end)


class Demand:
    """All wants of one measure at one place.

    Args:
        measure: kind and match; its effect does not count.
        place: enforcer that applies it, or "".
    """

    def __init__(self, measure: Measure, place: str = "") -> None:
        self.measure = measure
        self.place = place
        self._groups: dict[Terms, _Group] = {}
        self._terms: OrderedDict[ReasonKey, Terms] = OrderedDict()

    def put(self, reason_key: ReasonKey, terms: Terms, lease: WantLease) -> None:
        """Add a reason's want, in place of its earlier one."""
        if self._terms.get(reason_key) != terms:
            self.remove(reason_key)
        self._terms[reason_key] = terms
        self._groups.setdefault(terms, _Group()).add(reason_key, lease)

    def remove(self, reason_key: ReasonKey) -> None:
        """Remove a reason's want."""
        terms = self._terms.pop(reason_key, None)
        if terms is None:
            return
        group = self._groups[terms]
        group.remove(reason_key)
        if not group.leases:
            del self._groups[terms]

    def __len__(self) -> int:
        return len(self._terms)

    def __contains__(self, reason_key: object) -> bool:
        return reason_key in self._terms

    def __iter__(self) -> Iterator[ReasonKey]:
        return iter(self._terms)

    def terms(self) -> tuple[Terms, ...]:
        """Return the different terms, the first wanted ones first."""
        return tuple(self._groups)

    def terms_of(self, reason_key: ReasonKey) -> Terms:
        """Return the terms of one reason."""
        return self._terms[reason_key]

    def count(self, terms: Terms) -> int:
        """Return the number of reasons with these terms."""
        return len(self._groups[terms].leases)

    def latest(self, terms: Terms | None = None) -> WantLease:
        """Return the lease that expires last among the reasons with these terms."""
        if terms is not None:
            return self._groups[terms].latest()
        latest = (group.latest() for group in self._groups.values())
        return max(latest, key=lambda lease: lease.ends)

    def first(self, groups: Iterable[Terms], limit: int) -> list[ReasonKey]:
        """Return up to *limit* reasons with terms of *groups*, the oldest first."""
        keys = (key for terms in groups for key in self._groups[terms].leases)
        return list(islice(keys, limit))
