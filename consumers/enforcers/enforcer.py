"""Enforce: make one system match the wanted state, and keep it so.

    mitigation topic ▶ leases ─┐
    snapshot ▶ leases ─────────┴▶ compare with the system's listing ▶ correct ▶ report

LeaseTable are counted here, on a clock that nobody can set, with Kafka gone as well.
Nothing is withdrawn on the word of a topic that was not read to its end.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, time
from typing import Final

from consumers.enforcers import snapshot
from consumers.enforcers.audit_publisher import AuditPublisher
from consumers.enforcers.backend import Backend, BackendError
from consumers.enforcers.diff import Diff, compare
from consumers.enforcers.lease_table import LeaseTable
from consumers.enforcers.snapshot import Lease, Snapshot, SnapshotError
from consumers.enforcers.wanted_reader import End, WantedStateReader
from consumers.metrics import EnforcerMetrics
from consumers.mitigation import clock
from consumers.mitigation.measure import Measure
from fnm_bus.event import Mitigation
from fnm_bus.reader import Read

log = logging.getLogger(__name__)

_POLL: Final = 0.1
"""Seconds to wait for news; the end of a lease is noticed this late at most."""
_FIRST_WORD: Final = 3.0
"""Seconds to wait at the start for the broker to say what time it is."""


@dataclass
class Enforcer:
    """One enforcer at work.

    Attributes:
        backend: knows the system.
        watching: reads the wanted state.
        report: tells the audit topic.
        path: of the snapshot.
        interval: seconds between two comparisons.
        max_clock_skew: seconds of difference between clocks that are told as a fault.
        dry_run: whether the system is left alone.
        metrics: its figures.
        turned_at: when its loop turned last, on the monotonic clock.
    """

    backend: Backend
    watching: WantedStateReader
    report: AuditPublisher
    path: Path
    interval: float
    max_clock_skew: float
    dry_run: bool
    metrics: EnforcerMetrics
    turned_at: float = field(default_factory=monotonic)
    leases: LeaseTable = field(init=False)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _saved: Mapping[str, Lease] = field(default_factory=dict)
    _in_force: dict[str, Measure] = field(default_factory=dict)
    _ours: dict[str, Measure] = field(default_factory=dict)
    _fault: str = ""
    _skewed: bool = False
    _impossible: Mapping[str, str] = field(default_factory=dict)
    _due: float = 0.0

    def __post_init__(self) -> None:
        self.leases = LeaseTable(self.backend.name, self.backend.kinds)

    def run(self) -> None:
        """Enforce until `stop`; what stands then stays until its leases end.

        Raises:
            ConfigError: librdkafka refuses the settings.
        """
        mode = "dry run: nothing is touched" if self.dry_run else "live"
        log.info("enforcing: %s, %s", self.backend.name, mode)
        self._restore()
        self.report.open()
        self.report.tell("started", mode, dry_run=self.dry_run)
        self.report.flush(_FIRST_WORD)
        self.watching.start()
        try:
            while not self._stopping.is_set():
                self.turn()
        finally:
            self.watching.stop()
            self.report.close()
            self.backend.close()

    def stop(self) -> None:
        """Ask `run` to end; may be called from a signal handler."""
        self._stopping.set()

    def turn(self) -> None:
        """Take what is new, and compare when it is time to."""
        self.turned_at = monotonic()
        news = self._take()
        self.report.poll()
        now = clock.now()
        wanted = self.leases.wanted(now)
        if news or now >= self._due or wanted.keys() != self._saved.keys():
            self._due = now + self.interval
            if self.dry_run:
                self._pretend(wanted)
            else:
                self._enforce(wanted, now)
        self._show(wanted)

    def _restore(self) -> None:
        try:
            found = snapshot.load(self.path)
        except SnapshotError as exc:
            log.error("no snapshot: %s", exc)  # noqa: TRY400 - the text says all
            return
        if found is not None and not self.dry_run:
            self.leases.restore(found.leases)
            self._ours = {key: it.measure for key, it in found.leases.items()}

    def _take(self) -> bool:
        news = False
        for it in self.watching.take(_POLL):
            if isinstance(it, End):
                news = True
                alone = self.leases.finish()
                if alone:
                    text = f"{len(alone)} are not in the topic; kept until they end"
                    self.report.tell("held", text)
            else:
                news = self._apply(it) or news
        return news

    def _apply(self, read: Read) -> bool:
        key = (read.key or b"").decode(errors="replace")
        event = read.event if isinstance(read.event, Mitigation) else None
        if read.value and (event is None or event.key != key):
            self.metrics.broken.labels(self.backend.name).inc()
            log.error("%s@%d: left out: %s", read.topic, read.offset, read.error)
            return False
        here = self.report.broker_time() or datetime.now(UTC)
        age = max((here - read.at).total_seconds(), 0.0)
        return self.leases.apply(key, event, age, clock.now())

    def _enforce(self, wanted: Mapping[str, Lease], now: float) -> None:
        name = self.backend.name
        try:
            certain = self._save(wanted)
            self._at_once(wanted if certain else {}, wanted, now)
            active = self.backend.active()
            found = compare(
                wanted, active, self.backend.form, now, complete=self.leases.complete
            )
            # What is known to have ended goes, also before the topic is read.
            known = [
                it for it in active if it.key in self._ours and it.key not in wanted
            ]
            found = found._replace(
                announce=found.announce if certain else [],
                withdraw=list({*found.withdraw, *known}),
            )
            if found.announce or found.withdraw:
                self._correct(found)
                active = self.backend.active()
        except BackendError as exc:
            self._fail(str(exc))
            self._due = now + min(self.interval, 1.0)
            return
        if certain and self._fault:
            self._fault = ""
            self.report.tell("started", "all is well again")
        self.metrics.last_reconcile.labels(name).set(time())
        self._tell(wanted, {it.key: it for it in active}, found.impossible)

    def _fail(self, text: str) -> None:
        self.metrics.failures.labels(self.backend.name).inc()
        if self._fault != text:
            self._fault = text
            self.report.tell("failed", text)

    def _at_once(
        self, sure: Mapping[str, Lease], wanted: Mapping[str, Lease], now: float
    ) -> None:
        """Do what is new without looking first; the comparison follows anyway."""
        new = {key: it for key, it in sure.items() if key not in self._in_force}
        over = self._in_force.keys() - wanted.keys()
        if not self.leases.complete:
            over &= self._ours.keys()  # of anything else nobody knows yet
        gone = [self._in_force[key] for key in sorted(over)]
        if new or gone:
            first = compare(new, {}, self.backend.form, now, complete=False)
            self._correct(first._replace(withdraw=gone))

    def _correct(self, found: Diff) -> None:
        # Taking back comes first: a limit of the system must not keep it from that.
        if found.withdraw:
            self.backend.withdraw(found.withdraw)
            self.metrics.withdrawn.labels(self.backend.name).inc(len(found.withdraw))
        if found.announce:
            self.backend.announce(found.announce)
            self.metrics.announced.labels(self.backend.name).inc(len(found.announce))

    def _save(self, wanted: Mapping[str, Lease]) -> bool:
        """Write down what may stand from now on, before it does.

        Returns:
            Whether it is on disk. If not, nothing may be announced: nobody else would
            know when to take it back. Taking back goes on.
        """
        if wanted != self._saved:
            try:
                snapshot.save(self.path, Snapshot(wanted))
            except SnapshotError as exc:
                self._fail(str(exc))
                return False
            self._saved = dict(wanted)
            self._ours.update({key: it.measure for key, it in wanted.items()})
        return True

    def _tell(
        self,
        wanted: Mapping[str, Lease],
        active: Mapping[str, Measure],
        impossible: Mapping[str, str],
    ) -> None:
        for key in active.keys() - self._in_force.keys():
            self.report.tell("in-force", "the system lists it", key=key)
        for key in self._in_force.keys() - active.keys():
            what = "failed" if key in wanted else "withdrawn"
            self.report.tell(what, "the system lists it no more", key=key)
        for key in self._in_force.keys() - wanted.keys() - active.keys():
            self._ours.pop(key, None)
        for key, why in impossible.items():
            if self._impossible.get(key) != why:
                self.report.tell("failed", why, key=key)
        self._impossible = impossible
        self._in_force = dict(active)

    def _pretend(self, wanted: Mapping[str, Lease]) -> None:
        for key in wanted.keys() - self._in_force.keys():
            self.report.tell("in-force", "would be announced", key=key, dry_run=True)
        for key in self._in_force.keys() - wanted.keys():
            self.report.tell("withdrawn", "would be withdrawn", key=key, dry_run=True)
        self._in_force = {key: it.measure for key, it in wanted.items()}
        self._saved = dict(wanted)

    def _show(self, wanted: Mapping[str, Lease]) -> None:
        name = self.backend.name
        self.metrics.wanted.labels(name).set(len(wanted))
        self.metrics.active.labels(name).set(len(self._in_force))
        self.metrics.synced.labels(name).set(self.leases.complete)
        skew = self.report.skew
        if skew is not None:
            self.metrics.skew.labels(name).set(skew)
            skewed = abs(skew) > self.max_clock_skew
            if skewed and not self._skewed:
                text = f"clocks differ by {skew:.0f} s: set ours or the broker's"
                self.report.tell("failed", text)
            self._skewed = skewed
