"""Each hook as FastNetMon starts it: a process of its own, with the same promises."""

import os
import pty
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.installed_hook import (
    SAMPLE,
    InstalledHook,
    NativeHook,
    all_builds,
    needs_root,
)
from support.process import wait_until

from fnm_bus.hook import python_hook
from fnm_bus.spool.entry_name import boot_of, pid_of, ticks_of
from fnm_bus.spool.limits import AdmissionLevel
from fnm_bus.spool.sequence import PID_BITS, BootEpochs
from fnm_bus.spool.spool import Spool

UNBAN = ("192.0.2.1", "incoming", "1000", "unban")


CALLS: list[tuple[list[bytes], bytes]] = [
    ([], b""),
    ([b"ban", b"192.0.2.1"], SAMPLE),
    ([b""], b"\n\n"),
    ([b"", b"", b""], b"no newline at the end"),
    ([b"a b\nc\n", b"\n", b" "], b"\0\0 a \0\n"),
    ([b"-n", b"--", b"-e", b"--help"], b"-n"),
    ([b"*", b"$(id)", b"%s%d%n", b"'\""], b"%s%n \\0 $HOME `id`"),
    ([bytes([number]) for number in range(1, 256)], bytes(range(256)) * 70),
    (["é€".encode(), b"\xff\xfe"], "é€".encode()),
    ([b"x" * 120_000] * 12, b"x"),
    ([], os.urandom(10_000_001)),
    ([], b"x" * python_hook.MAX_STDIN),
]


