"""The one line of a hook on stderr and in syslog."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.installed_hook import (
    SAMPLE,
    InstalledHook,
    all_builds,
    needs_root,
)

from fnm_bus.spool.limits import AdmissionLevel

_OWN_LOG = """
cd "$1" && mkdir dev && mount -t tmpfs none dev && cd dev || exit
for file in null urandom log; do : >$file; done
mount --bind /dev/null null && mount --bind /dev/urandom urandom || exit
mount --bind ../log log && mkdir shm && mount --bind /dev/shm shm || exit
mount --rbind . /dev && exec "$2" </dev/null
"""


@contextlib.contextmanager
def own_syslog(
    hook: InstalledHook, kind: int
) -> Iterator[tuple[socket.socket, list[str]]]:
    """Yield a socket and a command that calls the hook with the socket as /dev/log."""
    with socket.socket(socket.AF_UNIX, kind) as log:
        log.bind(str(hook.directory / "log"))
        log.settimeout(30)
        call = ["unshare", "--mount", "sh", "-c", _OWN_LOG, "sh"]
        yield log, [*call, str(hook.directory), str(hook.path)]


@needs_root
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_syslog_gets_the_line_as_well(hook: InstalledHook, kind: int) -> None:
    hook.spool.refuse(AdmissionLevel.ALL)
    with own_syslog(hook, kind) as (log, call):
        if kind == socket.SOCK_STREAM:
            log.listen()
        done = subprocess.run(call, check=False, capture_output=True)
        assert done.returncode == 75, done.stderr
        if kind == socket.SOCK_STREAM:
            with log.accept()[0] as connection:
                line = connection.recv(4096).decode()
        else:
            line = log.recv(4096).decode()
    daemon, error = 3, 3
    assert line.startswith(f"<{daemon * 8 + error}>fnm-bus[")
    assert done.stderr.decode().strip() in line
    assert line.endswith("\0") == (kind == socket.SOCK_STREAM)


@needs_root
def test_a_hanging_syslog_does_not_delay_the_hook(hook: InstalledHook) -> None:
    hook.spool.refuse(AdmissionLevel.ALL)
    with own_syslog(hook, socket.SOCK_DGRAM) as (_log, call):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as full:
            full.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                while full.sendto(b"x", str(hook.directory / "log")):
                    continue
        done = subprocess.run(call, check=False, capture_output=True, timeout=30)
    assert done.returncode == 75
    assert b"kept in the fallback spool" in done.stderr


@pytest.mark.parametrize("reader", ["hangs", "ended"])
def test_a_stderr_without_a_reader_does_not_delay_the_hook(
    hook: InstalledHook, reader: str
) -> None:
    hook.spool.refuse(AdmissionLevel.ALL)
    reading, writing = os.pipe2(os.O_NONBLOCK)
    if reader == "hangs":
        with contextlib.suppress(BlockingIOError):
            while os.write(writing, b"x" * 4_096):
                continue
    else:
        os.close(reading)
    os.set_blocking(writing, True)
    try:
        done = hook(SAMPLE, stderr=writing, timeout=30)
    finally:
        os.close(writing)
        if reader == "hangs":
            os.close(reading)
    assert done.returncode == 75
    assert hook.documents(hook.fallback) == [SAMPLE]


@all_builds
def test_control_characters_do_not_reach_a_terminal(
    hook: InstalledHook, place: Path
) -> None:
    hook.move_spools(place / "a \t\n\x1b[2J spool")
    hook.spool.refuse(AdmissionLevel.ALL)
    done = hook(SAMPLE)
    assert done.stderr.startswith(
        b"fnm-bus hook: %s/a \\x1b[2J spool: at" % bytes(place)
    )
    assert done.stderr.count(b"\n") == 1
    assert hook.documents(hook.fallback) == [SAMPLE]


def test_a_line_is_cut_where_a_pipe_takes_it_whole(
    hook: InstalledHook, place: Path
) -> None:
    hook.move_spools(place.joinpath(*["d" * 250] * 14))
    hook.spool.refuse(AdmissionLevel.ALL)
    done = hook(SAMPLE)
    assert (done.returncode, done.stderr[-1:]) == (75, b"\n")
    assert 2_900 < len(done.stderr) <= 3_001
    assert hook.documents(hook.fallback) == [SAMPLE]
