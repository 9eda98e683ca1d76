"""Waiting for entries: by inotify, and without it."""

import ctypes
import errno
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fnm_bus.spool import watch
from fnm_bus.spool.watch import Watch

LONG = 30.0


@pytest.fixture(params=["inotify", "poll"])
def watched(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Watch]:
    def exhausted(_directories: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    if request.param == "poll":
        monkeypatch.setattr(watch, "_open_inotify", exhausted)
    for name in ("one", "two", "elsewhere"):
        (tmp_path / name).mkdir()
    with Watch([tmp_path / "one", tmp_path / "two"]) as watcher:
        assert watcher.has_changed()
        while watcher.has_changed():  # without inotify, until the directories are old
            watcher.wait(0.02)
        assert (watcher.inotify_error != "") is (request.param == "poll")
        yield watcher


def move(tmp_path: Path, to: str) -> None:
    (tmp_path / "elsewhere" / to).write_bytes(b"")
    (tmp_path / "elsewhere" / to).rename(tmp_path / to / "entry")


@pytest.mark.parametrize("to", ["one", "two"])
def test_a_new_file_ends_a_wait(watched: Watch, tmp_path: Path, to: str) -> None:
    timer = threading.Timer(0.05, move, (tmp_path, to))
    timer.start()
    assert watched.wait(LONG)
    timer.join()
    assert watched.has_changed()


def test_an_earlier_file_is_not_missed(watched: Watch, tmp_path: Path) -> None:
    move(tmp_path, "one")
    assert watched.wait(LONG)
    assert watched.wait(LONG)
    assert watched.has_changed()


def test_a_wait_times_out(watched: Watch) -> None:
    assert not watched.wait(0.05)
    assert not watched.has_changed()


def test_a_wake_ends_a_single_wait(watched: Watch) -> None:
    watched.wake()
    assert watched.wait(LONG)
    assert not watched.wait(0.01)
    assert not watched.has_changed()


def test_a_signal_handler_can_end_a_wait(watched: Watch) -> None:
    old = signal.signal(signal.SIGUSR1, lambda *_: watched.wake())
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGUSR1))
    timer.start()
    try:
        assert watched.wait(LONG)
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, old)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_is_opened_before_the_first_use(tmp_path: Path) -> None:
    before = descriptors()
    watcher = Watch([tmp_path])
    watcher.wake()
    assert descriptors() == before
    assert watcher.wait(LONG)
    watcher.close()
    assert descriptors() == before


def test_a_missing_directory_is_a_change(tmp_path: Path) -> None:
    with Watch([tmp_path / "absent"]) as watcher:
        assert watcher.has_changed()
        assert "absent" in watcher.inotify_error
        (tmp_path / "absent").mkdir()
        assert watcher.wait(LONG)


def test_the_limit_of_watches_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "get_errno", lambda: errno.ENOSPC)
    assert "max_user_watches" in str(watch._error())


def test_an_idle_wait_answers_within_milliseconds(
    watched: Watch, tmp_path: Path
) -> None:
    moved_at: list[float] = []

    def move_now() -> None:
        moved_at.append(time.monotonic())
        move(tmp_path, "one")

    timer = threading.Timer(0.1, move_now)
    timer.start()
    assert watched.wait(LONG)
    waited = time.monotonic() - moved_at[0]
    timer.join()
    # Generous: the machine that runs this may be busy.
    assert waited < 1
