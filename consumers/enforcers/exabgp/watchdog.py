"""Withdraw expired routes that the enforcer did not withdraw.

The watchdog is ExaBGP's second API process. It reads leases from the enforcer's
snapshot and routes from ExaBGP's listing. It needs neither the enforcer nor Kafka, so
it works while the enforcer hangs, is stopped, or cannot be started.
"""

import logging
import sys
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

log = logging.getLogger(__name__)

BOUND: Final = 900.0
"""Seconds for what stands without a known end, when no snapshot can be read: as long as
a lease is unless the policy says otherwise."""

_TICK: Final = 1.0
_LIST: Final = 5.0
"""Seconds between two listings. 25,000 routes keep ExaBGP busy for half a second."""


class SeenRoutes(NamedTuple):
    """What was seen of one route that stands.

    Attributes:
        since: when it was first seen without a lease, in seconds of `snapshot.now`;
            None while it has one.
        ends: the last known end of its lease; None: never known.
    """

    since: float | None
    ends: float | None


def look(
    standing: Mapping[str, Measure],
    ends: Mapping[str, float] | None,
    seen: Mapping[str, SeenRoutes],
    now: float,
) -> dict[str, SeenRoutes]:
    """Return what is now known of what stands.

    Args:
        standing: key → what stands.
        ends: key → end of its lease, by the snapshot; None: it cannot be read.
        seen: what was known before.
        now: the clock of the leases.
    """
    found = {}
    for key in standing:
        before = seen.get(key, SeenRoutes(None, None))
        since = now if before.since is None else before.since
        if ends is None:
            found[key] = SeenRoutes(since, before.ends)
        elif key in ends:
            found[key] = SeenRoutes(None, ends[key])
        else:  # the enforcer has let go of it: an end from before does not hold
            found[key] = SeenRoutes(since, None)
    return found


def due(
    seen: Mapping[str, SeenRoutes],
    now: float,
    grace: float,
    *,
    readable: bool,
    bound: float = BOUND,
) -> dict[str, str]:
    """Return what is to be withdrawn: key → why.

    Args:
        seen: what is known of what stands.
        now: the clock of the leases.
        grace: seconds that the enforcer has to do it itself.
        readable: whether the snapshot can be read.
        bound: seconds for what never had a known end while it cannot be.
    """
    found = {}
    for key, it in seen.items():
        if it.ends is not None:
            if now > it.ends + grace:
                found[key] = f"its lease ended {now - it.ends:.0f} s ago"
        elif it.since is not None:
            alone = now - it.since
            if readable and alone > grace:
                found[key] = f"no lease for {alone:.0f} s"
            elif not readable and alone > bound + grace:
                found[key] = f"no readable snapshot for {alone:.0f} s"
    return found


class Watchdog:
    """Withdraws what is due.

    Args:
        backend: the routes.
        settings: the snapshot and the grace.
    """

    def __init__(self, backend: ExabgpBackend, settings: ExabgpSettings) -> None:
        self._backend = backend
        self._path = settings.snapshot
        self._grace = settings.watchdog_grace
        self._standing: Mapping[str, Measure] = {}
        self._seen: dict[str, SeenRoutes] = {}
        self._listed = -_LIST
        self._stamp: tuple[int, ...] | None = None
        self._ends: Mapping[str, float] | None = None
        self._fault = ""

    def turn(self) -> None:
        """Look once, and withdraw.

        Raises:
            ExabgpExited: ExaBGP has ended.
            BackendError: it does not answer.
        """
        now = clock.now()
        if now - self._listed >= _LIST:
            self._list()
        found = self._due()
        if not found:
            return
        self._list()  # perhaps it is gone by now
        found = self._due()
        for key, why in found.items():
            log.warning("withdrawing %s: %s", key, why)
        self._backend.withdraw([self._standing[it] for it in found])

    def _list(self) -> None:
        self._standing = {it.key: it for it in self._backend.active()}
        self._listed = clock.now()

    def _due(self) -> Mapping[str, str]:
        # Read after the listing: a lease is written before its route is announced.
        self._read()
        now = clock.now()
        self._seen = look(self._standing, self._ends, self._seen, now)
        return due(self._seen, now, self._grace, readable=self._ends is not None)

    def _read(self) -> None:
        try:
            it = self._path.stat()
            stamp = (it.st_ino, it.st_mtime_ns, it.st_size)
            if stamp == self._stamp:
                return
            known = snapshot.load(self._path)
            fault = "" if known else f"{self._path}: no such file"
        except OSError as exc:
            stamp, known, fault = None, None, f"{self._path}: {exc.strerror}"
        except SnapshotError as exc:
            known, fault = None, str(exc)
        self._stamp = stamp if known else None
        self._ends = None
        if known is not None:
            self._ends = {key: lease.ends for key, lease in known.leases.items()}
        if fault != self._fault:
            # Before the first lease there is no snapshot, and nothing to look after.
            level = logging.WARNING if self._standing else logging.INFO
            log.log(level, "%s", fault or f"{self._path} can be read again")
        self._fault = fault


def run(settings: ExabgpSettings) -> None:
    """Be the watchdog until ExaBGP ends; what it withdraws is told on stderr."""
    logging.basicConfig(stream=sys.stderr, format="watchdog: %(message)s", level="INFO")
    reading, writing = session.pipes()
    backend = ExabgpBackend(reading, writing, settings)
    watchdog = Watchdog(backend, settings)
    while True:
        try:
            watchdog.turn()
        except ExabgpExited:
            break
        except BackendError as exc:
            log.warning("%s", exc)
        if backend.gone.wait(_TICK):
            break
    backend.close()
