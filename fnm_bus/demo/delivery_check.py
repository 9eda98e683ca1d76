"""Compare the events on Kafka with the calls of the hook."""

from collections import Counter
from collections.abc import Iterable

from fnm_bus.demo.attack import NotifyCall
from fnm_bus.event import DeadLetter, Event
from fnm_bus.kafka.record import digest


class DeliveryCheck:
    """Compares arrived records with the calls.

    Args:
        calls: the calls of the hook.

    Attributes:
        events: events that arrived, each counted once by its `event_id`.
        duplicates: records that repeated one of them.
        unexpected: events without a call.
    """

    def __init__(self, calls: Iterable[NotifyCall]) -> None:
        self._missing = Counter(
            (digest(call.document), call.arguments) for call in calls
        )
        self._names: set[str] = set()
        self.unexpected = 0
        self.events = 0
        self.duplicates = 0

    def record(self, event: Event | DeadLetter) -> None:
        """Count *event* as arrived."""
        if isinstance(event, DeadLetter):
            name, call = event.entry or "", (event.digest, event.arguments)
        else:
            receipt = event.receipt
            name, call = receipt.event_id, (receipt.raw_digest, receipt.arguments)
        if name in self._names:
            self.duplicates += 1
            return
        self._names.add(name)
        self.events += 1
        if self._missing[call] > 0:
            self._missing[call] -= 1
        else:
            self.unexpected += 1

    @property
    def missing(self) -> int:
        """Calls without an event so far."""
        return sum(self._missing.values())
