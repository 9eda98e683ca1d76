"""Each hook as FastNetMon starts it: a process of its own, with the same promises."""

import contextlib
import os
import pty
import resource
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.installed_hook import (
    NOBODY,
    SAMPLE,
    STATUS,
    InstalledHook,
    NativeHook,
    all_builds,
    as_user,
    needs_root,
)
from support.lease import leased
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


def break_spool(hook: InstalledHook, how: str) -> None:
    root = hook.spool.root
    if how == "removed":
        root.rename(f"{root}-moved")
    elif how == "no bucket":
        for bucket in hook.spool.buckets():
            bucket.rmdir()
    elif how == "full":
        hook.spool.refuse(AdmissionLevel.ALL)
    else:
        (root / "incoming/tmp").rmdir()
        if how == "link":
            (root / "incoming/tmp").symlink_to("/nowhere")
        elif how == "file":
            (root / "incoming/tmp").touch()
        else:
            os.mkfifo(root / "incoming/tmp")


@all_builds
@pytest.mark.parametrize(
    "how", ["removed", "no bucket", "link", "file", "pipe", "full"]
)
def test_the_fallback_spool_gets_refused_documents_and_one_line_its_path(
    hook: InstalledHook, how: str
) -> None:
    break_spool(hook, how)
    document = SAMPLE * 1_000 + b"\0"
    done = hook(document, "ban", "192.0.2.1")
    assert (done.returncode, done.stdout) == (75, b"")
    (entry,) = hook.entries(hook.fallback)
    assert (entry.arguments, entry.document) == (("ban", "192.0.2.1"), document)
    line = done.stderr.decode()
    assert line.count("\n") == 1
    assert line.startswith("fnm-bus hook: ")
    assert str(hook.spool.root) in line
    assert f"kept in the fallback spool: {entry.path}" in line
    assert hook.temporary() == []


@all_builds
@pytest.mark.parametrize("how", ["removed", "limit of files", "limit of bytes"])
def test_a_loss_is_reported_and_stdin_read_all_the_same(
    hook: InstalledHook, how: str
) -> None:
    break_spool(hook, "removed")
    if how == "removed":
        hook.fallback.root.rename(f"{hook.fallback.root}-moved")
    elif how == "limit of files":
        hook.change(FALLBACK_FILES=2)
    else:
        hook.change(FALLBACK_BYTES=4_000_000)
    stored = {"removed": 0, "limit of files": 2, "limit of bytes": 1}[how]
    for number in range(stored + 1):
        call = hook.start()
        assert call.stdin is not None
        left = b"x" * 4_000_000
        while left:  # a broken pipe if it is not read
            left = left[call.stdin.write(left) or 0 :]
        out, line = call.communicate(timeout=30)
        assert (call.returncode, out, line.count(b"\n")) == (75, b"", 1)
        assert (b"this notification is lost" in line) == (number == stored)
        assert (b"; fallback: " in line) == (number == stored)
    assert len(list(hook.fallback.root.glob("incoming/new/?/*"))) == stored


