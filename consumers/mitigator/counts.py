"""Counts: how much is active, as far as limits are concerned."""

from collections import Counter, deque
from datetime import datetime, timedelta
from typing import Final

from consumers.mitigation.measure import Network
from consumers.policy.affected import AffectedAddresses
from consumers.policy.guardrails import ActiveCounts

_MINUTE: Final = timedelta(seconds=60)


class Counts:
    """Counts of one class of mitigations: those that are live, or the dry runs."""

    def __init__(self) -> None:
        self._active = 0
        self._by_customer: Counter[str] = Counter()
        self._affected = AffectedAddresses()
        self._starts: deque[datetime] = deque()

    def add(self, network: Network | None, customer: str | None) -> None:
        """Count one more active mitigation."""
        self._active += 1
        if customer is not None:
            self._by_customer[customer] += 1
        if network is not None:
            self._affected.add(network)

    def remove(self, network: Network | None, customer: str | None) -> None:
        """Count one active mitigation less."""
        self._active -= 1
        if customer is not None:
            self._by_customer[customer] -= 1
            if not self._by_customer[customer]:
                del self._by_customer[customer]
        if network is not None:
            self._affected.remove(network)

    def start(self, moment: datetime) -> None:
        """Count that a mitigation became wanted, broker's time."""
        self._starts.append(moment)

    def unstart(self, moment: datetime) -> None:
        """Take the latest `start` at *moment* back."""
        self._starts.reverse()
        self._starts.remove(moment)
        self._starts.reverse()

    def sort(self) -> None:
        """Put starts in order after records were read in any order."""
        self._starts = deque(sorted(self._starts))

    def view(self, now: datetime) -> ActiveCounts:
        """Return the counts as limits compare them.

        Args:
            now: the broker's time.
        """
        while self._starts and self._starts[0] <= now - _MINUTE:
            self._starts.popleft()
        return ActiveCounts(
            active=self._active,
            by_customer=self._by_customer,
            new_last_minute=len(self._starts),
            affected=self._affected,
        )
