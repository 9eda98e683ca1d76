"""The loop that makes one system match the wanted state.

    mitigation and command topic ─┐
    snapshot ─────────────────────┴▶ wanted state ▶ reconciler ▶ the system

The enforcer ends leases by a clock that nobody can set, also while Kafka is
unreachable. It withdraws nothing until it has read the topic to its end, unless an
operator pauses.
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
from consumers.enforcers.wanted_reader import TopicFollower
from consumers.enforcers.wanted_state import WantedState
from consumers.metrics import EnforcerMetrics
from consumers.mitigation import clock
from consumers.mitigation.clock import BrokerClock
from consumers.mitigation.measure import Network
from fnm_bus.errors import ConfigError
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_POLL: Final = 0.1
"""Seconds to wait for records; upper bound of the delay of a lease's end."""
_BROKER_TIME_TIMEOUT: Final = 3.0
"""Seconds to wait for the broker's time at the start."""
_RETRY: Final = 1.0


@dataclass
class Enforcer:
    """One enforcer.

    Attributes:
        interval: seconds between two comparisons.
        max_clock_skew: seconds by which the broker's clock and this machine's may
            differ; a larger difference is reported.
        own_networks: where measures are allowed; None: not checked, in a dry run.
        iterated_at: when the loop ran last, on the monotonic clock.
    """

    backend: Backend
    wanted_reader: TopicFollower
    command_reader: TopicFollower
    audit: AuditPublisher
    broker_clock: BrokerClock
    path: Path
    interval: float
    max_clock_skew: float
    own_networks: Sequence[Network] | None
    dry_run: bool
    metrics: EnforcerMetrics
    iterated_at: float = field(default_factory=monotonic)
    state: WantedState = field(init=False)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _reconciler: Reconciler = field(init=False)
    _skew_reported: bool = False
    _failed: bool = False
    _lost: int = 0
    _restarts: int = 0
    _due: float = 0.0
    _time_requests: TimeRequests = field(init=False)

    def __post_init__(self) -> None:
        self._time_requests = TimeRequests(self.audit, self.broker_clock)
        self.state = WantedState(
            self.backend, self.own_networks, self.broker_clock, self.audit, self.metrics
        )
        self._reconciler = Reconciler(
            self.backend, self.path, self.audit, self.metrics, self._is_paused
        )

    def run(self) -> None:
        """Enforce until `stop`; measures then stay in force until their leases end.

        Raises:
            ConfigError: librdkafka refuses the settings.
        """
        mode = "dry run: the system is not changed" if self.dry_run else "live"
        log.info("enforcing", backend=self.backend.name, mode=mode)
        self._restore()
        self.audit.open()
        self.audit.publish("started", mode, dry_run=self.dry_run)
        self.audit.flush(_BROKER_TIME_TIMEOUT)
        self.wanted_reader.start()
        self.command_reader.start()
        try:
            while not self._stopping.is_set():
                self._run_once_safely()
        finally:
            self.wanted_reader.stop()
            self.command_reader.stop()
            self.audit.close()
            self.backend.close()

    def stop(self) -> None:
        """Make `run` return; safe in a signal handler."""
        self._stopping.set()

    def health(self) -> tuple[bool, Mapping[str, object]]:
        """Return whether the last iteration and both readers succeeded; values."""
        wanted, commands = self.wanted_reader, self.command_reader
        is_reading = wanted.is_healthy and commands.is_healthy
        return is_reading and not (self._failed or self.audit.problem), {
            "synced": self.state.synced,
            "paused": self.state.paused,
            "broker_time_known": self.broker_clock.has_time,
            "wanted_reader": wanted.is_healthy,
            "command_reader": commands.is_healthy,
            "problem": wanted.problem or commands.problem or self.audit.problem,
        }

    def run_once(self) -> None:
        """Apply new records; reconcile if that is due or the wanted state changed."""
        self.iterated_at = monotonic()
        changed = self._apply_commands()
        changed = self.state.apply(self.wanted_reader.take(_POLL)) or changed
        changed = self._apply_commands() or changed
        self.audit.poll()
        self._time_requests.poll()
        now = clock.now()
        wanted = self.state.active_at(now)
        saved = self._reconciler.saved.leases
        if changed or now >= self._due or wanted.keys() != saved.keys():
            self._due = now + self.interval
            current = Snapshot(wanted, self.state.pause_command)
            if self.dry_run:
                self._reconciler.report_dry_run(current)
            else:
                synced = self.state.synced or self.state.paused
                if not self._reconciler.reconcile(current, now, synced=synced):
                    self._due = now + min(self.interval, _RETRY)
        self._update_metrics(wanted)

    def _restore(self) -> None:
        saved = self._reconciler.restore()
        if saved is not None:
            self.state.restore(saved, leases=not self.dry_run)

    def _run_once_safely(self) -> None:
        try:
            self.run_once()
            self._failed = False
        except ConfigError:
            raise
        except Exception as exc:
            # Leases must end after any failure: the next iteration compares everything.
            self._failed = True
            log.exception("iteration_failed")
            self._reconciler.fail(f"unexpected {type(exc).__name__}: {exc!s:.200}")
            self._stopping.wait(_RETRY)

    def _apply_commands(self) -> bool:
        """Apply pause commands; return whether one pauses."""
        return self.state.apply_commands(self.command_reader.take(0))

    def _is_paused(self) -> bool:
        if self._apply_commands():
            self._due = 0.0
        return self.state.paused

    def _update_metrics(self, wanted: Mapping[str, Lease]) -> None:
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
            is_skewed = abs(skew) > self.max_clock_skew
            if is_skewed and not self._skew_reported:
                text = f"clocks differ by {skew:.0f} s: check NTP on both machines"
                self.audit.publish("failed", text, code="clock_skew")
            self._skew_reported = is_skewed