def test_a_healthy_spool_needs_no_fallback(hook: InstalledHook) -> None:
    shutil.rmtree(hook.fallback.root)
    done = hook(SAMPLE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert hook.documents() == [SAMPLE]


@all_builds
def test_a_full_spool_takes_everything_but_status(hook: InstalledHook) -> None:
    hook.spool.refuse(AdmissionLevel.STATUS)
    assert hook(STATUS).returncode == 75
    assert hook(b"\0" * 100_000 + STATUS).returncode == 75
    assert hook(SAMPLE, "attack_status", "192.0.2.1").returncode == 0
    hook.spool.refuse(AdmissionLevel.ALL)
    done = hook(SAMPLE)
    assert (done.returncode, b"at its limit: all" in done.stderr) == (75, True)
    hook.spool.refuse(AdmissionLevel.NOTHING)
    assert hook(STATUS).returncode == 0
    assert hook.documents() == [SAMPLE, STATUS]
    assert len(hook.entries(hook.fallback)) == 3


@all_builds
@pytest.mark.parametrize("setting", ["RESERVE_BYTES", "RESERVE_INODES"])
def test_status_needs_twice_the_reserve(
    hook: InstalledHook, disk: Callable[[str], Path], setting: str
) -> None:
    hook.move_spools(disk("size=100m,nr_inodes=10000") / "spool")
    hook.change(**{setting: 60 << 20 if setting == "RESERVE_BYTES" else 6_000})
    assert [hook(SAMPLE).returncode, hook(STATUS).returncode] == [0, 75]
    hook.change(**{setting: 1 << 62})
    assert b"only the reserve of 4611686018427387904 " in hook(SAMPLE).stderr


@all_builds
def test_an_oversized_document_is_read_and_refused(hook: InstalledHook) -> None:
    done = hook(b"secret" + b"x" * python_hook.MAX_STDIN)
    assert done.returncode == 75
    assert b"lost: stdin holds 67108870 bytes; the limit is 67108864" in done.stderr
    assert (done.stderr.count(b"\n"), b"secret" in done.stderr) == (1, False)
    assert hook.entries() == hook.entries(hook.fallback) == hook.temporary() == []


@pytest.mark.parametrize(
    ("options", "size"),
    [("size=400k", 70_001), ("nr_inodes=30", 1), ("size=400k", 1_000_000)],
    ids=["bytes", "inodes", "one document is larger"],
)
def test_a_full_disk_loses_nothing(
    hook: InstalledHook, disk: Callable[[str], Path], options: str, size: int
) -> None:
    hook.move_spools(disk(options) / "spool")
    texts = [bytes([65 + number]) * (size + number * 997) for number in range(12)]
    calls = [hook(text) for text in texts]
    statuses = [call.returncode for call in calls]
    stored, aside = hook.documents(), hook.documents(hook.fallback)
    assert (len(stored), len(aside)) == (statuses.count(0), statuses.count(75))
    assert aside
    assert sorted([*stored, *aside]) == texts
    assert all(call.stderr.count(b"\n") == bool(call.returncode) for call in calls)
    assert hook.temporary() == []


def test_calls_that_fill_a_disk_together_lose_nothing(
    hook: InstalledHook, disk: Callable[[str], Path]
) -> None:
    hook.move_spools(disk("size=600k") / "spool")
    texts = [bytes([65 + number]) * 33_333 for number in range(40)]
    calls = [hook.start() for _ in texts]
    for text, call in zip(texts, calls, strict=True):
        call.communicate(text, timeout=60)
    statuses = [call.returncode for call in calls]
    assert set(statuses) == {0, 75}
    stored, aside = hook.documents(), hook.documents(hook.fallback)
    assert len(stored) == statuses.count(0)
    assert sorted([*stored, *aside]) == texts
    assert hook.temporary() == []


def test_a_document_larger_than_both_disks_is_lost(
    hook: InstalledHook, disk: Callable[[str], Path]
) -> None:
    hook.move_spools(disk("size=200k") / "spool", disk("size=100k") / "fallback")
    done = hook(b"x" * 500_000)
    assert (done.returncode, done.stderr.count(b"\n")) == (75, 1)
    assert (b"lost" in done.stderr, done.stderr.count(b"No space left")) == (True, 2)
    assert hook.entries() == hook.entries(hook.fallback) == hook.temporary() == []


def test_a_readonly_disk_costs_only_the_fallback(
    hook: InstalledHook, disk: Callable[[str], Path]
) -> None:
    hook.move_spools((target := disk("size=400k")) / "spool")
    subprocess.run(["mount", "-o", "remount,ro,noexec", target], check=True)
    done = hook(SAMPLE)
    assert (done.returncode, b"Read-only" in done.stderr) == (75, True)
    assert hook.documents(hook.fallback) == [SAMPLE]


@pytest.mark.parametrize(
    "link",
    [
        "incoming",
        "incoming/tmp",
        "incoming/new",
        *(f"incoming/new/{n:x}" for n in (0,)),
    ],
)
def test_a_link_to_a_directory_is_not_followed(
    hook: InstalledHook, place: Path, link: str
) -> None:
    """The spool's owner could plant it, and root may run the hook."""
    links = (
        [link[:-1] + digit for digit in "0123456789abcdef"] if "/0" in link else [link]
    )
    away = place / "away"
    away.mkdir()
    for number, path in enumerate(links):
        shutil.move(hook.spool.root / path, away / str(number))
        (hook.spool.root / path).symlink_to(away / str(number))
    before = sorted(away.rglob("*"))
    done = hook(SAMPLE)
    assert (done.returncode, b"Not a directory" in done.stderr) == (75, True)
    assert sorted(away.rglob("*")) == before
    assert hook.documents(hook.fallback) == [SAMPLE]


def test_the_spools_own_path_may_have_links(hook: InstalledHook, place: Path) -> None:
    hook.spool.root.rename(place / "moved")
    hook.spool.root.symlink_to(place / "moved")
    done = hook(SAMPLE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert hook.documents() == [SAMPLE]


@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "pipe", "directory"])
@pytest.mark.parametrize("where", ["incoming/tmp", "incoming/new/a"])
def test_a_planted_file_is_never_written_to(
    hook: InstalledHook, place: Path, where: str, kind: str
) -> None:
    """The spool's owner could plant a link to a file of root."""
    precious = place / "precious"
    precious.write_bytes(b"precious")
    poke = "inject=getrandom:poke_exit=@arg1=0000000a"
    argv = ["strace", "-f", "-qq", "-o", place / "trace", "-e", "trace=getrandom"]
    pipe = subprocess.PIPE
    argv += ["-e", poke, hook.path]
    with subprocess.Popen(argv, stdin=pipe, stderr=pipe) as call:
        children = Path(f"/proc/{call.pid}/task/{call.pid}/children")
        wait_until(lambda: has_started(children, hook), 30, "the hook")
        pid = int(children.read_text())
        start = python_hook.process_start_ticks(pid)
        name = f"{python_hook.boot_id()}-{start:012d}-{pid:07d}-0000000a"
        planted = hook.spool.root / where / name
        if kind == "file":
            planted.write_bytes(b"old")
        elif kind == "pipe":
            os.mkfifo(planted)
        elif kind == "directory":
            planted.mkdir()
        else:
            planted.symlink_to(precious if kind == "link" else place / "nowhere")
        _, line = call.communicate(SAMPLE, timeout=30)
    assert precious.read_bytes() == b"precious"
    assert not (place / "nowhere").exists()
    # A rename replaces a name of the spool's owner, and follows no link.
    is_replaced = where == "incoming/new/a" and kind != "directory"
    assert call.returncode == (0 if is_replaced else 75), line
    if is_replaced:
        assert hook.documents() == [SAMPLE]
    else:
        assert hook.documents(hook.fallback) == [SAMPLE]
        planted.rmdir() if kind == "directory" else planted.unlink()
    assert is_replaced or name.encode() in line
    assert hook.temporary() == []


