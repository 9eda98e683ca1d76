"""Demand: what all holding reasons want of one measure at one place, by equal terms.

A group of 65,000 reasons costs as much per change as a group of two.
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
    """What a reason asks of a measure.

    Attributes:
        effect: what is done, with which communities.
        dry_run: whether enforcers only report what they would do.
        approval: whether a person has to approve it first.
        fallback: whether it relieves a limit.
    """

    effect: Effect
    dry_run: bool = False
    approval: bool = False
    fallback: bool = False


class WantLease(NamedTuple):
    """How long one reason holds a measure.

    Attributes:
        ends: when its lease expires, in seconds since boot.
        lease: that lease in seconds.
    """

    ends: float
    lease: float


class _Group:
    """The reasons with equal terms, and which of them expires last."""

    def __init__(self) -> None:
        # Unlike a dict it is quick at its front after many were removed there.
        self.holds: OrderedDict[ReasonKey, WantLease] = OrderedDict()
        self._by_end: list[tuple[float, ReasonKey]] = []

    def add(self, key: ReasonKey, hold: WantLease) -> None:
        self.holds[key] = hold
        heapq.heappush(self._by_end, (-hold.ends, key))
        if len(self._by_end) > 4 * len(self.holds) + 8:  # mostly entries of the past
            self._by_end = [(-kept.ends, name) for name, kept in self.holds.items()]
            heapq.heapify(self._by_end)

    def remove(self, key: ReasonKey) -> None:
        self.holds.pop(key, None)

    def latest(self) -> WantLease:
        while True:
            ends, key = self._by_end[0]
            hold = self.holds.get(key)
            if hold is not None and hold.ends == -ends:
                return hold
            heapq.heappop(self._by_end)


class Demand:
    """What reasons want of one measure at one place.

    Args:
        measure: what is matched; its effect does not count.
        place: enforcer that applies it, or "".
    """

    def __init__(self, measure: Measure, place: str = "") -> None:
        self.measure = measure
        self.place = place
        self._groups: dict[Terms, _Group] = {}
        self._terms: OrderedDict[ReasonKey, Terms] = OrderedDict()

    def put(self, key: ReasonKey, terms: Terms, hold: WantLease) -> None:
        """Let a reason hold the measure, in place of what it held before."""
        if self._terms.get(key) != terms:
            self.remove(key)
        self._terms[key] = terms
        self._groups.setdefault(terms, _Group()).add(key, hold)

    def remove(self, key: ReasonKey) -> None:
        """Let a reason hold the measure no longer."""
        terms = self._terms.pop(key, None)
        if terms is None:
            return
        group = self._groups[terms]
        group.remove(key)
        if not group.holds:
            del self._groups[terms]

    def __len__(self) -> int:
        return len(self._terms)

    def __contains__(self, key: object) -> bool:
        return key in self._terms

    def __iter__(self) -> Iterator[ReasonKey]:
        return iter(self._terms)

    def terms(self) -> tuple[Terms, ...]:
        """Return the different terms, those that were wanted first in front."""
        return tuple(self._groups)

    def terms_of(self, key: ReasonKey) -> Terms:
        """Return the terms of one reason."""
        return self._terms[key]

    def count(self, terms: Terms) -> int:
        """Return how many reasons have these terms."""
        return len(self._groups[terms].holds)

    def latest(self, terms: Terms) -> WantLease:
        """Return the hold that expires last among the reasons with these terms."""
        return self._groups[terms].latest()

    def first(self, chosen: Iterable[Terms], most: int) -> list[ReasonKey]:
        """Return up to *most* reasons with *chosen* terms, the oldest in front."""
        keys = (key for terms in chosen for key in self._groups[terms].holds)
        return list(islice(keys, most))
