"""The loop that makes one system match the wanted state.

    mitigation and command topic ─┐
    snapshot ─────────────────────┴▶ wanted state ▶ diff with the system ▶ correct

Leases are counted here, on a clock that nobody can set, with Kafka unreachable as well.
Nothing is withdrawn until the topic was read to its end, unless a person pauses.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, time
from typing import Final

from consumers.enforcers import snapshot
from consumers.enforcers.audit_publisher import AuditPublisher
from consumers.enforcers.backend import Backend, BackendError, DesiredMeasure
from consumers.enforcers.broker_time import TimeRequests
from consumers.enforcers.diff import Diff, compare
from consumers.enforcers.snapshot import Lease, Snapshot, SnapshotError
from consumers.enforcers.wanted_reader import CommandReader, WantedStateReader
from consumers.enforcers.wanted_state import WantedState
from consumers.metrics import EnforcerMetrics
from consumers.mitigation import clock
from consumers.mitigation.clock import BrokerClock
from consumers.mitigation.measure import Measure, Network
from fnm_bus.errors import ConfigError

log = logging.getLogger(__name__)

_POLL: Final = 0.1
"""Seconds to wait for records; the end of a lease is noticed this late at most."""
_FIRST_ANSWER: Final = 3.0
"""Seconds to wait at the start for the broker's time."""
_BATCH: Final = 1000
"""Measures that are announced before the next look at the command topic."""
_SAME_END: Final = 0.5
"""Seconds by which a lease may move before the snapshot is written again."""
_RETRY: Final = 1.0


