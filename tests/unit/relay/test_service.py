"""The relay's loop: every exit flushes, and disk errors cause none."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.drain_harness import DrainHarness
from support.memory_publisher import MemoryPublisher

from fnm_bus import build
from fnm_bus.errors import SpoolError
from fnm_bus.ops.systemd import Systemd
from fnm_bus.relay import service
from fnm_bus.relay.hang_guard import HangGuard
from fnm_bus.relay.housekeeping import Housekeeping
from fnm_bus.relay.one_shot import DrainOutcome, drain_within
from fnm_bus.relay.service import Relay
from fnm_bus.spool.drain_backoff import Backoff
from fnm_bus.spool.limits import Limits
from fnm_bus.spool.watch import Watch

BAN = b'{"action":"ban","ip":"192.0.2.1"}'


class LatePublisher(MemoryPublisher):
    """Reports outcomes only during a long flush."""

    flushed = 0.0

    def poll(self, timeout: float) -> None:
        """Report nothing."""

    def flush(self, timeout: float) -> int:
        if timeout < 1:
            return 1
        self.flushed = timeout
        MemoryPublisher.poll(self, timeout)
        return 0


class RelayHarness:
    """A relay in this process."""

    def __init__(self, root: Path, publisher: MemoryPublisher | None = None) -> None:
        self.late_publisher = LatePublisher()
        self.publisher = publisher or self.late_publisher
        parts = DrainHarness(root, publisher=self.publisher)
        self.spools = parts.spools
        self.spool = parts.spools[0]
        self.drain = parts.drain()
        self.call = lambda: parts.call(BAN)
        self.relay = Relay(
            self.spool,
            self.drain,
            Housekeeping(
                parts.spools, parts.quarantine, self.drain, Limits(), parts.metrics
            ),
            self.publisher,
            Watch(self.spool.buckets()),
            Systemd({}),
        )


@pytest.fixture
def harness(tmp_path: Path) -> RelayHarness:
    return RelayHarness(tmp_path)


def test_an_unexpected_exception_flushes_records_in_flight(
    harness: RelayHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.call()

    def fault() -> None:
        if harness.drain.in_flight:
            raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(harness.relay.housekeeping, "run_if_due", fault)
    with pytest.raises(RuntimeError):
        harness.relay.run()
    assert harness.late_publisher.flushed
    assert harness.spool.scan() == []
    assert not harness.relay.draining


class SilentPublisher(MemoryPublisher):
    """Gets no answer; its clock advances during each wait."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def flush(self, timeout: float) -> int:
        self.now += timeout
        return 1


class RecordingGuard(HangGuard):
    """Records the longest time between two resets."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._last = clock()
        self.longest = 0.0

    def reset(self) -> None:
        self.longest = max(self.longest, self._clock() - self._last)
        self._last = self._clock()

    def close(self) -> None:
        self.reset()


def test_a_long_final_flush_resets_the_hang_guard(
    harness: RelayHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = SilentPublisher()
    guard = RecordingGuard(publisher.monotonic)
    monkeypatch.setattr(service, "monotonic", publisher.monotonic)
    monkeypatch.setattr(harness.relay.watch, "has_changed", harness.relay.stop)
    harness.relay.publisher, harness.relay.hang_guard = publisher, guard
    harness.relay.shutdown_timeout = 120.0
    harness.relay.run()
    assert publisher.now >= 120
    assert guard.longest <= 1


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_replacement_spool_gets_the_note(harness: RelayHarness) -> None:
    note = harness.spool.root / "state/reading"
    harness.call()
    thread = threading.Thread(target=harness.relay.run)
    thread.start()
    try:
        until(note.exists)
        harness.spool.root.rename(harness.spool.root.with_name("away"))
        until(lambda: bool(harness.drain.disk_errors.current))
        harness.spool.make(os.getuid(), os.getgid())
        harness.call()
        until(note.exists)
    finally:
        harness.relay.stop()
        thread.join()


def test_a_spool_without_setup_is_refused(harness: RelayHarness) -> None:
    (harness.spool.root / "lock").unlink()
    with pytest.raises(SpoolError, match="set the spool up first"):
        harness.relay.run()


def test_a_drain_with_an_unwritable_backoff_is_complete(
    harness: RelayHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    backoff = Backoff(harness.spool.root)

    def full() -> None:
        raise SpoolError("backoff: No space left on device")

    monkeypatch.setattr(backoff, "clear", full)
    ended = drain_within(5.0, harness.spool, backoff, harness.drain)
    assert ended is DrainOutcome.EMPTY


@pytest.mark.parametrize("kind", ["entry", "directory"])
def test_an_unreadable_entry_does_not_delay_the_next_drain(
    tmp_path: Path, kind: str
) -> None:
    publisher = MemoryPublisher()
    harness = RelayHarness(tmp_path, publisher)
    harness.call()
    if kind == "entry":
        harness.spool.path("b" * 32 + "-000000000005-0000007-00000000").mkdir()
    else:
        (harness.spool.root / "incoming/new/0").rmdir()
    backoff = Backoff(harness.spool.root)
    ended = drain_within(5.0, harness.spool, backoff, harness.drain)
    assert ended is DrainOutcome.DISK_ERRORS
    assert len(publisher.records) == 1
    assert backoff.seconds_left() == 0


def test_an_unreadable_entry_makes_the_relay_unhealthy(tmp_path: Path) -> None:
    harness = RelayHarness(tmp_path, MemoryPublisher())
    harness.drain.scan()
    harness.drain.run_once(0)
    assert build.relay_health(harness.relay)[0]
    harness.spool.path("b" * 32 + "-000000000005-0000007-00000000").mkdir()
    harness.drain.scan()
    harness.drain.run_once(0)
    healthy, facts = build.relay_health(harness.relay)
    assert (healthy, facts["io_blocked_entries"]) == (False, 1)


def test_a_drain_of_unreadable_spools_delays_the_next(harness: RelayHarness) -> None:
    for spool in harness.spools:
        (spool.root / "incoming").rename(spool.root / "away")
    backoff = Backoff(harness.spool.root)
    ended = drain_within(0.2, harness.spool, backoff, harness.drain)
    assert ended is DrainOutcome.DISK_ERRORS
    assert backoff.seconds_left() > 0
