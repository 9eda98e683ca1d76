"""What a handler of records may answer besides "done"."""

from collections.abc import Callable
from typing import TypeAlias

from fnm_bus.errors import FnmBusError
from fnm_bus.reader import Read


class TryLater(FnmBusError):
    """What a handler raises when the record is right and the time is not.

    Attributes:
        seconds: when to try again; None: after a growing pause.
    """

    exit_code = 75
    retryable = True

    def __init__(self, why: str, seconds: float | None = None) -> None:
        super().__init__(why)
        self.seconds = seconds


class Hold:
    """What a handler returns for a record that is not done yet.

    Its offset is not committed before `release`, which may come from any `turn`.
    """

    def __init__(self) -> None:
        self._released = False
        self._then: Callable[[], None] | None = None

    def release(self) -> None:
        """Say that the record is done."""
        self._released = True
        if self._then is not None:
            self._then()

    def then(self, done: Callable[[], None]) -> None:
        """Call *done* at the release; the loop asks for it."""
        self._then = done
        if self._released:
            done()


Handler: TypeAlias = Callable[[Read], Hold | None]
