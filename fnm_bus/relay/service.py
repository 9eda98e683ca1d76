"""The relay: a service that drains the spool until it is stopped.

One relay drains a spool; a second one stands by until the lock is free. The documents
stay on disk while Kafka, the registry or the relay is down.
"""

import threading
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from fnm_bus.errors import SpoolError
from fnm_bus.kafka.publisher import Publisher
from fnm_bus.ops.log import get_logger
from fnm_bus.ops.systemd import READY, STOPPING, Systemd
from fnm_bus.relay.drain import Drain
from fnm_bus.relay.hang_guard import HangGuard
from fnm_bus.relay.housekeeping import Housekeeping
from fnm_bus.spool.lock import Lock
from fnm_bus.spool.spool import Spool
from fnm_bus.spool.watch import Watch

log = get_logger(__name__)

_BUSY_POLL: Final = 0.005
_SLOW_POLL: Final = 0.1
"""Seconds to wait for Kafka's answers, while answers arrive and while none do."""
_IDLE_WAIT: Final = 1.0
"""Most seconds without an iteration of the loop."""
_MAX_SCAN_INTERVAL: Final = 10.0
"""Seconds after which the spool is scanned without a notification, since some file
systems send none."""
_LOCKING: Final = "locking the spool"
_SCAN_SHARE: Final = 10
"""A scan may take one part in this number of the relay's time."""


@dataclass
class Relay:
    """Drains the spool until `stop`.

    Attributes:
        spool: its lock selects the relay that drains.
        drain: publishes the entries.
        housekeeping: enforces limits, cleans up and sets gauges.
        publisher: flushed at the end.
        watch: reports new entries in the spool.
        systemd: receives the relay's state.
        shutdown_timeout: seconds for records in flight at the end.
        iterated_at: time of the loop's last iteration (monotonic); it is old in a hang.
        draining: whether this relay has the lock.
        hang_guard: ends the process if the loop hangs.
    """

    spool: Spool
    drain: Drain
    housekeeping: Housekeeping
    publisher: Publisher
    watch: Watch
    systemd: Systemd
    shutdown_timeout: float = 5.0
    iterated_at: float = field(default_factory=monotonic)
    draining: bool = False
    _stopping: threading.Event = field(default_factory=threading.Event)
    hang_guard: HangGuard = field(default_factory=HangGuard)
    _was_locked: bool = False
    _next_lock_check: float = 0.0
    _next_scan: float = 0.0
    _latest_scan: float = 0.0
    _last_answer: float = 0.0

    def run(self) -> None:
        """Drain until `stop`; then wait for records in flight.

        Raises:
            SpoolError: the spool is not set up, or belongs to another user. After the
                first lock, errors of the disk are retried.
        """
        self.systemd.notify(READY, "STATUS=waiting for the spool's lock")
        try:
            while not self._stopping.is_set():
                self._report_alive()
                lock = self._lock()
                if lock is None:
                    self._stopping.wait(_IDLE_WAIT)
                    continue
                with lock:
                    self._drain_locked(lock)
        finally:
            self.hang_guard.close()
            self.drain.close()

    def stop(self) -> None:
        """End `run`; may be called from a signal handler."""
        self._stopping.set()
        self.watch.wake()

    def _lock(self) -> Lock | None:
        try:
            lock = self.spool.lock()
        except SpoolError as exc:
            if not self._was_locked:
                raise
            self.drain.disk_errors.add(_LOCKING, str(exc))
            return None
        if self._was_locked:
            self.drain.disk_errors.clear(_LOCKING)
        return lock

    def _drain_locked(self, lock: Lock) -> None:
        """Drain until `stop`, or until another directory replaces the spool."""
        self.draining = self._was_locked = True
        self.systemd.notify("STATUS=draining")
        log.info("draining", spool=self.spool.root)
        try:
            # A connection takes half a second; the first scan happens meanwhile.
            self.publisher.open()
            while not self._stopping.is_set() and self._is_spool_in_place(lock):
                self._run_once()
        finally:
            self._shut_down()
            self.draining = False

    def _is_spool_in_place(self, lock: Lock) -> bool:
        now = monotonic()
        if now < self._next_lock_check:
            return True
        self._next_lock_check = now + _IDLE_WAIT
        if lock.is_at(self.spool.root / "lock"):
            return True
        self.drain.disk_errors.add(
            _LOCKING,
            f"{self.spool.root}: moved away or replaced while it was drained; put it"
            " back, or set it up again (`fnm-bus hook install`)",
        )
        # The watches and times are those of the old directory.
        self.watch.close()
        self._next_scan = self._latest_scan = 0.0
        return False

    def _run_once(self) -> None:
        self._report_alive()
        now = monotonic()
        if now >= self._next_scan and (
            self.watch.has_changed() or now >= self._latest_scan
        ):
            self._scan(now)
        if self.drain.is_idle:
            # Connection errors are reported before the first attack.
            self.publisher.poll(0)
            self.watch.wait(_IDLE_WAIT)
        elif self.drain.in_flight:
            before = self.drain.in_flight
            is_busy = now - self._last_answer < 1
            self.drain.run_once(_BUSY_POLL if is_busy else _SLOW_POLL)
            if self.drain.in_flight != before:
                self._last_answer = now
        else:
            self.drain.run_once(0)
            if self.drain.is_backing_off:
                self.watch.wait(_SLOW_POLL)
        # Last, since it reads every directory: the first record must not wait for it.
        self.housekeeping.run_if_due()

    def _scan(self, now: float) -> None:
        if self.drain.scan():
            self._last_answer = now
        self.housekeeping.check_entry_count(self.drain.entry_count)
        # A scan of 100,000 files is slow and must not take all of the relay's time.
        self._next_scan = now + (monotonic() - now) * _SCAN_SHARE
        interval = _MAX_SCAN_INTERVAL
        if self.drain.is_scan_incomplete:
            # No notification arrives when a directory becomes readable again.
            self._next_scan, interval = now + _IDLE_WAIT, 0.0
        self._latest_scan = monotonic() + interval

    def _report_alive(self) -> None:
        self.iterated_at = monotonic()
        self.hang_guard.reset()
        self.systemd.alive()

    def _shut_down(self) -> None:
        if self._stopping.is_set():
            self.systemd.notify(STOPPING)
        end = monotonic() + self.shutdown_timeout
        pending = self.publisher.flush(0)
        # In slices: the flush may take longer than the timeout of the hang guard.
        while pending and (left := end - monotonic()) > 0:
            self._report_alive()
            pending = self.publisher.flush(min(left, _IDLE_WAIT))
        self.publisher.close()
        # Its open files belong to this directory, which may be replaced.
        self.drain.close()
        if pending:
            log.warning("stopped", records_left_in_spool=pending)
        else:
            log.info("stopped", records_left_in_spool=0)
