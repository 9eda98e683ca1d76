"""Pauses after failed drains."""

import os
from pathlib import Path

import pytest

from fnm_bus.errors import SpoolError
from fnm_bus.hook import python_hook
from fnm_bus.spool.drain_backoff import Backoff
from fnm_bus.spool.spool import Spool


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Spool(tmp_path / "spool").make(os.geteuid(), os.getegid())
    return tmp_path / "spool"


def test_without_a_failure_no_pause_applies(root: Path) -> None:
    assert Backoff(root).seconds_left() == 0.0


def test_pauses_double_up_to_a_minute(root: Path) -> None:
    assert [Backoff(root).record_failure() for _ in range(8)] == [
        1,
        2,
        4,
        8,
        16,
        32,
        60,
        60,
    ]
    assert 55 < Backoff(root).seconds_left() <= 60


def test_a_success_resets_the_failures(root: Path) -> None:
    backoff = Backoff(root)
    backoff.record_failure()
    backoff.clear()
    backoff.clear()
    assert backoff.seconds_left() == 0.0
    assert backoff.record_failure() == 1.0


def test_the_pause_ends_with_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = python_hook.uptime_ticks()
    Backoff(root).record_failure()
    monkeypatch.setattr(python_hook, "uptime_ticks", lambda: now + 200)
    assert Backoff(root).seconds_left() == 0.0


def test_a_pause_ends_with_its_boot(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Backoff(root).record_failure()
    monkeypatch.setattr(python_hook, "boot_id", lambda: "f" * 32)
    assert Backoff(root).seconds_left() == 0.0
    assert Backoff(root).record_failure() == 1.0


@pytest.mark.parametrize("text", ["", "x", "a b c", "a b", "\udcff 1 2"])
def test_a_damaged_file_counts_as_no_failure(root: Path, text: str) -> None:
    (root / "state/backoff").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert Backoff(root).seconds_left() == 0.0
    assert Backoff(root).record_failure() == 1.0


def test_an_unwritable_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="absent"):
        Backoff(tmp_path / "absent").record_failure()
