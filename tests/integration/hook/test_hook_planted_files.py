"""Links, pipes and other files that the owner could plant for a hook of root."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.installed_hook import (
    SAMPLE,
    STATUS,
    InstalledHook,
)
from support.lease import leased
from support.process import wait_until

from fnm_bus.hook import python_hook


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
