"""The installed hook, as FastNetMon starts it: a process of its own."""

import contextlib
import json
import os
import pty
import re
import resource
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.installed_hook import SAMPLE, STATUS, InstalledHook
from support.process import wait_until

from fnm_bus.hook import python_hook
from fnm_bus.setup import install_hook
from fnm_bus.spool.entry_name import pid_of
from fnm_bus.spool.limits import AdmissionLevel
from fnm_bus.spool.sequence import BootEpochs
from fnm_bus.spool.spool import Spool

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can act as another user"
)


def test_a_notification_is_on_disk_when_the_hook_says_so(
    installed: InstalledHook,
) -> None:
    done = installed(SAMPLE, "ban", "192.0.2.1")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    (entry,) = installed.entries()
    assert entry.document == SAMPLE
    assert entry.arguments == ("ban", "192.0.2.1")
    assert installed.temporary() == []


def test_the_steps_to_disk_are_in_the_order_that_survives_a_loss_of_power(
    installed: InstalledHook, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    names = "trace=write,fsync,rename,renameat,renameat2"
    argv = ["strace", "-f", "-y", "-o", trace, "-e", names, installed.path]
    try:
        subprocess.run(argv, input=SAMPLE, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("strace is not installed")
    steps = [
        line.split(maxsplit=1)[1]
        for line in trace.read_text().splitlines()
        if "incoming" in line
    ]
    calls = [step.split("(")[0] for step in steps]
    assert calls == ["write", "fsync", "renameat", "fsync"]
    assert "/incoming/tmp/" in steps[-3]
    assert "/incoming/new/" in steps[-1]


@pytest.mark.parametrize("size", [0, 1, 65_536, 10_000_000])
def test_a_document_of_any_size_is_kept_whole(
    installed: InstalledHook, size: int
) -> None:
    assert installed(b"x" * size).returncode == 0
    (entry,) = installed.entries()
    assert Path(entry.path).read_bytes().endswith(b"\0" + b"x" * size)


def test_arguments_are_kept_whatever_their_bytes_are(installed: InstalledHook) -> None:
    done = subprocess.run(
        [os.fsencode(installed.path), b"", b"a b\nc", "é".encode(), b"\xff"],
        input=b"",
        check=True,
        env={"LC_ALL": "C"},
    )
    assert done.returncode == 0
    (entry,) = installed.entries()
    assert entry.arguments == ("", "a b\nc", "é", "\\xff")


@pytest.mark.parametrize(
    "environment",
    [{}, {"LC_ALL": "C", "PATH": "", "HOME": "/nowhere"}, {"PYTHONPATH": "/nowhere"}],
)
def test_the_environment_does_not_matter(
    installed: InstalledHook, environment: dict[str, str]
) -> None:
    assert installed(SAMPLE, "ban", "é", env=environment).returncode == 0
    assert installed.entries()[0].arguments == ("ban", "é")


def test_nothing_beside_the_hook_is_imported(
    installed: InstalledHook, tmp_path: Path
) -> None:
    """Not from the directory of the hook, nor from that in which it is started."""
    for module in ("posix", "sys", "os", "fcntl", "select", "time"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit(99)\n")
    assert installed(SAMPLE, cwd=tmp_path).returncode == 0
    python = Path(sys.executable).resolve()
    argv = [python, "-X", "importtime", "-IS", installed.path]
    done = subprocess.run(argv, input=SAMPLE, check=True, capture_output=True)
    bare = subprocess.run(
        [python, "-X", "importtime", "-IS", "-c", "pass"],
        check=True,
        capture_output=True,
    )
    assert done.stderr.count(b"\n") <= bare.stderr.count(b"\n")


def test_a_stdin_that_does_not_block_is_read_to_its_end(
    installed: InstalledHook,
) -> None:
    """As a parent with an event loop may leave it."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    with subprocess.Popen([installed.path], stdin=reading) as call:
        try:
            os.write(writing, SAMPLE[:10])
            wait_until(lambda: os.get_blocking(reading), 30, "the hook reads")
            os.set_blocking(writing, True)
            os.write(writing, SAMPLE[10:])
        finally:
            os.close(writing)
            os.close(reading)
        assert call.wait(30) == 0
    assert [it.document for it in installed.entries()] == [SAMPLE]


def test_unban_in_text_mode_does_not_wait_for_a_terminal(
    installed: InstalledHook,
) -> None:
    controller, terminal = pty.openpty()
    try:
        done = subprocess.run(
            [installed.path, "192.0.2.1", "incoming", "1000", "unban"],
            stdin=terminal,
            check=False,
            timeout=30,
        )
    finally:
        os.close(controller)
        os.close(terminal)
    assert done.returncode == 0
    (entry,) = installed.entries()
    assert entry.arguments == ("192.0.2.1", "incoming", "1000", "unban")
    assert entry.document == b""


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_standard_files_do_not_mix_a_document_with_anything(
    installed: InstalledHook, closed: tuple[int, ...]
) -> None:
    def close() -> None:
        for fd in closed:
            os.close(fd)

    argv = [installed.path, "192.0.2.1", "incoming", "1000", "unban"]
    done = subprocess.run(argv, check=False, preexec_fn=close)
    assert done.returncode == 0
    assert installed.entries()[0].document == b""


def break_spool(installed: InstalledHook, how: str) -> None:
    root = installed.spool.root
    if how == "gone":
        root.rename(installed.directory / "moved")
    elif how == "no bucket":
        for bucket in installed.spool.buckets():
            bucket.rmdir()
    elif how == "a link":
        (root / "incoming/tmp").rmdir()
        (root / "incoming/tmp").symlink_to(installed.directory / "nowhere")
    elif how == "a file":
        (root / "incoming/tmp").rmdir()
        (root / "incoming/tmp").write_bytes(b"")
    else:
        installed.spool.refuse(AdmissionLevel.ALL)


@pytest.mark.parametrize("how", ["gone", "no bucket", "a link", "a file", "full"])
def test_what_the_spool_does_not_take_is_in_the_fallback_spool_and_it_says_so(
    installed: InstalledHook, how: str
) -> None:
    break_spool(installed, how)
    done = installed(SAMPLE, "ban", "192.0.2.1")
    assert (done.returncode, done.stdout) == (75, b"")
    (entry,) = installed.entries(installed.fallback)
    assert entry.document == SAMPLE
    line = done.stderr.decode()
    assert line.count("\n") == 1
    assert str(installed.spool.root) in line
    assert f"kept in the fallback spool: {entry.path}" in line


def test_what_nobody_takes_is_said_to_be_lost_and_stdin_is_read_all_the_same(
    installed: InstalledHook,
) -> None:
    for spool in (installed.spool, installed.fallback):
        spool.root.rename(f"{spool.root}-moved")
    done = installed(b"x" * 3_000_000)
    assert done.returncode == 75
    assert b"lost" in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert done.stdout == b""


def test_a_full_spool_takes_everything_but_status(installed: InstalledHook) -> None:
    installed.spool.refuse(AdmissionLevel.STATUS)
    assert installed(STATUS).returncode == 75
    assert installed(SAMPLE).returncode == 0
    assert [it.document for it in installed.entries()] == [SAMPLE]
    assert [it.document for it in installed.entries(installed.fallback)] == [STATUS]


def test_a_document_beyond_all_bounds_is_drained_and_refused(
    installed: InstalledHook,
) -> None:
    text = installed.path.read_text().replace("MAX_STDIN = 64 << 20", "MAX_STDIN = 10")
    installed.path.write_text(text)
    done = installed(b"x" * 1_000_000)
    assert done.returncode == 75
    assert b"1000000 bytes" in done.stderr
    assert installed.entries() == []


@pytest.mark.parametrize("limit", [resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE])
def test_limits_of_the_process_are_no_reason_to_lose_anything_in_silence(
    installed: InstalledHook, limit: int
) -> None:
    def lower() -> None:
        resource.setrlimit(limit, (4, 4))

    done = installed(SAMPLE, preexec_fn=lower)
    kept = [*installed.entries(), *installed.entries(installed.fallback)]
    assert done.returncode == 0 if kept else done.returncode != 0
    assert installed.temporary() == []


def test_calls_come_in_the_order_in_which_they_were_started(
    installed: InstalledHook,
) -> None:
    """The first is started first, and is the last to get its document."""
    first = subprocess.Popen([installed.path, "0"], stdin=subprocess.PIPE)
    for number in range(1, 6):
        assert installed(SAMPLE, str(number)).returncode == 0
    epochs = BootEpochs(
        installed.spool.root / "state/epochs.json", python_hook.boot_id()
    )
    spool = Spool(installed.spool.root, epochs)
    published = spool.scan()
    assert [spool.read(it).arguments[0] for it in published] == list("12345")
    given_out = [epochs.sequence(it) for it in published]
    first.communicate(SAMPLE, timeout=30)
    names = spool.scan()
    assert [spool.read(it).arguments[0] for it in names] == list("012345")
    assert epochs.sequence(names[0]) < given_out[0]
    assert [epochs.sequence(it) for it in names[1:]] == given_out


def test_two_hundred_calls_at_once_lose_nothing(installed: InstalledHook) -> None:
    calls = [
        subprocess.Popen([installed.path, str(number)], stdin=subprocess.PIPE)
        for number in range(200)
    ]
    for number, call in enumerate(calls):
        assert call.stdin is not None
        call.stdin.write(b'{"number": %d}' % number)
        call.stdin.close()
    assert {call.wait(timeout=120) for call in calls} == {0}
    entries = installed.entries()
    documents = {int(it.arguments[0]): json.loads(it.document) for it in entries}
    assert documents == {number: {"number": number} for number in range(200)}
    assert {pid_of(it.name) for it in entries} == {call.pid for call in calls}
    assert installed.temporary() == []


def test_a_killed_call_leaves_no_entry(installed: InstalledHook) -> None:
    call = subprocess.Popen([installed.path], stdin=subprocess.PIPE)
    assert call.stdin is not None
    call.stdin.write(b'{"half": ')
    call.stdin.flush()
    call.send_signal(signal.SIGKILL)
    assert call.wait(timeout=30) == -signal.SIGKILL
    call.stdin.close()
    assert installed.entries() == []


@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_a_disk_that_really_is_full_costs_nothing_but_the_fallback(
    installed: InstalledHook, small_disk: Path, what: str
) -> None:
    installed.spool = Spool(small_disk / "spool")
    installed.spool.make(os.geteuid(), os.getegid())
    installed.install()
    text = installed.path.read_text()
    for setting in ("RESERVE_BYTES", "RESERVE_INODES"):
        text = text.replace(
            f"{setting} = {getattr(python_hook, setting)}", f"{setting} = 0"
        )
    installed.path.write_text(text)
    document = b"x" * (50_000 if what == "bytes" else 1)
    statuses = [installed(document).returncode for _ in range(45)]
    assert statuses == sorted(statuses)
    assert set(statuses) == {0, 75}
    assert len(installed.entries()) == statuses.count(0)
    assert len(installed.entries(installed.fallback)) == statuses.count(75)
    assert {it.document for it in installed.entries()} == {document}
    assert installed.temporary() == []


_OWN_LOG = """
cd "$1" && mkdir dev && mount -t tmpfs none dev && cd dev || exit
for it in null urandom log; do : >$it; done
mount --bind /dev/null null && mount --bind /dev/urandom urandom || exit
mount --bind ../log log && ln -s /proc/self/fd fd || exit
mount --rbind . /dev && exec "$2" </dev/null
"""


@needs_root
@pytest.mark.parametrize("kind", ["python", "shell"])
def test_syslog_is_told_as_well(installed: InstalledHook, kind: str) -> None:
    if kind == "shell":
        roots = (installed.spool.root, installed.fallback.root)
        install_hook.install(installed.path, *roots, install_hook.SHELL)
    installed.spool.refuse(AdmissionLevel.ALL)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(installed.directory / "log"))
        log.settimeout(30)
        call = ["unshare", "--mount", "sh", "-c", _OWN_LOG, "sh"]
        call += [str(installed.directory), str(installed.path)]
        done = subprocess.run(call, check=False, capture_output=True)
        assert done.returncode == 75, done.stderr
        line = log.recv(4096).decode()
    daemon, error = 3, 3
    assert line.startswith(f"<{daemon * 8 + error}>")
    assert "fnm-bus" in line
    assert done.stderr.decode().strip() in line


@needs_root
@pytest.mark.parametrize("kind", ["python", "shell"])
def test_a_syslog_that_nobody_reads_does_not_keep_the_hook(
    installed: InstalledHook, kind: str
) -> None:
    if kind == "shell":
        roots = (installed.spool.root, installed.fallback.root)
        install_hook.install(installed.path, *roots, install_hook.SHELL)
    installed.spool.refuse(AdmissionLevel.ALL)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(installed.directory / "log"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as full:
            full.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                while full.sendto(b"x", str(installed.directory / "log")):
                    continue
        call = ["unshare", "--mount", "sh", "-c", _OWN_LOG, "sh"]
        call += [str(installed.directory), str(installed.path)]
        done = subprocess.run(call, check=False, capture_output=True, timeout=30)
    assert done.returncode == 75
    assert b"kept in the fallback spool" in done.stderr


def test_a_stderr_that_nobody_reads_does_not_keep_the_hook(
    installed: InstalledHook,
) -> None:
    installed.spool.refuse(AdmissionLevel.ALL)
    reading, writing = os.pipe2(os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while os.write(writing, b"x" * 4_096):
            continue
    os.set_blocking(writing, True)
    try:
        done = installed(SAMPLE, stderr=writing, timeout=30)
    finally:
        os.close(reading)
        os.close(writing)
    assert done.returncode == 75
    assert len(installed.entries(installed.fallback)) == 1


def test_calls_at_once_that_the_fallback_has_no_room_for_say_so(
    installed: InstalledHook,
) -> None:
    installed.spool.refuse(AdmissionLevel.ALL)
    text = installed.path.read_text()
    installed.path.write_text(
        text.replace(
            f"FALLBACK_FILES = {python_hook.FALLBACK_FILES}", "FALLBACK_FILES = 5"
        )
    )
    with ThreadPoolExecutor(8) as pool:
        calls = [*pool.map(installed, [SAMPLE] * 40)]
    assert {it.returncode for it in calls} == {75}
    lost = sum(b"this notification is lost" in it.stderr for it in calls)
    kept = len(installed.entries(installed.fallback))
    # Those that look at the same moment see the same room.
    assert (lost + kept, 5 <= kept < 5 + 8) == (40, True)


STARTED = {0, 75}
"""Statuses of a hook that has run."""


def documented_statuses() -> set[int]:
    text = (Path(__file__).parents[2] / "docs/fastnetmon.md").read_text()
    table = text.partition("## Exit status of the hook")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE)
    return {int(status) for cell in cells for status in cell.split(",")}


@pytest.mark.parametrize("mebibytes", [1, 4, 7, 8, 9, 10, 11, 12, 13, 14, 16, 24])
def test_a_python_that_cannot_start_ends_with_a_documented_status(
    installed: InstalledHook, mebibytes: int
) -> None:
    installed.use("/usr/bin/python3")
    limit = f'ulimit -v {mebibytes * 1024}; "$0"; exit $?'
    done = subprocess.run(
        ["sh", "-c", limit, installed.path],
        input=SAMPLE,
        capture_output=True,
        check=False,
        env={},
        timeout=60,
    )
    assert done.returncode in documented_statuses()
    assert (done.returncode == 0) == (len(installed.entries()) == 1)


@pytest.mark.parametrize(("how", "status"), [("missing", 127), ("mode", 126)])
def test_a_hook_that_cannot_be_executed_ends_with_a_documented_status(
    installed: InstalledHook, how: str, status: int
) -> None:
    if how == "missing":
        installed.use("/nowhere/python3")
    else:
        installed.path.chmod(0o644)
    argv = ["sh", "-c", '"$0"', installed.path]
    done = subprocess.run(argv, input=SAMPLE, capture_output=True, check=False)
    assert done.returncode == status
    assert status in documented_statuses() - STARTED
