"""The relay: drain the spool for as long as it lives.

One relay drains a spool; a second one stands by until the lock is free. Whatever
happens to Kafka, the registry or the relay itself, the documents wait on disk.
"""

import threading
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

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

_PROMPT: Final = 0.005
_SLOW: Final = 0.1
"""Seconds to wait for Kafka's answers while they come in, and while they do not."""
_LONGEST_NAP: Final = 1.0
"""Seconds without a look at the spool when nothing at all happens."""
_LONGEST_BLIND: Final = 10.0
"""Seconds after which the spool is looked at though nothing seems to have changed: not
every file system tells."""
_LOCKING: Final = "locking the spool"
_SHARE: Final = 10
"""A look at the spool may take one part in so many of the relay's time."""


@dataclass
class Relay:
    """Drains the spool until it is told to stop.

    Attributes:
        spool: the spool whose lock decides who drains.
        drain: takes the entries to Kafka.
        keeper: looks after limits, left-overs and figures.
        publisher: flushed at the end.
        watch: says when something new is in the spool.
        systemd: is told that the relay is ready and alive.
        flush: seconds for records in flight at the end.
    """

    spool: Spool
    drain: Drain
    keeper: Housekeeping
    publisher: Publisher
    watch: Watch
    systemd: Systemd
    flush: float = 5.0
    turned_at: float = field(default_factory=monotonic)
    """When the loop last came round (monotonic): a stale figure is a hang."""
    draining: bool = False
    """Whether this relay holds the lock."""
    _stopping: threading.Event = field(default_factory=threading.Event)
    guard: HangGuard = field(default_factory=HangGuard)
    """Ends the process when the loop no longer comes round."""
    _locked_before: bool = False
    _check_at: float = 0.0
    _look_at: float = 0.0
    _blind_until: float = 0.0
    _answered_at: float = 0.0

    def run(self) -> None:
        """Drain until `stop`; records in flight get `flush` seconds for an answer.

        Raises:
            SpoolError: the spool is not set up, or is not this user's. Once it was
                locked, errors of the disk are retried.
        """
        self.systemd.notify(READY, "STATUS=waiting for the spool's lock")
        try:
            while not self._stopping.is_set():
                self._alive()
                lock = self._lock()
                if lock is None:
                    self._stopping.wait(_LONGEST_NAP)
                    continue
                with lock:
                    self._hold(lock)
        finally:
            self.guard.close()
            self.drain.close()

    def _lock(self) -> Lock | None:
        if not self._locked_before:
            return self.spool.lock()
        found = []
        with self.drain.disk.caught(_LOCKING):
            found.append(self.spool.lock())
        return found[0] if found else None

    def _hold(self, lock: Lock) -> None:
        """Drain until `stop`, or until another spool is where this one was."""
        self.draining = self._locked_before = True
        self.systemd.notify("STATUS=draining")
        log.info("draining", spool=self.spool.root)
        try:
            # Connecting takes half a second; the spool can be looked at meanwhile.
            self.publisher.open()
            while not self._stopping.is_set() and self._is_ours(lock):
                self._turn()
        finally:
            self._finish()
            self.draining = False

    def _is_ours(self, lock: Lock) -> bool:
        now = monotonic()
        if now < self._check_at:
            return True
        self._check_at = now + _LONGEST_NAP
        if lock.is_at(self.spool.root / "lock"):
            return True
        self.drain.disk.failed(
            _LOCKING,
            f"{self.spool.root}: moved away or replaced while it was drained; put it"
            " back, or set it up again (`fnm-bus hook install`)",
        )
        # Its watches and times are those of the directory that went.
        self.watch.close()
        self._look_at = self._blind_until = 0.0
        return False

    def stop(self) -> None:
        """Ask `run` to end; may be called from a signal handler."""
        self._stopping.set()
        self.watch.wake()

    def _turn(self) -> None:
        self._alive()
        now = monotonic()
        if now >= self._look_at and (
            self.watch.has_changed() or now >= self._blind_until
        ):
            self._look(now)
        if self.drain.idle:
            # Errors of the connection are known before the first attack, not by it.
            self.publisher.poll(0)
            self.watch.wait(_LONGEST_NAP)
        elif self.drain.in_flight:
            before = self.drain.in_flight
            prompt = now - self._answered_at < 1
            self.drain.step(_PROMPT if prompt else _SLOW)
            if self.drain.in_flight != before:
                self._answered_at = now
        else:
            self.drain.step(0)
            if self.drain.stuck:
                self.watch.wait(_SLOW)
        # Last, since it looks at every file: the first record should not wait for it.
        self.keeper.turn()

    def _look(self, now: float) -> None:
        if self.drain.look():
            self._answered_at = now
        self.keeper.found(self.drain.known)
        # With 100,000 files a look takes a while: it must not eat the relay's time.
        self._look_at = now + (monotonic() - now) * _SHARE
        blind = _LONGEST_BLIND
        if self.drain.unlisted:
            # Nothing tells when it can be listed again.
            self._look_at, blind = now + _LONGEST_NAP, 0.0
        self._blind_until = monotonic() + blind

    def _alive(self) -> None:
        self.turned_at = monotonic()
        self.guard.alive()
        self.systemd.alive()

    def _finish(self) -> None:
        if self._stopping.is_set():
            self.systemd.notify(STOPPING)
        end = monotonic() + self.flush
        left = self.publisher.flush(0)
        # In slices: this may take longer than any guard waits for a sign of life.
        while left and (rest := end - monotonic()) > 0:
            self._alive()
            left = self.publisher.flush(min(rest, _LONGEST_NAP))
        self.publisher.close()
        # Its files are those of this spool; another one may be in its place.
        self.drain.close()
        if left:
            log.warning("stopped", records_left_in_spool=left)
        else:
            log.info("stopped", records_left_in_spool=0)
