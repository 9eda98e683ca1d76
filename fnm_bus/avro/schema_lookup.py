"""Looking up schemas in a registry that may be unreachable."""

from collections.abc import Callable
from time import monotonic

from fnm_bus.errors import RegistryError


class PausingLookup:
    """Looks up schemas; after a failure it sends no request for a while.

    A request takes seconds to time out. A reader of several topics must not wait that
    long for each record.

    Args:
        lookup: returns the schema of an id.
        pause: seconds after a failure during which each lookup raises its error.
    """

    def __init__(self, lookup: Callable[[int], str], pause: float) -> None:
        self._lookup = lookup
        self._pause = pause
        self._until = 0.0
        self._error = ""

    def __call__(self, number: int) -> str:
        """Return the schema of an id.

        Raises:
            RegistryError: the registry does not answer, or recently did not.
            SchemaError: the registry does not have the id.
        """
        if monotonic() < self._until:
            raise RegistryError(self._error)
        try:
            return self._lookup(number)
        except RegistryError as exc:
            self._error, self._until = str(exc), monotonic() + self._pause
            raise
