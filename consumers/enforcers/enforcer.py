"""The loop that makes one system match the wanted state.

    mitigation and command topic ─┐
    snapshot ─────────────────────┴▶ wanted state ▶ reconciler ▶ the system

Leases are counted here, on a clock that nobody can set, with Kafka unreachable as well.
Nothing is withdrawn until the topic was read to its end, unless a person pauses.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final

from consumers.enforcers.audit_publisher import AuditPublisher
from consumers.enforcers.backend import Backend
from consumers.enforcers.broker_time import TimeRequests
from consumers.enforcers.reconciler import Reconciler
from consumers.enforcers.snapshot import Lease, Snapshot
from consumers.enforcers.wanted_reader import CommandReader, WantedStateReader
from consumers.enforcers.wanted_state import WantedState
from consumers.metrics import EnforcerMetrics
from consumers.mitigation import clock
from consumers.mitigation.clock import BrokerClock
from consumers.mitigation.measure import Network
from fnm_bus.errors import ConfigError
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_POLL: Final = 0.1
"""Seconds to wait for records; the end of a lease is noticed this late at most."""
_FIRST_ANSWER: Final = 3.0
"""Seconds to wait at the start for the broker's time."""
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
    _reconciler: Reconciler = field(init=False)
    _skewed: bool = False
    _crashed: bool = False
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
        self._reconciler = Reconciler(
            self.backend, self.path, self.audit, self.metrics, self._paused
        )

    def run(self) -> None:
        """Enforce until `stop`; what is in force then stays until its leases end.

        Raises:
            ConfigError: librdkafka refuses the settings.
        """
        mode = "dry run: nothing is touched" if self.dry_run else "live"
        log.info("enforcing", backend=self.backend.name, mode=mode)
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
        well = all(reader.healthy for reader in readers)
        return well and not (self._crashed or self.audit.problem)

    def facts(self) -> Mapping[str, object]:
        """Return what /healthz shows of it."""
        return {
            "synced": self.state.synced,
            "paused": self.state.paused,
            "broker_time_known": self.broker_clock.has_time,
            "wanted_reader": self.wanted_reader.healthy,
            "command_reader": self.command_reader.healthy,
            "problem": self.wanted_reader.problem
            or self.command_reader.problem
            or self.audit.problem,
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
        before = self._reconciler.saved.leases
        if changed or now >= self._due or wanted.keys() != before.keys():
            self._due = now + self.interval
            current = Snapshot(wanted, self.state.pause_command)
            if self.dry_run:
                self._reconciler.pretend(current)
            else:
                synced = self.state.synced or self.state.paused
                if not self._reconciler.reconcile(current, now, synced=synced):
                    self._due = now + min(self.interval, _RETRY)
        self._show(wanted)

    def _restore(self) -> None:
        saved = self._reconciler.restore()
        if saved is not None:
            self.state.restore(saved, leases=not self.dry_run)

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
            self._reconciler.fail(f"unexpected {type(exc).__name__}: {exc!s:.200}")
            self._stopping.wait(_RETRY)

    def _take_commands(self) -> bool:
        """Obey pause commands; return whether one pauses."""
        return self.state.obey(self.command_reader.take(0))

    def _paused(self) -> bool:
        if self._take_commands():
            self._due = 0.0
        return self.state.paused

    def _show(self, wanted: Mapping[str, Lease]) -> None:
        name = self.backend.name
        self.metrics.wanted.labels(name).set(len(wanted))
        self.metrics.active.labels(name).set(len(self._reconciler.in_force))
        self.metrics.synced.labels(name).set(self.state.synced)
        self.metrics.paused.labels(name).set(self.state.paused)
        lost, self._lost = self.audit.lost - self._lost, self.audit.lost
        self.metrics.lost_audit_records.labels(name).inc(lost)
        restarts = self.wanted_reader.restarts + self.command_reader.restarts
        self.metrics.reader_restarts.labels(name).inc(restarts - self._restarts)
        self._restarts = restarts
        skew = self.broker_clock.skew()
        if skew is not None:
            self.metrics.clock_skew.labels(name).set(skew)
            skewed = abs(skew) > self.max_clock_skew
            if skewed and not self._skewed:
                text = f"clocks differ by {skew:.0f} s: check NTP on both machines"
                self.audit.publish("failed", text, code="clock_skew")
            self._skewed = skewed
