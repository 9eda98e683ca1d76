"""Enforcer: what makes one system match the wanted measures.

A backend knows its system and nothing of Kafka, leases' owners or people; the loop in
`enforce` compares and tells it what to do. What a backend has done counts when its own
listing says so.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from consumers.mitigation.measure import Measure
from fnm_bus.errors import FnmBusError


class BackendError(FnmBusError):
    """The system did not do what was asked, or does not answer; the text says which."""

    exit_code = 69
    retryable = True


class UnsupportedMeasure(BackendError):
    """The system can never do this measure; the text names it and the remedy."""

    retryable = False


class DesiredMeasure(NamedTuple):
    """One measure that is to stand.

    Attributes:
        measure: what is done.
        left: seconds until it is to be gone.
    """

    measure: Measure
    left: float


class ActiveMeasure(NamedTuple):
    """One measure that stands, as the system lists it.

    Attributes:
        form: what the system does with the match; compares with `Backend.form`.
        left: seconds until the system itself ends it; None: it does not by itself.
    """

    form: str
    left: float | None


class Backend(Protocol):
    """One system.

    Attributes:
        name: how policies and the audit topic call it.
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
        """Ask for measures; one that stands already is renewed or replaced.

        Raises:
            BackendError: nothing or only a part was asked for; what stands is what
                `active` lists.
        """

    def withdraw(self, measures: Sequence[Measure]) -> None:
        """Ask for measures to be gone; one that does not stand is no error.

        Raises:
            BackendError: as `announce`.
        """

    def active(self) -> Mapping[Measure, ActiveMeasure]:
        """Return what stands. A key's measure is enough to withdraw it by.

        Raises:
            BackendError: the system does not answer.
        """

    def close(self) -> None:
        """Let go of the system; what stands stays."""


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
