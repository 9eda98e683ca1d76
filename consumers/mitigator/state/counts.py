"""Counts: the numbers of active mitigations that limits compare."""

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from datetime import datetime, timedelta
from typing import Final

from consumers.mitigation.measure import Network
from consumers.policy.affected import AffectedAddresses
from consumers.policy.guardrails import ActiveCounts

_MINUTE: Final = timedelta(seconds=60)


class Counts:
    """Counts of one class of mitigations: the live ones, or the dry runs."""

    def __init__(self) -> None:
        self._active = 0
        self._by_customer: Counter[str] = Counter()
        self._affected = AffectedAddresses()
        self._starts: list[datetime] = []  # sorted

    def add(self, network: Network | None, customer: str | None) -> None:
        """Count an active mitigation."""
        self._active += 1
        if customer is not None:
            self._by_customer[customer] += 1
        if network is not None:
            self._affected.add(network)

    def remove(self, network: Network | None, customer: str | None) -> None:
        """Stop counting an active mitigation."""
        self._active -= 1
        if customer is not None:
            self._by_customer[customer] -= 1
            if not self._by_customer[customer]:
                del self._by_customer[customer]
        if network is not None:
            self._affected.remove(network)

    def start(self, moment: datetime) -> None:
        """Count the start of a mitigation at a broker's time."""
        insort(self._starts, moment)

    def undo_start(self, moment: datetime) -> None:
        """Undo one `start` at *moment*, unless it is already older than a minute."""
        index = bisect_left(self._starts, moment)
        if self._starts[index : index + 1] == [moment]:
            del self._starts[index]

    def at(self, now: datetime) -> ActiveCounts:
        """Return the counts that limits compare.

        A start in the future, from a broker's wrong clock, counts as a start now.
        """
        ahead = bisect_right(self._starts, now)
        self._starts[ahead:] = [now] * (len(self._starts) - ahead)
        del self._starts[: bisect_right(self._starts, now - _MINUTE)]
        return ActiveCounts(
            active=self._active,
            by_customer=self._by_customer,
            new_last_minute=len(self._starts),
            affected=self._affected,
        )
