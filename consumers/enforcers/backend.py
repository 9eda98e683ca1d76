"""Enforcer: what makes one system match the wanted measures.

A backend knows its system, and nothing of Kafka or of people. The reconciler compares
and calls it. A measure counts as in force when the backend lists it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from consumers.mitigation.measure import Measure
from fnm_bus.errors import FnmBusError


class BackendError(FnmBusError):
    """The system refused something or does not answer; the text names which."""

    exit_code = 69
    retryable = True


class UnsupportedMeasure(BackendError):
    """The system can never do this measure; the text names it and the remedy."""

    retryable = False


class DesiredMeasure(NamedTuple):
    """One measure that is to be in force.

    Attributes:
        measure: what is done.
        left: seconds until it ends.
    """

    measure: Measure
    left: float


class ActiveMeasure(NamedTuple):
    """One measure in force, as the system lists it.

    Attributes:
        form: what the system does with the match; compares with `Backend.form`.
        left: seconds until the system itself ends it; None: never by itself.
    """

    form: str
    left: float | None


class Backend(Protocol):
    """One system.

    Attributes:
        name: its name in policies and audit records.
        kinds: the kinds of measures that it can do.
    """

    name: str
    kinds: frozenset[str]

    def form(self, measure: Measure) -> str:
        """Return what the system does with the match of *measure*, as it lists it.

        Raises:
            BackendError: the system cannot do this measure at all (not retryable).
        """

    def announce(self, wanted: Sequence[DesiredMeasure]) -> None:
        """Announce measures; one that is in force already is renewed or replaced.

        Raises:
            BackendError: nothing or only a part was announced; `active` lists what is
                in force.
        """

    def withdraw(self, measures: Sequence[Measure]) -> None:
        """Withdraw measures; one that is not in force is not an error.

        Raises:
            BackendError: as `announce`.
        """

    def active(self) -> Mapping[Measure, ActiveMeasure]:
        """Return what is in force. Its measures are enough to withdraw them.

        Raises:
            BackendError: the system does not answer.
        """

    def close(self) -> None:
        """Close the connection to the system; measures stay in force."""


class MemoryBackend:
    """Keeps measures in memory: for tests, and to look at without a system.

    Attributes:
        standing: key → what stands.
        fail: raised by the next calls when it is set.
        calls: what was asked for, in order: ("announce" or "withdraw", keys).
    """

    def __init__(
        self,
        name: str = "memory",
        kinds: frozenset[str] = frozenset({"blackhole", "flowspec", "firewall"}),
    ) -> None:
        self.name = name
        self.kinds = kinds
        self.standing: dict[str, Measure] = {}
        self.fail: BackendError | None = None
        self.calls: list[tuple[str, tuple[str, ...]]] = []

    def form(self, measure: Measure) -> str:
        """Return the action and the communities as text."""
        then = measure.then
        done = (then.action, then.rate) if then else ()
        return f"{done}{measure.communities}"

    def announce(self, wanted: Sequence[DesiredMeasure]) -> None:
        """Keep the measures."""
        self._ask("announce", [it.measure for it in wanted])
        self.standing.update({it.measure.key: it.measure for it in wanted})

    def withdraw(self, measures: Sequence[Measure]) -> None:
        """Forget the measures."""
        self._ask("withdraw", measures)
        for it in measures:
            self.standing.pop(it.key, None)

    def active(self) -> Mapping[Measure, ActiveMeasure]:
        """Return what is kept."""
        if self.fail is not None:
            raise self.fail
        return {it: ActiveMeasure(self.form(it), None) for it in self.standing.values()}

    def close(self) -> None:
        """Do nothing."""

    def _ask(self, what: str, measures: Sequence[Measure]) -> None:
        if self.fail is not None:
            raise self.fail
        self.calls.append((what, tuple(it.key for it in measures)))
