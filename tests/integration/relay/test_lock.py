"""The spool's lock: one holder, a process of the owner."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fnm_bus.errors import SpoolError
from fnm_bus.hook import python_hook
from fnm_bus.spool.spool import Spool

HOLD = """
import sys
from fnm_bus.spool.spool import Spool
with Spool(sys.argv[1]).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    box = Spool(tmp_path / "spool")
    box.make(os.geteuid(), os.getegid())
    return box


def held_elsewhere(spool: Spool) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, spool.root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_lock_has_a_single_holder_until_its_release(spool: Spool) -> None:
    with held_elsewhere(spool) as process:
        assert spool.lock() is None
        assert spool.is_locked()
        assert python_hook.try_lock(str(spool.root)) == -1
        process.communicate(timeout=10)
    lock = spool.lock()
    assert lock is not None
    with lock:
        assert spool.is_locked()
    lock.release()
    assert not spool.is_locked()


def test_a_killed_process_releases_the_lock(spool: Spool) -> None:
    with held_elsewhere(spool) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
    lock = spool.lock()
    assert lock is not None
    lock.release()


def test_a_stopped_process_keeps_the_lock(spool: Spool) -> None:
    with held_elsewhere(spool) as process:
        process.send_signal(signal.SIGSTOP)
        assert spool.lock() is None
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=10)


def test_taking_the_lock_does_not_create_its_file(spool: Spool) -> None:
    (spool.root / "lock").unlink()
    with pytest.raises(SpoolError, match="set the spool up first"):
        spool.lock()
    assert not (spool.root / "lock").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_root_does_not_drain_the_spool_of_another_user(spool: Spool) -> None:
    os.chown(spool.root / "lock", 65_534, 65_534)
    with pytest.raises(SpoolError, match="only the spool's owner drains"):
        spool.lock()


def test_an_inherited_lock_stays_held(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = python_hook.try_lock(str(spool.root))
    monkeypatch.setenv(python_hook.LOCK_FD, str(fd))
    lock = spool.lock()
    assert lock is not None
    assert python_hook.LOCK_FD not in os.environ
    assert not os.get_inheritable(fd)
    assert spool.lock() is None
    lock.release()
    assert not spool.is_locked()


@pytest.mark.parametrize("text", ["0", "999", "x", "", "-1"])
def test_an_inherited_descriptor_of_another_file_is_ignored(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(python_hook.LOCK_FD, text)
    lock = spool.lock()
    assert lock is not None
    with lock:
        assert spool.is_locked()


def test_a_read_only_spool_can_be_locked(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def read_only(path: Path, flags: int) -> int:
        if flags & os.O_RDWR:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(path, flags)

    monkeypatch.setattr(os, "open", read_only)
    held = spool.lock()
    assert held is not None
    with held:
        assert spool.is_locked()


@pytest.mark.parametrize("ask", [Spool.lock, Spool.is_locked])
def test_a_pipe_instead_of_the_lock_does_not_block(
    spool: Spool, ask: Callable[[Spool], object]
) -> None:
    (spool.root / "lock").unlink()
    os.mkfifo(spool.root / "lock")
    with pytest.raises(SpoolError, match="not a regular file"):
        ask(spool)


def test_a_lock_of_a_moved_spool_is_elsewhere(spool: Spool) -> None:
    lock = spool.lock()
    assert lock is not None
    path = spool.root / "lock"
    with lock:
        assert lock.is_at(path)
        spool.root.rename(spool.root.with_name("away"))
        assert not lock.is_at(path)
        spool.make(os.geteuid(), os.getegid())
        assert not lock.is_at(path)
