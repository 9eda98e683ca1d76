"""Cleanup, limits and gauges beside a drain."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from support.drain_harness import DrainHarness

from fnm_bus.errors import SpoolError
from fnm_bus.hook import python_hook
from fnm_bus.relay.housekeeping import Housekeeping
from fnm_bus.spool.limits import AdmissionLevel, Limits

NAME = f"{'a' * 32}-000000001000-0000100-0000000a"
"""Name of another boot, so its hook is dead."""


class HousekeepingHarness(DrainHarness):
    """Two spools and their housekeeping."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.housekeeping = Housekeeping(
            self.spools, self.quarantine, self.drain(), Limits(), self.metrics
        )

    def leave_temporary(self, spool: int) -> Path:
        path = self.spools[spool].root / "incoming/tmp" / NAME
        path.write_bytes(b"half")
        os.utime(path, (0, 0))
        return path

    def run(self) -> None:
        """Run the housekeeping, which is due."""
        self.housekeeping._next_run = self.housekeeping._next_cleanup = 0.0
        self.housekeeping.run_if_due()


@pytest.fixture
def harness(tmp_path: Path) -> HousekeepingHarness:
    return HousekeepingHarness(tmp_path)


def test_a_hook_killed_before_storing_is_counted_once(
    harness: HousekeepingHarness,
) -> None:
    path = harness.leave_temporary(0)
    harness.housekeeping.run_if_due()
    harness.housekeeping.run_if_due()
    assert not path.exists()
    assert harness.metric("orphaned_entries_total") == 1


@pytest.mark.parametrize("stored_in", [0, 1])
@pytest.mark.parametrize("left_in", [0, 1])
def test_a_hook_killed_after_storing_is_not_counted(
    harness: HousekeepingHarness, stored_in: int, left_in: int
) -> None:
    path = harness.leave_temporary(left_in)
    harness.spools[stored_in].path(NAME).write_bytes(
        python_hook.encode_entry((), b"{}")
    )
    harness.housekeeping.run_if_due()
    assert not path.exists()
    assert harness.metric("orphaned_entries_total") == 0


def test_an_immovable_foreign_file_is_logged_once(
    harness: HousekeepingHarness, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = harness.spools[0].root / "incoming/new/0/lost+found"
    foreign.mkdir()
    no_place = harness.spools[0].root / "quarantine/foreign"
    no_place.rmdir()
    for _ in range(3):
        harness.run()
    assert foreign.is_dir()
    assert caplog.text.count("foreign_file_not_moved") == 1
    assert harness.metric("foreign_files_total") == 1
    no_place.mkdir()
    foreign.rmdir()
    harness.run()
    foreign.mkdir()
    harness.run()
    assert not foreign.exists()


def test_a_full_disk_does_not_end_the_relay(
    harness: HousekeepingHarness,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(_what: AdmissionLevel) -> None:
        raise SpoolError("full: No space left on device")

    monkeypatch.setattr(harness.spools[0], "refuse", full)
    harness.housekeeping.limits = Limits(hard_files=1)
    harness.spools[0].path(NAME).write_bytes(python_hook.encode_entry((), b"{}"))
    harness.run()
    harness.run()
    assert harness.metric("disk_errors_total", task="setting the spool's limits") == 2
    assert caplog.text.count("No space left") == 1
    assert harness.metric("quarantine_files") == 0


def test_a_release_during_the_count_is_not_an_error(
    harness: HousekeepingHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = harness.spools[0].root / "quarantine" / NAME
    kept.write_bytes(b"1")
    scandir = os.scandir

    class Late:
        """The entries of a directory at its opening."""

        def __init__(self, path: Path) -> None:
            with scandir(path) as items:
                self._items = list(items)
            kept.unlink(missing_ok=True)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_error: object) -> None:
            """Do nothing."""

        def __iter__(self) -> Iterator[os.DirEntry[str]]:
            return iter(self._items)

    monkeypatch.setattr(os, "scandir", Late)
    assert harness.housekeeping.quarantine.count() == 0


@pytest.mark.parametrize("place", ["incoming/new", "incoming/tmp", "quarantine"])
def test_an_unreadable_directory_does_not_end_the_relay(
    harness: HousekeepingHarness, place: str
) -> None:
    (harness.spools[0].root / place).rename(harness.spools[0].root / "away")
    harness.run()
    assert harness.housekeeping.drain.disk_errors.current
    (harness.spools[0].root / "away").rename(harness.spools[0].root / place)
    harness.run()
    assert not harness.housekeeping.drain.disk_errors.current


@pytest.mark.parametrize("name", ["\u6c34" * 85, "a" * 255, "\udcff" * 200])
def test_a_foreign_file_of_any_name_is_moved(
    harness: HousekeepingHarness, name: str
) -> None:
    path = harness.spools[0].root / "incoming/new/0" / name
    path.touch()
    harness.run()
    assert not path.exists()
    assert len(list((harness.spools[0].root / "quarantine/foreign").iterdir())) == 1


def test_many_foreign_files_are_moved_a_thousand_at_a_time(
    harness: HousekeepingHarness,
) -> None:
    directory = harness.spools[0].root / "incoming/new/0"
    for number in range(1_200):
        (directory / f"foreign{number}").touch()
    harness.housekeeping.run_if_due()
    assert len(list(directory.iterdir())) == 200
    harness.housekeeping._next_run = 0.0
    harness.housekeeping.run_if_due()
    assert list(directory.iterdir()) == []
