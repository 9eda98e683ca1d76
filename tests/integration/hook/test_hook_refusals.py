"""What the spool refuses is in the fallback spool, or its loss is reported."""

import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.installed_hook import (
    NOBODY,
    SAMPLE,
    STATUS,
    InstalledHook,
    all_builds,
    as_user,
    needs_root,
)

from fnm_bus.hook import python_hook
from fnm_bus.spool.limits import AdmissionLevel


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


@pytest.mark.parametrize("path", ["incoming/tmp", "incoming/new"])
def test_an_error_names_the_directory_of_each_spool(
    hook: InstalledHook, path: str
) -> None:
    roots = [hook.spool.root, hook.fallback.root]
    for root in roots:
        (root / path).rename(root / "moved")
    text = hook(SAMPLE).stderr.decode()
    for root in roots:
        assert re.search(rf"\[Errno 2\] [\w ]+: '{root}/{path}(/[0-9a-f])?'", text)


def test_an_error_names_the_file_with_the_limit(hook: InstalledHook) -> None:
    (hook.spool.root / "full").mkdir()
    text = hook(SAMPLE).stderr.decode()
    assert f"[Errno 21] Is a directory: '{hook.spool.root}/full'; kept in" in text


def test_an_error_of_stdin_names_stdin(hook: InstalledHook) -> None:
    with (hook.directory / "closed for reading").open("wb") as file:
        argv = [hook.path]
        done = subprocess.run(argv, stdin=file, capture_output=True, check=False)
    assert done.stderr.startswith(
        b"fnm-bus hook: this notification is lost: stdin: [Errno 9] "
    )