def has_started(children: Path, hook: InstalledHook) -> bool:
    """Return whether the child is the hook, and not a process of strace's own."""
    with contextlib.suppress(OSError, ValueError):
        command = Path(f"/proc/{int(children.read_text())}/cmdline").read_bytes()
        return bytes(hook.path) in command and b"strace" not in command
    return False


@pytest.mark.parametrize("kind", ["pipe", "lease", "terabyte", "directory", "word"])
def test_an_odd_marker_neither_blocks_nor_loses_a_document(
    hook: InstalledHook, kind: str
) -> None:
    marker = hook.spool.root / "full"
    lease = contextlib.nullcontext()
    if kind == "pipe":
        os.mkfifo(marker)
    elif kind == "terabyte":
        marker.touch()
        os.truncate(marker, 1 << 40)
    elif kind == "directory":
        marker.mkdir()
    elif kind == "word":
        marker.write_text(" all secret\n")
    else:
        lease = leased(marker)
    with lease:
        done = hook(SAMPLE, timeout=10)
        status = hook(STATUS, timeout=10)
    assert b"secret" not in done.stderr + status.stderr
    assert done.returncode == (75 if kind in {"lease", "directory"} else 0)
    assert status.returncode == (0 if kind == "pipe" else 75)
    assert len([*hook.entries(), *hook.entries(hook.fallback)]) == 2


