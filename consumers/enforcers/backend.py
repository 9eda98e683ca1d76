"""The interface of a backend: the code that makes one system apply measures.

A backend needs its system only, neither Kafka nor the policy. The reconciler compares
and calls it. A measure is in force if the backend lists it.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from consumers.mitigation.flow_match import invalid
from consumers.mitigation.measure import Measure, validate_measure
from fnm_bus.errors import FnmBusError, InvalidRecord

_MAX_LISTED: Final = 5
"""Maximum number of measures in an error."""


class BackendError(FnmBusError):
    """The system refused measures or did not answer; the text names them."""

    exit_code = 69
    retryable = True


class UnsupportedMeasure(BackendError):
    """The system can never apply this measure; the text names it and the remedy."""

    retryable = False


class DesiredMeasure(NamedTuple):
    """One wanted measure."""

    measure: Measure
    seconds_left: float


class ActiveMeasure(NamedTuple):
    """One measure in force, as the system lists it.

    Attributes:
        form: the system's form of the match; compares with `Backend.form`.
        seconds_left: seconds until the system itself ends it; None: it never does.
    """

    form: str
    seconds_left: float | None


class Backend(Protocol):
    """One system.

    Attributes:
        name: its name in policies and audit records.
        kinds: the kinds of measures that it supports.
    """

    name: str
    kinds: frozenset[str]

    def form(self, measure: Measure) -> str:
        """Return the system's action on the match of *measure*, as the system lists it.

        Raises:
            BackendError: the system can never apply this measure (not retryable).
        """

    def announce(self, wanted: Sequence[DesiredMeasure]) -> None:
        """Announce measures; a measure that is in force is renewed or replaced.

        Raises:
            BackendError: no measure or only a part was announced; `active` lists the
                measures in force.
        """

    def withdraw(self, measures: Sequence[Measure]) -> None:
        """Withdraw measures; a measure that is not in force is not an error.

        Raises:
            BackendError: as for `announce`.
        """

    def active(self) -> Mapping[Measure, ActiveMeasure]:
        """Return the measures in force, complete enough to withdraw them.

        Raises:
            BackendError: the system did not answer.
        """

    def close(self) -> None:
        """Close the connection to the system; measures stay in force."""


def require_supported(measure: Measure, kinds: frozenset[str]) -> None:
    """Make sure that a measure is valid, and one of *kinds*.

    Raises:
        UnsupportedMeasure: it is not; the text names the field.
    """
    try:
        validate_measure(measure)
        if measure.kind not in kinds:
            raise invalid("kind", f"only {' and '.join(sorted(kinds))} are supported")
    except InvalidRecord as exc:
        try:
            name = measure.key
        except ValueError:  # a prefix is not a network
            name = measure.kind
        raise UnsupportedMeasure(f"{name}: {exc}") from exc


def summarize(heading: str, reasons: Sequence[str]) -> str:
    """Return the first reasons of an error as one text."""
    omitted = len(reasons) - _MAX_LISTED
    listed = "; ".join(reasons[:_MAX_LISTED])
    return f"{heading}: {listed}" + (f"; and {omitted} more" if omitted > 0 else "")


class MemoryBackend:
    """Keeps measures in memory, for tests."""

    def __init__(
        self,
        name: str = "memory",
        kinds: frozenset[str] = frozenset({"blackhole", "flowspec", "firewall"}),
    ) -> None:
        self.name = name
        self.kinds = kinds
        self.measures: dict[str, Measure] = {}
        self.error: BackendError | None = None
        self.calls: list[tuple[str, tuple[str, ...]]] = []

    def form(self, measure: Measure) -> str:
        """Return the action and the communities as text."""
        then = measure.then
        action = (then.action, then.rate) if then else ()
        return f"{action}{measure.communities}"

    def announce(self, wanted: Sequence[DesiredMeasure]) -> None:
        """Keep the measures."""
        measures = [desired.measure for desired in wanted]
        self._record_call("announce", measures)
        self.measures.update({measure.key: measure for measure in measures})

    def withdraw(self, measures: Sequence[Measure]) -> None:
        """Delete the measures."""
        self._record_call("withdraw", measures)
        for measure in measures:
            self.measures.pop(measure.key, None)

    def active(self) -> Mapping[Measure, ActiveMeasure]:
        """Return the measures."""
        if self.error is not None:
            raise self.error
        return {
            measure: ActiveMeasure(self.form(measure), None)
            for measure in self.measures.values()
        }

    def close(self) -> None:
        """Do nothing."""

    def _record_call(self, method: str, measures: Sequence[Measure]) -> None:
        if self.error is not None:
            raise self.error
        self.calls.append((method, tuple(measure.key for measure in measures)))
