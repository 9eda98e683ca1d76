"""Withdraw expired routes that the enforcer did not withdraw.

The watchdog is ExaBGP's second API process. It reads leases from the enforcer's
snapshot and routes from ExaBGP's listing. It needs neither the enforcer nor Kafka, so
it works while the enforcer hangs, is stopped, or cannot be started.
"""

import logging
from collections.abc import Mapping
from typing import Final, NamedTuple

from consumers.enforcers import snapshot
from consumers.enforcers.backend import BackendError
from consumers.enforcers.exabgp import session
from consumers.enforcers.exabgp.backend import ExabgpBackend
from consumers.enforcers.exabgp.session import ExabgpExited
from consumers.enforcers.snapshot import SnapshotError
from consumers.mitigation import clock
from consumers.mitigation.measure import Measure
from consumers.settings import ExabgpSettings
from fnm_bus.ops.log import configure, get_logger

log = get_logger(__name__)

_MAX_UNKNOWN: Final = 900.0
"""Seconds for a route without a known end while the snapshot is unreadable: the default
length of a lease."""

_TICK: Final = 1.0
_LIST_INTERVAL: Final = 5.0
"""Seconds between two listings. 25,000 routes keep ExaBGP busy for half a second."""


class RouteLease(NamedTuple):
    """The lease of one announced route.

    Attributes:
        unleased_since: when the route was first listed without a lease, in seconds of
            `clock.now`; None while it has a lease.
        ends: the last known end of its lease; None: unknown.
    """

    unleased_since: float | None
    ends: float | None


def update_leases(
    routes: Mapping[str, Measure],
    ends: Mapping[str, float] | None,
    leases: Mapping[str, RouteLease],
    now: float,
) -> dict[str, RouteLease]:
    """Return the leases of the announced routes.

    Args:
        routes: key → announced route.
        ends: key → end of its lease in the snapshot; None: the snapshot is unreadable.
        leases: the leases so far.
        now: the clock of the leases.
    """
    updated = {}
    for key in routes:
        lease = leases.get(key, RouteLease(None, None))
        since = now if lease.unleased_since is None else lease.unleased_since
        if ends is None:
            updated[key] = RouteLease(since, lease.ends)
        elif key in ends:
            updated[key] = RouteLease(None, ends[key])
        else:  # the enforcer has ended the lease, so an earlier end does not count
            updated[key] = RouteLease(since, None)
    return updated


def expired_routes(
    leases: Mapping[str, RouteLease], now: float, grace: float, *, readable: bool
) -> dict[str, str]:
    """Return the routes to withdraw: key → reason.

    Args:
        leases: the leases of the announced routes.
        now: the clock of the leases.
        grace: seconds in which the enforcer can withdraw a route itself.
        readable: whether the snapshot is readable.
    """
    reasons = {}
    for key, lease in leases.items():
        if lease.ends is not None:
            if now > lease.ends + grace:
                reasons[key] = f"its lease ended {now - lease.ends:.0f} s ago"
        elif lease.unleased_since is not None:
            unleased = now - lease.unleased_since
            if readable and unleased > grace:
                reasons[key] = f"no lease for {unleased:.0f} s"
            elif not readable and unleased > _MAX_UNKNOWN + grace:
                reasons[key] = f"no readable snapshot for {unleased:.0f} s"
    return reasons


class Watchdog:
    """Withdraws expired routes."""

    def __init__(self, backend: ExabgpBackend, settings: ExabgpSettings) -> None:
        self._backend = backend
        self._path = settings.snapshot
        self._grace = settings.watchdog_grace
        self._routes: Mapping[str, Measure] = {}
        self._leases: dict[str, RouteLease] = {}
        self._listed_at = -_LIST_INTERVAL
        self._file_version: tuple[int, ...] | None = None
        self._ends: Mapping[str, float] | None = None
        self._snapshot_error = ""

    def run_once(self) -> None:
        """Withdraw the routes that are expired now.

        Raises:
            ExabgpExited: ExaBGP has exited.
            BackendError: ExaBGP did not answer.
        """
        if clock.now() - self._listed_at >= _LIST_INTERVAL:
            self._list_routes()
        if not self._expired_routes():
            return
        self._list_routes()  # the enforcer may have withdrawn them meanwhile
        reasons = self._expired_routes()
        for key, reason in reasons.items():
            log.warning("expired_route_withdrawn", mitigation=key, reason=reason)
        self._backend.withdraw([self._routes[key] for key in reasons])

    def _list_routes(self) -> None:
        self._routes = {measure.key: measure for measure in self._backend.active()}
        self._listed_at = clock.now()

    def _expired_routes(self) -> Mapping[str, str]:
        # After the listing: a lease is saved before its route is announced.
        self._read_snapshot()
        now = clock.now()
        self._leases = update_leases(self._routes, self._ends, self._leases, now)
        readable = self._ends is not None
        return expired_routes(self._leases, now, self._grace, readable=readable)

    def _read_snapshot(self) -> None:
        version, saved = None, None
        try:
            status = self._path.stat()
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            if version == self._file_version:
                return
            saved = snapshot.load(self._path)
            error = "" if saved else f"{self._path}: no such file"
        except OSError as exc:
            error = f"{self._path}: {exc.strerror}"
        except SnapshotError as exc:
            error = str(exc)
        self._file_version = version if saved else None
        self._ends = None
        if saved is not None:
            self._ends = {key: lease.ends for key, lease in saved.leases.items()}
        if error != self._snapshot_error:
            # The enforcer writes the first snapshot before its first route.
            level = logging.WARNING if self._routes else logging.INFO
            log.log(
                level,
                "snapshot_unreadable" if error else "snapshot_readable",
                file=self._path,
                error=error or None,
            )
        self._snapshot_error = error


def run(settings: ExabgpSettings) -> None:
    """Run the watchdog until ExaBGP exits; log withdrawals to stderr."""
    configure("info", "console")
    reading, writing = session.pipes()
    backend = ExabgpBackend(reading, writing, settings)
    watchdog = Watchdog(backend, settings)
    while True:
        try:
            watchdog.run_once()
        except ExabgpExited:
            break
        except BackendError as exc:
            log.warning("exabgp_unanswered", error=exc)
        if backend.exited.wait(_TICK):
            break
    backend.close()
