"""ExaBGP: blackholes and FlowSpec rules for a BGP neighbor.

This is one side of it, and runs in a process that ExaBGP starts; `config` starts
ExaBGP. A route stays until it is withdrawn or ExaBGP ends, whichever process has died;
the watchdog withdraws what this process does not.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from threading import Event

from consumers.enforcers.backend import (
    ActiveMeasure,
    BackendError,
    DesiredMeasure,
    UnsupportedMeasure,
)
from consumers.enforcers.exabgp import commands, listing
from consumers.enforcers.exabgp.commands import BlackholeAttributes
from consumers.enforcers.exabgp.neighbor import Neighbor
from consumers.enforcers.exabgp.session import Session
from consumers.mitigation.measure import BLACKHOLE, FLOWSPEC, Measure
from consumers.settings import ExabgpSettings

log = logging.getLogger(__name__)

_SHOWN = 5
"""How many of the refused measures an error names."""


class ExabgpBackend:
    """Announces routes by the ExaBGP that started this process.

    Args:
        reading: descriptor from which ExaBGP's lines come: 0 in an API process.
        writing: descriptor that takes commands, and nothing else: 1.
        settings: what routes of blackholes carry.
        patience: seconds of silence after which an answer is not waited for.

    Attributes:
        name: "exabgp".
        kinds: blackhole and flowspec.
    """

    def __init__(
        self,
        reading: int,
        writing: int,
        settings: ExabgpSettings,
        patience: float = 10.0,
    ) -> None:
        self.name = "exabgp"
        self.kinds = frozenset({BLACKHOLE, FLOWSPEC})
        self._session = Session(reading, writing, patience)
        self._attributes = BlackholeAttributes(
            settings.ipv4_next_hop, settings.ipv6_next_hop, settings.communities
        )
        self._neighbor = settings.neighbor
        self._forms: dict[str, str] = {}
        self._unsettled = True

    @property
    def neighbor(self) -> Neighbor | None:
        """The BGP session; None before ExaBGP has reported it."""
        return self._session.neighbor

    @property
    def gone(self) -> Event:
        """Set when ExaBGP has ended: then this process should, too."""
        return self._session.gone

    def open(self, when_gone: Callable[[], None] | None = None) -> None:
        """Begin to read ExaBGP's output; without a reader all of ExaBGP stops.

        The first question does this, too. A process that may never ask one (it only
        pretends) has to begin itself, and so does one that wants to end with ExaBGP.

        Args:
            when_gone: called, from a thread, when ExaBGP has ended.
        """
        self._session.open(when_gone)

    def form(self, measure: Measure) -> str:
        """Return the attributes of the measure's route, as ExaBGP takes them.

        Raises:
            UnsupportedMeasure: there is no such route.
        """
        return commands.form(measure, self._attributes)

    def announce(self, wanted: Sequence[DesiredMeasure]) -> None:
        """Announce routes; one with other attributes replaces the one that stands.

        Unsupported measures do not keep the others from being announced. While the
        session is down nothing is announced: such a route may reach the neighbor
        later, although it was withdrawn meanwhile, and stay.

        Raises:
            UnsupportedMeasure: some can never be announced; all the others are.
            BackendError: the session is down, ExaBGP refused some, or does not answer.
        """
        forms: dict[str, str] = {}
        measures, unfit = [], []
        for measure, _ in wanted:
            try:
                forms[measure.key] = self.form(measure)
                measures.append(measure)
            except UnsupportedMeasure as exc:
                unfit.append(str(exc))
        if measures:
            self._session.look()
            self._must_be_up()
            self._forms |= forms
            self._do(commands.announce(measures, self._attributes))
        if unfit:
            more = f" (and {len(unfit) - _SHOWN} more)" if len(unfit) > _SHOWN else ""
            raise UnsupportedMeasure(
                f"not for ExaBGP: {'; '.join(unfit[:_SHOWN])}{more}"
            )

    def withdraw(self, measures: Sequence[Measure]) -> None:
        """Withdraw routes, with the session up or down.

        Raises:
            BackendError: ExaBGP refused some, or does not answer.
        """
        texts = commands.withdraw(measures, self._attributes, self._forms)
        if texts:
            self._do(texts)

    def active(self) -> Mapping[Measure, ActiveMeasure]:
        """Return what is announced, or will be when the session is up.

        Raises:
            BackendError: ExaBGP does not answer.
        """
        found: dict[Measure, ActiveMeasure] = {}
        for line in self._session.ask([listing.COMMAND]):
            try:
                measure, standing = listing.listed(line)
            except ValueError as exc:
                log.warning(
                    "ExaBGP announces a route that is not ours: %s: %.300r", exc, line
                )
                continue
            found[measure] = standing
        self._forms = {it.key: standing.form for it, standing in found.items()}
        return found

    def close(self) -> None:
        """Stop reading; routes stay, and ExaBGP starts this process again."""
        self._session.close()

    def _do(self, texts: Sequence[str]) -> None:
        """Give commands and wait until they are sent, so that the next come after."""
        if self._unsettled:
            self._session.settle()
        self._unsettled = True
        self._session.ask(texts)
        self._session.settle()
        # While the session is down nothing is sent, and it waits for the next.
        self._unsettled = not self._session.up

    def _must_be_up(self) -> None:
        if not self._session.up:
            reason = self.neighbor.reason if self.neighbor else ""
            raise BackendError(
                f"the session with {self._neighbor} is down ({reason or 'not yet up'});"
                " routes are announced when it is up"
            )
