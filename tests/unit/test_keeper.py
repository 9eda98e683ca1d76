"""What dead hooks left is told, and counted as lost only if it is."""

import os
from pathlib import Path

import pytest

from fnm_bus import hook
from fnm_bus.codec import Codec
from fnm_bus.drain import Drain, Flight
from fnm_bus.intake import Intake
from fnm_bus.keeper import Keeper
from fnm_bus.limits import Limits
from fnm_bus.metrics import RelayMetrics
from fnm_bus.order import Epochs
from fnm_bus.pipeline import Pipeline
from fnm_bus.publish import MemoryPublisher
from fnm_bus.quarantine import Quarantine
from fnm_bus.route import Topics
from fnm_bus.spool import Spool

NAME = f"{'a' * 32}-000000001000-0000100-0000000a"
"""Of another boot: whoever made it is dead."""


class Box:
    """Two spools and who looks after them."""

    def __init__(self, root: Path) -> None:
        epochs = Epochs(root / "epochs.json", hook.boot_id())
        self.spools = [Spool(root / name, epochs) for name in ("spool", "fallback")]
        for spool in self.spools:
            spool.make(os.getuid(), os.getgid())
        self.metrics = RelayMetrics()
        quarantine = Quarantine(root / "spool", 10, 10**6)
        pipeline = Pipeline("fra1", Topics(), Codec(None))
        intake = Intake(self.spools, quarantine, epochs, pipeline, self.metrics)
        drain = Drain(intake, MemoryPublisher(), Flight())
        self.keeper = Keeper(self.spools, quarantine, drain, Limits(), self.metrics)

    def left(self, spool: int) -> Path:
        path = self.spools[spool].root / "incoming/tmp" / NAME
        path.write_bytes(b"half")
        os.utime(path, (0, 0))
        return path

    def lost(self) -> float | None:
        return self.metrics.registry().get_sample_value("fnm_bus_dead_hooks_total")


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
    box.spools[stored_in].path(NAME).write_bytes(hook.pack((), b"{}"))
    box.keeper.turn()
    assert not path.exists()
    assert box.lost() == 0


def test_a_foreign_file_that_cannot_be_moved_stays_and_is_reported_once(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = box.spools[0].root / "incoming/new/0/lost+found"
    foreign.mkdir()
    (box.spools[0].root / "quarantine/odd").rmdir()  # so that nothing can be moved
    for _ in range(3):
        box.keeper._care_at = box.keeper._clean_at = 0.0
        box.keeper.turn()
    assert foreign.is_dir()
    assert caplog.text.count("not an entry:") == 1
    assert "remove it by hand" in caplog.text
    assert box.metrics.registry().get_sample_value("fnm_bus_odd_files_total") == 1
    (box.spools[0].root / "quarantine/odd").mkdir()
    foreign.rmdir()
    box.keeper._care_at = box.keeper._clean_at = 0.0
    box.keeper.turn()
    foreign.mkdir()
    box.keeper._care_at = box.keeper._clean_at = 0.0
    box.keeper.turn()
    assert not foreign.exists()
