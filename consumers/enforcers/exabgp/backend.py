"""The ExaBGP backend: blackholes and FlowSpec rules for a BGP neighbor.

The backend runs in a process that ExaBGP starts; `config` starts ExaBGP. A route stays
announced until it is withdrawn or ExaBGP ends, even if this process dies. The watchdog
withdraws expired routes that this process does not withdraw.
"""

from collections.abc import Callable, Mapping, Sequence
from threading import Event

from consumers.enforcers.backend import (
    ActiveMeasure,
    BackendError,
    DesiredMeasure,
    UnsupportedMeasure,
    summarize,
)
from consumers.enforcers.exabgp import commands, listing
from consumers.enforcers.exabgp.commands import BlackholeAttributes
from consumers.enforcers.exabgp.neighbor import COMMAND, Neighbor
from consumers.enforcers.exabgp.session import Session
from consumers.mitigation.measure import Measure
from consumers.settings import ExabgpSettings
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)


class ExabgpBackend:
    """Announces routes with the ExaBGP that started this process.

    Args:
        reading: descriptor of ExaBGP's output; 0 in an API process.
        writing: descriptor for commands only; 1 in an API process.
        settings: the neighbor and the attributes of blackhole routes.
        timeout: seconds without output from ExaBGP until a request fails.
    """

    def __init__(
        self,
        reading: int,
        writing: int,
        settings: ExabgpSettings,
        timeout: float = 10.0,
    ) -> None:
        self.name = "exabgp"
        self.kinds = commands.KINDS
        self._session = Session(reading, writing, timeout)
        self._attributes = BlackholeAttributes(
            settings.ipv4_next_hop, settings.ipv6_next_hop, settings.communities
        )
        self._neighbor = settings.neighbor
        self._forms: dict[str, str] = {}
        self._has_unsent = True

    @property
    def neighbor(self) -> Neighbor | None:
        """The BGP session; None until ExaBGP has reported it."""
        return self._session.neighbor

    @property
    def exited(self) -> Event:
        """Set when ExaBGP has exited; this process should then exit too."""
        return self._session.exited

    def open(self, on_exit: Callable[[], None] | None = None) -> None:
        """Start to read ExaBGP's output; without a reader ExaBGP blocks.

        The first request starts it too. A dry run makes no request and has to call
        this, and so does a process that has to exit with ExaBGP.
        """
        self._session.open(on_exit)

    def form(self, measure: Measure) -> str:
        """Return the attributes of the measure's route, as ExaBGP's text."""
        return commands.form_of(measure, self._attributes)

    def announce(self, wanted: Sequence[DesiredMeasure]) -> None:
        """Announce routes; a route with other attributes replaces the earlier one.

        Unsupported measures do not prevent the others. While the session is down,
        nothing is announced: such a route may reach the neighbor after its withdrawal,
        and stay.
        """
        forms: dict[str, str] = {}
        measures, unsupported = [], []
        for measure, _ in wanted:
            try:
                forms[measure.key] = self.form(measure)
                measures.append(measure)
            except UnsupportedMeasure as exc:
                unsupported.append(str(exc))
        if measures:
            self._session.request([COMMAND])  # updates `up`
            self._require_session()
            self._forms |= forms
            self._send(commands.announce_commands(measures, self._attributes))
        if unsupported:
            raise UnsupportedMeasure(summarize("ExaBGP does not support", unsupported))

    def withdraw(self, measures: Sequence[Measure]) -> None:
        """Withdraw routes, even if the session is down."""
        texts = commands.withdraw_commands(measures, self._attributes, self._forms)
        if texts:
            self._send(texts)

    def active(self) -> Mapping[Measure, ActiveMeasure]:
        """Return ExaBGP's routes; they are announced once the session is up."""
        routes: dict[Measure, ActiveMeasure] = {}
        for line in self._session.request([listing.COMMAND]):
            try:
                measure, route = listing.parse_route(line)
            except ValueError as exc:
                log.warning("foreign_route", error=exc, line=line[:300])
                continue
            routes[measure] = route
        self._forms = {measure.key: route.form for measure, route in routes.items()}
        return routes

    def close(self) -> None:
        """Stop reading; routes stay announced, and ExaBGP restarts this process."""
        self._session.close()

    def _send(self, texts: Sequence[str]) -> None:
        """Send commands, and wait for their UPDATEs, so that later ones follow them."""
        if self._has_unsent:
            self._session.wait_sent()
        self._has_unsent = True
        self._session.request(texts)
        self._session.wait_sent()
        # ExaBGP keeps the UPDATEs while the session is down.
        self._has_unsent = not self._session.up

    def _require_session(self) -> None:
        if not self._session.up:
            reason = self.neighbor.reason if self.neighbor else ""
            raise BackendError(
                f"the session with {self._neighbor} is down ({reason or 'not yet up'});"
                " routes are announced once it is up"
            )