def test_a_link_instead_of_the_marker_is_not_followed(
    hook: InstalledHook, place: Path
) -> None:
    (place / "shadow").write_text("root:secret\n")
    (hook.spool.root / "full").symlink_to(place / "shadow")
    done = hook(SAMPLE)
    assert (done.returncode, b"secret" in done.stderr) == (75, False)
    assert hook.documents(hook.fallback) == [SAMPLE]


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
        break_spool(hook, "removed")
    hides = 'mount -t tmpfs none /proc && exec "$0" "$@"'
    argv = ["unshare", "--mount", "sh", "-c", hides, hook.path]
    before = time.time_ns() // 10**7 - 1
    for number in range(2):
        done = subprocess.run([*argv, str(number)], input=SAMPLE, check=False)
        assert done.returncode == (75 if is_broken else 0)
    after = time.time_ns() // 10**7 + 1
    spool = hook.fallback if is_broken else hook.spool
    epochs = BootEpochs(spool.root / "state/epochs.json", python_hook.boot_id())
    names = Spool(spool.root, epochs).scan()
    assert [spool.read(name).arguments[0] for name in names] == ["0", "1"]
    for name in names:
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


@pytest.mark.parametrize("limit", [resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE])
@pytest.mark.parametrize("value", [3, 4, 5, 6, 8])
def test_limits_of_the_process_never_lose_a_document_silently(
    hook: InstalledHook, limit: int, value: int
) -> None:
    done = hook(SAMPLE, preexec_fn=lambda: resource.setrlimit(limit, (value, value)))
    stored = hook.documents()
    aside = hook.documents(hook.fallback)
    assert (stored, aside) in (([SAMPLE], []), ([], [SAMPLE]), ([], []))
    assert (done.returncode == 0) == bool(stored)
    assert hook.temporary() == []


@needs_root
def test_a_user_of_the_group_can_add_and_a_stranger_gets_the_reason(
    hook: InstalledHook,
) -> None:
    for spool in (hook.spool, hook.fallback):
        spool.make(1234, 2345)
    if type(hook) is InstalledHook:
        hook.use("/usr/bin/python3")
    assert hook(SAMPLE, **as_user(NOBODY, 2345)).returncode == 0
    (entry,) = hook.entries()
    status = Path(entry.path).stat()
    assert (status.st_uid, status.st_gid) == (NOBODY, 2345)
    done = hook(SAMPLE, **as_user(NOBODY, NOBODY))
    assert done.returncode == 75
    assert b"lost" in done.stderr
    assert (done.stderr.count(b"\n"), b"Permission denied" in done.stderr) == (1, True)
    assert len(hook.entries()) == 1


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


def test_calls_beyond_the_fallbacks_limit_are_reported_lost(
    hook: InstalledHook,
) -> None:
    hook.spool.refuse(AdmissionLevel.ALL)
    hook.change(FALLBACK_FILES=5)
    with ThreadPoolExecutor(8) as pool:
        calls = list(pool.map(hook, [SAMPLE] * 40))
    assert {call.returncode for call in calls} == {75}
    lost = sum(b"this notification is lost" in call.stderr for call in calls)
    stored = len(hook.entries(hook.fallback))
    # Simultaneous calls count the same files.
    assert (lost + stored, 5 <= stored < 5 + 8) == (40, True)
