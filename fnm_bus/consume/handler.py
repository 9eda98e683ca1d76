"""The results of a handler: done (None), deferred, or one of these exceptions."""

from collections.abc import Callable
from typing import TypeAlias

from fnm_bus.errors import FnmBusError
from fnm_bus.kafka.reader import ConsumedRecord


class RetryLater(FnmBusError):
    """Raised by a handler that needs the same record again later.

    Attributes:
        seconds: time until the next attempt; None for a growing pause.
    """

    exit_code = 75
    retryable = True

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


class AbortConsumer(FnmBusError):
    """Raised by a handler or a callback of the loop to end the program.

    No further offset is committed, so the next consumer reads those records again.
    """

    exit_code = 75


class Deferred:
    """Returned by a handler for a record that it finishes later.

    The record's offset is not committed before `release`. The handler or a callback
    calls it in the loop's own thread. One object can be returned for several records.
    """

    def __init__(self) -> None:
        self._released = False
        self._callbacks: list[Callable[[], None]] = []

    def release(self) -> None:
        """Mark the record as done."""
        self._released = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def on_release(self, callback: Callable[[], None]) -> None:
        """Call *callback* at the release, or now if it is released; for the loop."""
        if self._released:
            callback()
        else:
            self._callbacks.append(callback)


Handler: TypeAlias = Callable[[ConsumedRecord], Deferred | None]
