"""What a handler of records may answer besides "done"."""

from collections.abc import Callable
from typing import TypeAlias

from fnm_bus.errors import FnmBusError
from fnm_bus.kafka.reader import ConsumedRecord


class RetryLater(FnmBusError):
    """What a handler raises when the record is right and the time is not.

    Attributes:
        seconds: when to try again; None: after a growing pause.
    """

    exit_code = 75
    retryable = True

    def __init__(self, why: str, seconds: float | None = None) -> None:
        super().__init__(why)
        self.seconds = seconds


class AbortConsumer(FnmBusError):
    """What a handler, a turn or a settle raises when the whole program must end.

    Nothing more is committed, so what was not committed yet is read again by whoever
    comes next.
    """

    exit_code = 75


class Deferred:
    """What a handler returns for a record that is not done yet.

    Its offset is not committed before `release`, which may come from any handler or
    turn, in the loop's own thread. One hold may stand for several records.
    """

    def __init__(self) -> None:
        self._released = False
        self._then: list[Callable[[], None]] = []

    def release(self) -> None:
        """Say that the record is done."""
        self._released = True
        waiting, self._then = self._then, []
        for done in waiting:
            done()

    def then(self, done: Callable[[], None]) -> None:
        """Call *done* at the release, or now if that has been; the loop asks for it."""
        if self._released:
            done()
        else:
            self._then.append(done)


Handler: TypeAlias = Callable[[ConsumedRecord], Deferred | None]
