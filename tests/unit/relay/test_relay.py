"""The relay's loop: every way out flushes, and no error of the disk is one."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fnm_bus import build
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import SpoolError
from fnm_bus.hook import python_hook
from fnm_bus.kafka.publisher import MemoryPublisher
from fnm_bus.kafka.route import Topics
from fnm_bus.ops.systemd import Systemd
from fnm_bus.relay import service
from fnm_bus.relay.drain import Drain, InFlightLimits
from fnm_bus.relay.hang_guard import HangGuard
from fnm_bus.relay.housekeeping import Housekeeping
from fnm_bus.relay.metrics import RelayMetrics
from fnm_bus.relay.one_shot import DrainOutcome, drain_within
from fnm_bus.relay.pipeline import Pipeline
from fnm_bus.relay.service import Relay
from fnm_bus.relay.source import EntrySource
from fnm_bus.spool.drain_backoff import Backoff
from fnm_bus.spool.limits import Limits
from fnm_bus.spool.quarantine import Quarantine
from fnm_bus.spool.sequence import BootEpochs
from fnm_bus.spool.spool import Spool
from fnm_bus.spool.watch import Watch

BAN = b'{"action":"ban","ip":"192.0.2.1"}'


class Late(MemoryPublisher):
    """Reports nothing before it is flushed for longer than a turn."""

    flushed = 0.0

    def poll(self, timeout: float) -> None:
        """Report nothing."""

    def flush(self, timeout: float) -> int:
        if timeout < 1:
            return 1
        self.flushed = timeout
        MemoryPublisher.poll(self, timeout)
        return 0


class House:
    """A relay in this process."""

    def __init__(self, root: Path, publisher: MemoryPublisher | None = None) -> None:
        epochs = BootEpochs(root / "state/epochs.json", python_hook.boot_id())
        self.spool = Spool(root, epochs)
        self.spool.make(os.getuid(), os.getgid())
        metrics = RelayMetrics()
        quarantine = Quarantine(root, 10, 10**6)
        pipeline = Pipeline("fra1", Topics(), Codec())
        intake = EntrySource((self.spool,), quarantine, epochs, pipeline, metrics)
        self.late = Late()
        self.publisher = publisher or self.late
        self.drain = Drain(intake, self.publisher, InFlightLimits())
        self.relay = Relay(
            self.spool,
            self.drain,
            Housekeeping((self.spool,), quarantine, self.drain, Limits(), metrics),
            self.publisher,
            Watch(self.spool.buckets()),
            Systemd({}),
        )

    def call(self, ticks: str = "000000001000") -> None:
        name = f"{python_hook.boot_id()}-{ticks}-0000100-0000000a"
        python_hook.store_entry(
            str(self.spool.root), name, python_hook.encode_entry((), BAN)
        )


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "spool")


def test_a_fault_of_the_program_flushes_what_was_handed_over(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.call()

    def fault() -> None:
        if house.drain.in_flight:
            raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(house.relay.keeper, "turn", fault)
    with pytest.raises(RuntimeError):
        house.relay.run()
    assert house.late.flushed
    assert house.spool.scan() == []
    assert not house.relay.draining


class Unanswered(MemoryPublisher):
    """Waits for answers that never come, by a clock of its own."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def flush(self, timeout: float) -> int:
        self.now += timeout
        return 1


class Signs(HangGuard):
    """Notes how long it waited for a sign of life."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._last = clock()
        self.longest = 0.0

    def alive(self) -> None:
        self.longest = max(self.longest, self._clock() - self._last)
        self._last = self._clock()

    def close(self) -> None:
        self.alive()


def test_a_long_final_flush_gives_signs_of_life(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = Unanswered()
    guard = Signs(publisher.monotonic)
    monkeypatch.setattr(service, "monotonic", publisher.monotonic)
    monkeypatch.setattr(house.relay.watch, "has_changed", house.relay.stop)
    house.relay.publisher, house.relay.guard = publisher, guard
    house.relay.flush = 120.0
    house.relay.run()
    assert publisher.now >= 120
    assert guard.longest <= 1


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_spool_that_replaces_another_one_gets_the_note(house: House) -> None:
    note = house.spool.root / "state/reading"
    house.call()
    thread = threading.Thread(target=house.relay.run)
    thread.start()
    try:
        until(note.exists)
        house.spool.root.rename(house.spool.root.with_name("away"))
        until(lambda: bool(house.drain.disk.current))
        house.spool.make(os.getuid(), os.getgid())
        house.call("000000002000")
        until(note.exists)
    finally:
        house.relay.stop()
        thread.join()


def test_a_spool_that_is_not_set_up_is_refused_at_the_start(house: House) -> None:
    (house.spool.root / "lock").unlink()
    with pytest.raises(SpoolError, match="set the spool up first"):
        house.relay.run()


def test_a_drain_whose_end_cannot_be_noted_is_still_clean(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    backoff = Backoff(house.spool.root)

    def full() -> None:
        raise SpoolError("backoff: No space left on device")

    monkeypatch.setattr(backoff, "clear", full)
    ended = drain_within(5.0, house.spool, backoff, house.drain)
    assert ended is DrainOutcome.CLEAN


@pytest.mark.parametrize("kind", ["entry", "directory"])
def test_what_the_disk_refuses_does_not_delay_the_next_drain(
    tmp_path: Path, kind: str
) -> None:
    publisher = MemoryPublisher()
    house = House(tmp_path / "spool", publisher)
    house.call()
    if kind == "entry":
        house.spool.path("b" * 32 + "-000000000005-0000007-00000000").mkdir()
    else:
        (house.spool.root / "incoming/new/0").rmdir()
    backoff = Backoff(house.spool.root)
    ended = drain_within(5.0, house.spool, backoff, house.drain)
    assert ended is DrainOutcome.REFUSED
    assert len(publisher.records) == 1
    assert backoff.seconds_left() == 0


def test_an_entry_that_the_disk_refuses_is_shown_by_health(tmp_path: Path) -> None:
    house = House(tmp_path / "spool", MemoryPublisher())
    house.drain.look()
    house.drain.step(0)
    assert build.relay_health(house.relay)[0]
    house.spool.path("b" * 32 + "-000000000005-0000007-00000000").mkdir()
    house.drain.look()
    house.drain.step(0)
    healthy, facts = build.relay_health(house.relay)
    assert (healthy, facts["io_blocked_entries"]) == (False, 1)


def test_a_drain_that_cannot_list_the_spool_delays_the_next(house: House) -> None:
    (house.spool.root / "incoming").rename(house.spool.root / "away")
    backoff = Backoff(house.spool.root)
    drain_within(0.2, house.spool, backoff, house.drain)
    assert backoff.seconds_left() > 0


def test_a_drain_that_cannot_list_the_spool_is_not_clean(house: House) -> None:
    (house.spool.root / "incoming").rename(house.spool.root / "away")
    backoff = Backoff(house.spool.root)
    ended = drain_within(0.2, house.spool, backoff, house.drain)
    assert ended is DrainOutcome.REFUSED
