"""A publisher without Kafka."""

from collections.abc import Callable

from fnm_bus.errors import PublishError
from fnm_bus.kafka.publisher import DeliveryCallback
from fnm_bus.kafka.record import Record


class MemoryPublisher:
    """Keeps records in a list.

    Attributes:
        problem: always "".
        records: the accepted records, in order.
        refuse: returns the error if a record is to be refused, or None.
    """

    problem = ""

    def __init__(
        self, refuse: Callable[[Record], PublishError | None] = lambda _: None
    ) -> None:
        self.records: list[Record] = []
        self.refuse = refuse
        self._outcomes: list[tuple[DeliveryCallback, PublishError | None]] = []

    def open(self) -> None:
        """Do nothing."""

    def publish(self, record: Record, on_delivery: DeliveryCallback) -> None:
        """Accept *record*; the next `poll` reports the outcome."""
        error = self.refuse(record)
        if error is None:
            self.records.append(record)
        self._outcomes.append((on_delivery, error))

    def poll(self, timeout: float) -> None:
        """Report all outcomes; *timeout* has no effect."""
        del timeout
        outcomes, self._outcomes = self._outcomes, []
        for on_delivery, error in outcomes:
            on_delivery(error)

    def flush(self, timeout: float) -> int:
        """Report all outcomes and return 0."""
        self.poll(timeout)
        return 0

    def close(self) -> None:
        """Drop the pending outcomes."""
        self._outcomes.clear()
