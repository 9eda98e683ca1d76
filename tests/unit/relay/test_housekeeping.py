"""What dead hooks left is told, and counted as lost only if it is."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from fnm_bus.avro.codec import Codec
from fnm_bus.errors import SpoolError
from fnm_bus.hook import python_hook
from fnm_bus.kafka.publisher import MemoryPublisher
from fnm_bus.kafka.route import Topics
from fnm_bus.relay.drain import Drain, InFlightLimits
from fnm_bus.relay.housekeeping import Housekeeping
from fnm_bus.relay.metrics import RelayMetrics
from fnm_bus.relay.pipeline import Pipeline
from fnm_bus.relay.source import EntrySource
from fnm_bus.spool.limits import AdmissionLevel, Limits
from fnm_bus.spool.quarantine import Quarantine
from fnm_bus.spool.sequence import BootEpochs
from fnm_bus.spool.spool import Spool

NAME = f"{'a' * 32}-000000001000-0000100-0000000a"
"""Of another boot: whoever made it is dead."""


class Box:
    """Two spools and who looks after them."""

    def __init__(self, root: Path) -> None:
        epochs = BootEpochs(root / "epochs.json", python_hook.boot_id())
        self.spools = [Spool(root / name, epochs) for name in ("spool", "fallback")]
        for spool in self.spools:
            spool.make(os.getuid(), os.getgid())
        self.metrics = RelayMetrics()
        quarantine = Quarantine(root / "spool", 10, 10**6)
        pipeline = Pipeline("fra1", Topics(), Codec(None))
        intake = EntrySource(self.spools, quarantine, epochs, pipeline, self.metrics)
        drain = Drain(intake, MemoryPublisher(), InFlightLimits())
        self.keeper = Housekeeping(
            self.spools, quarantine, drain, Limits(), self.metrics
        )

    def left(self, spool: int) -> Path:
        path = self.spools[spool].root / "incoming/tmp" / NAME
        path.write_bytes(b"half")
        os.utime(path, (0, 0))
        return path

    def lost(self) -> float | None:
        return self.metrics.registry().get_sample_value(
            "fnm_bus_orphaned_entries_total"
        )


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_a_call_that_died_before_it_had_stored_is_counted_once(box: Box) -> None:
    path = box.left(0)
    box.keeper.turn()
    box.keeper.turn()
    assert not path.exists()
    assert box.lost() == 1


@pytest.mark.parametrize("stored_in", [0, 1])
@pytest.mark.parametrize("left_in", [0, 1])
def test_a_call_that_died_when_it_had_stored_is_not_lost(
    box: Box, stored_in: int, left_in: int
) -> None:
    path = box.left(left_in)
    box.spools[stored_in].path(NAME).write_bytes(python_hook.encode_entry((), b"{}"))
    box.keeper.turn()
    assert not path.exists()
    assert box.lost() == 0


def test_a_foreign_file_that_cannot_be_moved_stays_and_is_reported_once(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = box.spools[0].root / "incoming/new/0/lost+found"
    foreign.mkdir()
    (box.spools[0].root / "quarantine/foreign").rmdir()  # so that nothing can be moved
    for _ in range(3):
        box.keeper._care_at = box.keeper._clean_at = 0.0
        box.keeper.turn()
    assert foreign.is_dir()
    assert caplog.text.count("foreign_file_not_moved") == 1
    assert box.metrics.registry().get_sample_value("fnm_bus_foreign_files_total") == 1
    (box.spools[0].root / "quarantine/foreign").mkdir()
    foreign.rmdir()
    box.keeper._care_at = box.keeper._clean_at = 0.0
    box.keeper.turn()
    foreign.mkdir()
    box.keeper._care_at = box.keeper._clean_at = 0.0
    box.keeper.turn()
    assert not foreign.exists()


class Trouble:
    """A keeper whose figures can be read again and again."""

    def __init__(self, box: Box) -> None:
        self.box = box

    def turn(self) -> None:
        self.box.keeper._care_at = self.box.keeper._clean_at = 0.0
        self.box.keeper.turn()

    def failures(self, task: str) -> float | None:
        return self.box.metrics.registry().get_sample_value(
            "fnm_bus_disk_errors_total", {"task": task}
        )


def test_a_full_disk_does_not_end_the_relay_while_the_spool_is_at_its_limit(
    box: Box, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_what: AdmissionLevel) -> None:
        raise SpoolError("full: No space left on device")

    monkeypatch.setattr(box.spools[0], "refuse", full)
    box.keeper.limits = Limits(hard_files=1)
    box.spools[0].path(NAME).write_bytes(python_hook.encode_entry((), b"{}"))
    keeper = Trouble(box)
    keeper.turn()
    keeper.turn()
    assert keeper.failures("setting the spool's limits") == 2
    assert caplog.text.count("No space left") == 1
    assert box.metrics.registry().get_sample_value("fnm_bus_quarantine_files") == 0


def test_a_document_released_while_the_quarantine_is_counted_is_no_error(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = box.spools[0].root / "quarantine" / NAME
    kept.write_bytes(b"1")
    scandir = os.scandir

    class Late:
        """What a directory held when it was opened."""

        def __init__(self, path: Path) -> None:
            with scandir(path) as items:
                self._items = list(items)
            kept.unlink(missing_ok=True)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_error: object) -> None:
            """Nothing is open."""

        def __iter__(self) -> Iterator[os.DirEntry[str]]:
            return iter(self._items)

    monkeypatch.setattr(os, "scandir", Late)
    assert box.keeper.quarantine.count() == 0


@pytest.mark.parametrize("place", ["incoming/new", "incoming/tmp", "quarantine"])
def test_an_unreadable_directory_does_not_end_the_relay(box: Box, place: str) -> None:
    (box.spools[0].root / place).rename(box.spools[0].root / "away")
    keeper = Trouble(box)
    keeper.turn()
    assert keeper.box.keeper.drain.disk.current
    (box.spools[0].root / "away").rename(box.spools[0].root / place)
    keeper.turn()
    assert not keeper.box.keeper.drain.disk.current


@pytest.mark.parametrize("name", ["\u6c34" * 85, "a" * 255, "\udcff" * 200])
def test_a_foreign_file_of_any_name_is_moved(box: Box, name: str) -> None:
    path = box.spools[0].root / "incoming/new/0" / name
    path.touch()
    Trouble(box).turn()
    assert not path.exists()
    assert len(list((box.spools[0].root / "quarantine/foreign").iterdir())) == 1


def test_many_foreign_files_are_moved_a_thousand_at_a_time(box: Box) -> None:
    directory = box.spools[0].root / "incoming/new/0"
    for number in range(1_200):
        (directory / f"foreign{number}").touch()
    box.keeper.turn()
    assert len(list(directory.iterdir())) == 200
    box.keeper._care_at = 0.0
    box.keeper.turn()
    assert list(directory.iterdir()) == []