@dataclass
class Enforcer:
    """One enforcer at work.

    Attributes:
        backend: the system.
        wanted_reader: reads the mitigation topic.
        command_reader: reads the command topic.
        audit: publishes what was done.
        broker_clock: what time it is at the broker.
        path: of the snapshot.
        interval: seconds between two comparisons.
        max_clock_skew: seconds between the broker's clock and this machine's from which
            on that is reported.
        own_networks: where measures are allowed; None: not checked, in a dry run.
        dry_run: whether the system is left alone.
        metrics: its metrics.
        turned_at: when its loop turned last, on the monotonic clock.
    """

    backend: Backend
    wanted_reader: WantedStateReader
    command_reader: CommandReader
    audit: AuditPublisher
    broker_clock: BrokerClock
    path: Path
    interval: float
    max_clock_skew: float
    own_networks: Sequence[Network] | None
    dry_run: bool
    metrics: EnforcerMetrics
    turned_at: float = field(default_factory=monotonic)
    state: WantedState = field(init=False)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _saved: Snapshot = field(default_factory=lambda: Snapshot({}))
    _in_force: dict[str, Measure] = field(default_factory=dict)
    _ours: dict[str, Measure] = field(default_factory=dict)
    _fault: str = ""
    _skewed: bool = False
    _crashed: bool = False
    _unsupported: Mapping[str, str] = field(default_factory=dict)
    _lost: int = 0
    _restarts: int = 0
    _due: float = 0.0
    _time_requests: TimeRequests = field(init=False)

    def __post_init__(self) -> None:
        self._time_requests = TimeRequests(self.audit, self.broker_clock)
        self.state = WantedState(
            self.backend,
            self.own_networks,
            self.broker_clock,
            self.audit,
            self.metrics,
        )

    def run(self) -> None:
        """Enforce until `stop`; what is in force then stays until its leases end.

        Raises:
            ConfigError: librdkafka refuses the settings.
        """
        mode = "dry run: nothing is touched" if self.dry_run else "live"
        log.info("enforcing: %s, %s", self.backend.name, mode)
        self._restore()
        self.audit.open()
        self.audit.publish("started", mode, dry_run=self.dry_run)
        self.audit.flush(_FIRST_ANSWER)
        self.wanted_reader.start()
        self.command_reader.start()
        try:
            while not self._stopping.is_set():
                self._turn_safely()
        finally:
            self.wanted_reader.stop()
            self.command_reader.stop()
            self.audit.close()
            self.backend.close()

    def stop(self) -> None:
        """Make `run` return; may be called from a signal handler."""
        self._stopping.set()

    def healthy(self) -> bool:
        """Return whether its threads read and its last turn ended well."""
        readers = self.wanted_reader, self.command_reader
        return not self._crashed and all(it.healthy for it in readers)

    def facts(self) -> Mapping[str, object]:
        """Return what /healthz shows of it."""
        return {
            "synced": self.state.synced,
            "paused": self.state.paused,
            "broker_time_known": self.broker_clock.known,
            "wanted_reader": self.wanted_reader.healthy,
            "command_reader": self.command_reader.healthy,
        }

    def turn(self) -> None:
        """Take new records, and compare when that is due or something changed."""
        self.turned_at = monotonic()
        changed = self._take_commands()
        changed = self.state.apply(self.wanted_reader.take(_POLL)) or changed
        changed = self._take_commands() or changed
        self.audit.poll()
        self._time_requests.poll()
        now = clock.now()
        wanted = self.state.active_at(now)
        if changed or now >= self._due or wanted.keys() != self._saved.leases.keys():
            self._due = now + self.interval
            if self.dry_run:
                self._pretend(wanted)
            else:
                self._enforce(wanted, now)
        self._show(wanted)

    def _restore(self) -> None:
        try:
            saved = snapshot.load(self.path)
        except SnapshotError as exc:
            log.error("no snapshot: %s", exc)  # noqa: TRY400 - the text has the reason
            return
        if saved is None:
            return
        self._saved = saved
        self.state.restore(saved, leases=not self.dry_run)
        if not self.dry_run:
            self._ours = {key: it.measure for key, it in saved.leases.items()}

    def _turn_safely(self) -> None:
        try:
            self.turn()
            self._crashed = False
        except ConfigError:
            raise
        except Exception as exc:
            # Whatever it was, leases have to end: the next turn begins from scratch.
            self._crashed = True
            log.exception("a turn failed")
            self._fail(f"unexpected {type(exc).__name__}: {exc!s:.200}")
            self._stopping.wait(_RETRY)

    def _take_commands(self) -> bool:
        """Obey pause commands; return whether one pauses."""
        return self.state.obey(self.command_reader.take(0))

    def _enforce(self, wanted: Mapping[str, Lease], now: float) -> None:
        synced = self.state.synced or self.state.paused
        faults = []
        fault = self._save(wanted)
        if fault:
            faults.append(fault)
        sure = {} if fault else wanted
        faults += self._act_on_changes(sure, wanted, now)
        try:
            active = self.backend.active()
            diff = compare(wanted, active, self.backend.form, now, synced=synced)
            # What is known to have ended goes, also before the topic is read.
            ended = [it for it in active if it.key in self._ours.keys() - wanted.keys()]
            diff = diff._replace(
                announce=[] if fault else diff.announce,
                withdraw=list({*diff.withdraw, *ended}),
            )
            if diff.announce or diff.withdraw:
                faults += self._correct(diff)
                active = self.backend.active()
        except BackendError as exc:
            self._fail("; ".join(dict.fromkeys([*faults, str(exc)])))
            self._due = now + min(self.interval, _RETRY)
            return
        self.metrics.last_reconcile.labels(self.backend.name).set(time())
        self._report(wanted, {it.key: it for it in active}, diff.unsupported)
        if faults:
            self._fail("; ".join(dict.fromkeys(faults)))
            self._due = now + min(self.interval, _RETRY)
        elif self._fault:
            self._fault = ""
            self.audit.publish("started", "no faults any more")

    def _fail(self, text: str) -> None:
        self.metrics.failures.labels(self.backend.name).inc()
        if self._fault != text:
            self._fault = text
            self.audit.publish("failed", text)

    def _act_on_changes(
        self, sure: Mapping[str, Lease], wanted: Mapping[str, Lease], now: float
    ) -> list[str]:
        """Act on what is new before the system is listed; return what failed."""
        new = {key: it for key, it in sure.items() if key not in self._in_force}
        over = self._in_force.keys() - wanted.keys()
        if not (self.state.synced or self.state.paused):
            over &= self._ours.keys()  # of others nothing is known yet
        withdraw = [self._in_force[key] for key in sorted(over)]
        if not (new or withdraw):
            return []
        first = compare(new, {}, self.backend.form, now, synced=False)
        return self._correct(first._replace(withdraw=withdraw))

    def _correct(self, diff: Diff) -> list[str]:
        """Withdraw and announce; return what failed.

        Withdrawing comes first: a limit of the system must not prevent it. Neither
        failure prevents the other part.
        """
        faults = []
        name = self.backend.name
        if diff.withdraw:
            try:
                self.backend.withdraw(diff.withdraw)
                self.metrics.withdrawn.labels(name).inc(len(diff.withdraw))
            except BackendError as exc:
                faults.append(str(exc))
        for start in range(0, len(diff.announce), _BATCH):
            self._take_commands()
            if self.state.paused:
                break  # the next turn withdraws everything
            batch: list[DesiredMeasure] = diff.announce[start : start + _BATCH]
            try:
                self.backend.announce(batch)
                self.metrics.announced.labels(name).inc(len(batch))
            except BackendError as exc:
                faults.append(str(exc))
                if exc.retryable:
                    break  # the system does not answer now
        return faults

    def _save(self, wanted: Mapping[str, Lease]) -> str:
        """Write what may be in force from now on, before it is.

        Returns:
            "", or why it is not on disk. Then nothing may be announced: no other
            program would know when to withdraw it. Withdrawing goes on.
        """
        current = Snapshot(wanted, self.state.pause_command)
        if _differ(current, self._saved):
            try:
                snapshot.save(self.path, current)
            except SnapshotError as exc:
                return str(exc)
            self._saved = current
        self._ours.update({key: it.measure for key, it in wanted.items()})
        return ""

    def _report(
        self,
        wanted: Mapping[str, Lease],
        active: Mapping[str, Measure],
        unsupported: Mapping[str, str],
    ) -> None:
        for key in active.keys() - self._in_force.keys():
            self.audit.publish("in-force", "the system lists it", key=key)
        for key in self._in_force.keys() - active.keys():
            what = "failed" if key in wanted else "withdrawn"
            self.audit.publish(what, "the system does not list it any more", key=key)
        for key, text in unsupported.items():
            if self._unsupported.get(key) != text:
                self.audit.publish("failed", text, code="unsupported", key=key)
        self._unsupported = unsupported
        self._in_force = dict(active)
        kept = self._ours.keys() & (wanted.keys() | active.keys())
        self._ours = {key: self._ours[key] for key in kept}

    def _pretend(self, wanted: Mapping[str, Lease]) -> None:
        for key in wanted.keys() - self._in_force.keys():
            self.audit.publish("in-force", "would be announced", key=key, dry_run=True)
        for key in self._in_force.keys() - wanted.keys():
            self.audit.publish("withdrawn", "would be withdrawn", key=key, dry_run=True)
        self._in_force = {key: it.measure for key, it in wanted.items()}
        self._saved = Snapshot(wanted, self.state.pause_command)

    def _show(self, wanted: Mapping[str, Lease]) -> None:
        name = self.backend.name
        self.metrics.wanted.labels(name).set(len(wanted))
        self.metrics.active.labels(name).set(len(self._in_force))
        self.metrics.synced.labels(name).set(self.state.synced)
        self.metrics.paused.labels(name).set(self.state.paused)
        lost, self._lost = self.audit.lost - self._lost, self.audit.lost
        self.metrics.lost_audit.labels(name).inc(lost)
        restarts = self.wanted_reader.restarts + self.command_reader.restarts
        self.metrics.reader_restarts.labels(name).inc(restarts - self._restarts)
        self._restarts = restarts
        skew = self.broker_clock.skew()
        if skew is not None:
            self.metrics.skew.labels(name).set(skew)
            skewed = abs(skew) > self.max_clock_skew
            if skewed and not self._skewed:
                text = (
                    f"clocks differ by {skew:.0f} s: set this machine's or the broker's"
                )
                self.audit.publish("failed", text, code="clock_skew")
            self._skewed = skewed


def _differ(current: Snapshot, saved: Snapshot) -> bool:
    """Return whether *saved* does not tell when everything of *current* ends."""
    if (
        current.pause_command != saved.pause_command
        or current.leases.keys() != saved.leases.keys()
    ):
        return True
    return any(
        it.measure != (old := saved.leases[key]).measure
        or abs(it.ends - old.ends) > _SAME_END
        for key, it in current.leases.items()
    )