@all_builds
@pytest.mark.parametrize(("arguments", "document"), CALLS, ids=range(len(CALLS)))
def test_status_0_means_one_entry_with_every_byte(
    hook: InstalledHook, arguments: list[bytes], document: bytes
) -> None:
    done = hook(document, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    head = b"fnm-bus 1 %d" % len(arguments)
    assert hook.raw_entries() == [b"\0".join([head, *arguments, document])]
    assert hook.temporary() == hook.raw_entries(hook.fallback) == []


@given(
    arguments=st.lists(
        st.binary(max_size=200).map(lambda text: text.replace(b"\0", b"")), max_size=8
    ),
    document=st.binary(max_size=3_000) | st.binary(min_size=65_530, max_size=65_545),
    level=st.sampled_from(AdmissionLevel),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_hooks_store_the_same_bytes_in_the_same_spool(
    place: Path,
    native_program: Callable[[str], Path],
    arguments: list[bytes],
    document: bytes,
    level: AdmissionLevel,
) -> None:
    results = []
    with TemporaryDirectory(dir=place) as one, TemporaryDirectory(dir=place) as two:
        native = NativeHook(Path(two), native_program("gcc"))
        for hook in (InstalledHook(Path(one)), native):
            hook.spool.refuse(level)
            done = hook(document, *arguments)
            line = done.stderr.replace(bytes(hook.directory), b"")
            line = line.rpartition(b"/")[0][:-1]  # without the entry's name
            stored = [hook.raw_entries(spool) for spool in (hook.spool, hook.fallback)]
            results.append((done.returncode, line, stored))
    assert results[0] == results[1]


def test_a_name_has_boot_start_and_pid_of_the_started_process(
    hook: InstalledHook,
) -> None:
    call = hook.start()
    started = python_hook.process_start_ticks(call.pid)
    assert call.communicate(SAMPLE, timeout=30) == (b"", b"")
    (name,) = hook.spool.scan()
    assert boot_of(name) == python_hook.boot_id()
    assert (pid_of(name), ticks_of(name)) == (call.pid, started)


def test_the_steps_to_disk_survive_a_power_loss(
    hook: InstalledHook, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    names = "trace=openat,write,fsync,link,rename,renameat,renameat2"
    argv = ["strace", "-f", "-y", "-s", "500", "-o", trace, "-e", names, hook.path]
    try:
        subprocess.run(argv, input=SAMPLE, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("strace is not installed")
    lines = trace.read_text().splitlines()
    steps = [line.split(maxsplit=1)[1] for line in lines if "/incoming/" in line]
    steps = steps[
        next(number for number, step in enumerate(steps) if "O_CREAT" in step) :
    ]
    calls = [step.split("(")[0] for step in steps]
    assert calls == ["openat", "write", "fsync", "renameat", "fsync"]
    assert all(flag in steps[0] for flag in ("incoming/tmp", "O_EXCL", "O_NOFOLLOW"))
    assert ("/incoming/tmp/" in steps[2], "/incoming/new/" in steps[4]) == (True, True)


@pytest.mark.parametrize("umask", [0, 0o777])
def test_an_entry_is_readable_for_the_group_only(
    hook: InstalledHook, umask: int
) -> None:
    assert hook(umask=umask).returncode == 0
    (entry,) = hook.entries()
    assert stat.S_IMODE(Path(entry.path).stat().st_mode) == 0o640


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "xx_XX.UTF-8", "PATH": "", "HOME": "/nowhere"},
        {"PYTHONPATH": "/nowhere", "POSIXLY_CORRECT": "1"},
    ],
)
def test_the_environment_does_not_matter(
    hook: InstalledHook, environment: dict[str, str]
) -> None:
    assert hook(SAMPLE, "ban", "é", env=environment).returncode == 0
    assert hook.entries()[0].arguments == ("ban", "é")


def test_a_nonblocking_stdin_is_read_to_its_end(hook: InstalledHook) -> None:
    """A parent with an event loop may leave stdin so."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    with subprocess.Popen([hook.path], stdin=reading) as call:
        try:
            os.write(writing, SAMPLE[:10])
            wait_until(lambda: os.get_blocking(reading), 30, "the hook reads")
            os.set_blocking(writing, True)
            os.write(writing, SAMPLE[10:])
        finally:
            os.close(writing)
            os.close(reading)
        assert call.wait(30) == 0
    assert hook.documents() == [SAMPLE]


def test_unban_in_text_mode_does_not_wait_for_a_terminal(hook: InstalledHook) -> None:
    controller, terminal = pty.openpty()
    try:
        argv = [hook.path, *UNBAN]
        done = subprocess.run(argv, stdin=terminal, check=False, timeout=30)
    finally:
        os.close(controller)
        os.close(terminal)
    assert done.returncode == 0
    (entry,) = hook.entries()
    assert (entry.arguments, entry.document) == (UNBAN, b"")


@all_builds
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_closed_standard_files_do_not_mix_with_an_entry(
    hook: InstalledHook, closed: tuple[int, ...]
) -> None:
    def close() -> None:
        for fd in closed:
            os.close(fd)

    done = subprocess.run([hook.path, *UNBAN], check=False, preexec_fn=close)
    assert done.returncode == 0
    assert hook.raw_entries() == [
        b"\0".join([b"fnm-bus 1 4", *map(str.encode, UNBAN), b""])
    ]
    # With a document to come: it is read, or its loss is reported.
    done = hook(SAMPLE, preexec_fn=close)
    stored = hook.documents().count(SAMPLE)
    assert (done.returncode, stored) == ((75, 0) if 0 in closed else (0, 1))
    # With an error to report, also where stderr's number is free.
    hook.spool.refuse(AdmissionLevel.ALL)
    assert hook(SAMPLE, preexec_fn=close).returncode == 75
    assert hook.documents(hook.fallback) == ([] if 0 in closed else [SAMPLE])


def test_calls_sort_by_their_start(hook: InstalledHook) -> None:
    """The first call starts first, and gets its document last."""
    first = hook.start("0")
    for number in range(1, 6):
        assert hook(SAMPLE, str(number)).returncode == 0
    path = hook.spool.root / "state/epochs.json"
    epochs = BootEpochs(path, python_hook.boot_id())
    spool = Spool(hook.spool.root, epochs)
    published = spool.scan()
    assert [spool.read(name).arguments[0] for name in published] == list("12345")
    sequences = [epochs.sequence(name) for name in published]
    first.communicate(SAMPLE, timeout=30)
    names = spool.scan()
    assert [spool.read(name).arguments[0] for name in names] == list("012345")
    assert [epochs.sequence(name) for name in names[1:]] == sequences
    assert epochs.sequence(names[0]) < sequences[0]


@needs_root
@pytest.mark.parametrize("is_broken", [False, True])
def test_without_proc_a_name_has_the_time_of_the_call(
    hook: InstalledHook, *, is_broken: bool
) -> None:
    if is_broken:
        hook.spool.root.rename(f"{hook.spool.root}-moved")
    hides = 'mount -t tmpfs none /proc && exec "$0" "$@"'
    argv = ["unshare", "--mount", "sh", "-c", hides, hook.path, "ban"]
    before = time.time_ns() // 10**7 - 1
    done = subprocess.run(argv, input=SAMPLE, check=False)
    after = time.time_ns() // 10**7 + 1
    assert done.returncode == (75 if is_broken else 0)
    spool = hook.fallback if is_broken else hook.spool
    epochs = BootEpochs(spool.root / "state/epochs.json", python_hook.boot_id())
    (name,) = Spool(spool.root, epochs).scan()
    assert (spool.read(name).arguments, hook.documents(spool)) == (("ban",), [SAMPLE])
    assert boot_of(name).startswith(python_hook.NO_BOOT_ID)
    tick = epochs.sequence(name) >> PID_BITS
    assert before <= tick + 1_735_689_600 * 100 <= after


def test_two_hundred_calls_at_once_lose_nothing(hook: InstalledHook) -> None:
    calls = [hook.start(str(number)) for number in range(200)]
    for number, call in enumerate(calls):
        call.communicate(b"%d" % number, timeout=120)
    assert {call.returncode for call in calls} == {0}
    entries = hook.entries()
    assert {entry.document for entry in entries} == {b"%d" % n for n in range(200)}
    assert all(entry.document.decode() == entry.arguments[0] for entry in entries)
    assert {pid_of(entry.name) for entry in entries} == {call.pid for call in calls}
    assert hook.temporary() == []


def test_a_call_killed_while_it_reads_leaves_nothing(hook: InstalledHook) -> None:
    call = hook.start()
    assert call.stdin is not None
    call.stdin.write(b'{"half": ')
    call.send_signal(signal.SIGKILL)
    call.communicate(timeout=30)
    assert call.returncode == -signal.SIGKILL
    assert [*hook.spool.root.glob("incoming/*/*/*"), *hook.temporary()] == []
