"""The hook in shell keeps what the Python hook promises, under each shell there is."""

import os
import pty
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.lease import leased
from support.process import wait_until

from fnm_bus.hook import python_hook
from fnm_bus.setup import check_hook, install_hook
from fnm_bus.spool.entry_name import boot_of, is_entry_name, pid_of, ticks_of
from fnm_bus.spool.limits import AdmissionLevel
from fnm_bus.spool.sequence import PID_BITS, BootEpochs
from fnm_bus.spool.spool import Entry, Spool

SAMPLE = b'{"action":"ban","alert_scope":"host","ip":"192.0.2.1"}\n'
STATUS = b'{"action":"attack_status","alert_scope":"host","ip":"192.0.2.1"}\n'
UNBAN = ("192.0.2.1", "incoming", "1000", "unban")
NOBODY = 65_534
ROOT = os.geteuid() == 0
SHELLS = {
    "sh": ("sh",),
    "dash": ("dash",),
    "bash": ("bash", "--posix"),
    "busybox": ("busybox", "sh"),
}
THERE = {
    name: (found, *rest)
    for name, (program, *rest) in SHELLS.items()
    if (found := shutil.which(program)) and name != Path("/bin/sh").resolve().name
}
needs_root = pytest.mark.skipif(not ROOT, reason="only root can do that")


class Installed:
    """A hook in shell in front of a spool and a fallback spool."""

    def __init__(self, directory: Path, shell: tuple[str, ...] = ()) -> None:
        self.spool = Spool(directory / "the 'spool'")
        self.fallback = Spool(directory / "fallback")
        self.path = directory / "notify"
        self.argv: list[str | bytes | Path] = [*shell, self.path]
        self.install()

    def install(self) -> None:
        for spool in (self.spool, self.fallback):
            spool.make(os.geteuid(), os.getegid())
        roots = (self.spool.root, self.fallback.root)
        install_hook.install(self.path, *roots, install_hook.SHELL)

    def change(self, old: str, new: str) -> None:
        text = self.path.read_text()
        assert old in text
        self.path.write_text(text.replace(old, new))

    def __call__(
        self, document: bytes = SAMPLE, *arguments: str | bytes, **options: object
    ) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [*self.argv, *arguments],
            input=document,
            capture_output=True,
            check=False,
            **{"env": {}, "cwd": "/", "timeout": 60, **options},  # type: ignore[call-overload]
        )

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*self.argv, *arguments], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0
        )

    def entries(self, spool: Spool | None = None) -> list[Entry]:
        spool = spool or self.spool
        found = [spool.read(name) for name in spool.scan()]
        assert all(it.is_complete for it in found)
        return found

    def raw(self) -> list[bytes]:
        return [self.spool.path(name).read_bytes() for name in self.spool.scan()]

    def temporary(self) -> list[Path]:
        """Return what is in `tmp`, but for second links of entries."""
        both = (self.spool, self.fallback)
        found = [it for spool in both for it in spool.root.glob("incoming/tmp/*")]
        return [it for it in found if it.lstat().st_nlink == 1]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can reach; in memory, where fsync costs nothing."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture(params=THERE)
def anywhere(request: pytest.FixtureRequest, place: Path) -> Installed:
    return Installed(place, THERE[request.param])


@pytest.fixture(params=[it for it in THERE if it != "bash"])
def installed(request: pytest.FixtureRequest, place: Path) -> Installed:
    return Installed(place, THERE[request.param])


@pytest.fixture
def plain(place: Path) -> Installed:
    """As FastNetMon starts it; for what does not depend on the shell."""
    return Installed(place)


NASTY: list[tuple[list[bytes], bytes]] = [
    ([], b""),
    ([b"ban", b"192.0.2.1"], SAMPLE),
    ([b""], b"\n\n"),
    ([b"", b"", b""], b"no newline at the end"),
    ([b"a b\nc\n", b"\n", b" "], b"\0\0 a \0\n"),
    ([b"-n", b"--", b"-e", b"--help"], b"-n"),
    (
        [b"*", b"$(id)", b"`id`", b"\\0\\c\\n", b"%s%d", b"'\""],
        b"%s \\0 \\c $HOME `id`",
    ),
    ([bytes([it]) for it in range(1, 256)], bytes(range(256)) * 70),
    (["é€😀".encode(), b"\xff\xfe"], "é€😀".encode()),
    ([b"x" * 100_000], b"x"),
    ([b"ban", b"192.0.2.1"], b"\x81\x82\x83\x84\x85\x86\x87\x88\0" * 2_100),
    ([], os.urandom(1_000_000)),
]


@pytest.mark.parametrize(("arguments", "document"), NASTY, ids=range(len(NASTY)))
def test_an_entry_is_byte_for_byte_that_of_the_python_hook(
    anywhere: Installed, arguments: list[bytes], document: bytes
) -> None:
    done = anywhere(document, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    (shell,) = anywhere.raw()
    roots = (anywhere.spool.root, anywhere.fallback.root)
    python = Path(sys.executable).resolve()
    install_hook.install(anywhere.path, *roots, python)
    argv = [os.fsencode(anywhere.path), *arguments]
    subprocess.run(argv, input=document, check=True, env={})
    assert anywhere.raw() == [shell, shell]
    assert anywhere.temporary() == []


def test_a_name_holds_the_pid_and_the_start_of_the_process_that_was_started(
    installed: Installed,
) -> None:
    call = installed.start()
    started = python_hook.process_start_ticks(call.pid)
    assert call.communicate(SAMPLE, timeout=30) == (b"", b"")
    (name,) = installed.spool.scan()
    assert boot_of(name) == python_hook.boot_id()
    assert (pid_of(name), ticks_of(name)) == (call.pid, started)


def test_the_steps_to_disk_are_in_the_order_that_survives_a_loss_of_power(
    installed: Installed, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    names = "trace=write,fsync,link,linkat,rename,unlink,unlinkat"
    argv = ["strace", "-f", "-y", "-s", "500", "-o", trace, "-e", names]
    try:
        subprocess.run([*argv, *installed.argv], input=SAMPLE, check=True)
    except FileNotFoundError:
        pytest.skip("strace is not installed")
    steps = [
        line.split(maxsplit=1)[1]
        for line in trace.read_text().splitlines()
        if "/incoming/" in line and "/fallback/" not in line
    ]
    calls = [step.split("(", maxsplit=1)[0].removesuffix("at") for step in steps]
    # What is before the document, the document, and its end, before it has its name.
    assert calls == ["write", "write", "write", "link", "fsync", "fsync"]
    assert "/incoming/tmp/" in steps[4]
    assert "/incoming/new/" in steps[5]


def test_the_programs_of_a_call_are_three(plain: Installed, tmp_path: Path) -> None:
    """Each costs about a millisecond, of which a storm has none to give away."""
    trace = tmp_path / "trace"
    argv = ["strace", "-f", "-o", trace, "-e", "trace=execve", *plain.argv]
    try:
        subprocess.run(argv, input=SAMPLE, check=True)
    except FileNotFoundError:
        pytest.skip("strace is not installed")
    lines = trace.read_text().splitlines()
    started = [it.split('"')[1] for it in lines if "execve(" in it]
    names = [Path(it).name for it in started]
    assert names == ["notify", "tee", "link", "sync"]


@pytest.mark.parametrize("umask", [0, 0o777])
def test_others_cannot_read_an_entry_and_the_relay_s_group_can(
    installed: Installed, umask: int
) -> None:
    assert installed(umask=umask).returncode == 0
    (entry,) = installed.entries()
    assert stat.S_IMODE(Path(entry.path).stat().st_mode) == 0o640


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LC_ALL": "xx_XX.UTF-8", "PATH": "", "HOME": "/nowhere", "IFS": "0123456789/"},
        {"name": "x", "trouble": "x", "ENV": "/nowhere", "POSIXLY_CORRECT": "1"},
    ],
)
def test_the_environment_does_not_matter(
    anywhere: Installed, environment: dict[str, str]
) -> None:
    assert anywhere(SAMPLE, "ban", "é", env=environment).returncode == 0
    assert anywhere.entries()[0].arguments == ("ban", "é")
    assert all(map(is_entry_name, anywhere.spool.scan()))


def test_unban_in_text_mode_does_not_wait_for_a_terminal(installed: Installed) -> None:
    controller, terminal = pty.openpty()
    try:
        argv = [*installed.argv, *UNBAN]
        done = subprocess.run(argv, stdin=terminal, check=False, timeout=30)
    finally:
        os.close(controller)
        os.close(terminal)
    assert done.returncode == 0
    (entry,) = installed.entries()
    assert (entry.arguments, entry.document) == (UNBAN, b"")


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_standard_files_do_not_mix_a_document_with_anything(
    anywhere: Installed, closed: tuple[int, ...]
) -> None:
    def close() -> None:
        for fd in closed:
            os.close(fd)

    argv = [*anywhere.argv, *UNBAN]
    done = subprocess.run(argv, check=False, preexec_fn=close)
    assert done.returncode == 0
    assert anywhere.entries()[0].document == b""
    # With a document to come: it is read, or said to be lost.
    done = anywhere(SAMPLE, preexec_fn=close)
    kept = [it.document for it in anywhere.entries()]
    assert (done.returncode, kept.count(SAMPLE)) == ((75, 0) if 0 in closed else (0, 1))


def broken(installed: Installed, how: str) -> None:
    root = installed.spool.root
    if how == "gone":
        root.rename(f"{root}-moved")
    elif how == "no bucket":
        for bucket in installed.spool.buckets():
            bucket.rmdir()
    elif how == "a link":
        (root / "incoming/tmp").rmdir()
        (root / "incoming/tmp").symlink_to("/nowhere")
    elif how == "a file":
        (root / "incoming/tmp").rmdir()
        (root / "incoming/tmp").write_bytes(b"")
    else:
        installed.spool.refuse(AdmissionLevel.ALL)


@pytest.mark.parametrize("how", ["gone", "no bucket", "a link", "a file", "full"])
def test_what_the_spool_does_not_take_is_in_the_fallback_spool_and_it_says_so(
    anywhere: Installed, how: str
) -> None:
    broken(anywhere, how)
    document = SAMPLE * 1_000 + b"\0"
    done = anywhere(document, "ban", "192.0.2.1")
    assert (done.returncode, done.stdout) == (75, b"")
    (entry,) = anywhere.entries(anywhere.fallback)
    assert (entry.arguments, entry.document) == (("ban", "192.0.2.1"), document)
    line = done.stderr.decode()
    assert line.count("\n") == 1
    assert str(anywhere.spool.root) in line
    assert f"kept in the fallback spool: {entry.path}" in line
    assert anywhere.temporary() == []


@pytest.mark.parametrize("how", ["gone", "limit of files", "limit of bytes"])
def test_what_nobody_takes_is_said_to_be_lost_and_stdin_is_read_all_the_same(
    installed: Installed, how: str
) -> None:
    broken(installed, "gone")
    if how == "gone":
        installed.fallback.root.rename(f"{installed.fallback.root}-moved")
    elif how == "limit of files":
        installed.change("FALLBACK_FILES=2000", "FALLBACK_FILES=2")
    else:
        installed.change("FALLBACK_BYTES=67108864", "FALLBACK_BYTES=4000000")
    kept = {"gone": 0, "limit of files": 2, "limit of bytes": 1}[how]
    for number in range(kept + 1):
        call = installed.start()
        assert call.stdin is not None
        left = b"x" * 4_000_000
        while left:  # a broken pipe if it is not read
            left = left[call.stdin.write(left) or 0 :]
        out, line = call.communicate(timeout=30)
        assert (call.returncode, out, line.count(b"\n")) == (75, b"", 1)
        assert (b"lost" in line) == (number == kept)
    assert len([*installed.fallback.root.glob("incoming/new/?/*")]) == kept
    assert installed.temporary() == []


def test_without_a_fallback_spool_a_healthy_spool_takes_everything(
    installed: Installed,
) -> None:
    shutil.rmtree(installed.fallback.root)
    done = installed(SAMPLE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert installed.entries()[0].document == SAMPLE


@pytest.mark.parametrize("tool", ["link", "sync"])
def test_a_failing_step_is_noticed_and_the_fallback_spool_has_it(
    installed: Installed, tmp_path: Path, tool: str
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    lines = (
        "#!/bin/sh",
        "case $PWD in *spool*) exit 1 ;; esac",
        f'exec /bin/{tool} "$@"',
    )
    (tools / tool).write_text("\n".join(lines))
    (tools / tool).chmod(0o755)
    # By its path: busybox would rather run its own.
    line = {"link": 'link "$', "sync": "sync ${"}[tool]
    installed.change(f"    {line}", f"    {tools}/{line}")
    done = installed(SAMPLE)
    assert done.returncode == 75
    assert done.stderr.count(b"\n") == 1
    assert [it.document for it in installed.entries(installed.fallback)] == [SAMPLE]
    assert installed.temporary() == []


def test_a_full_spool_takes_everything_but_status(installed: Installed) -> None:
    installed.spool.refuse(AdmissionLevel.STATUS)
    assert installed(STATUS).returncode == 75
    assert installed(b"\0" * 100_000 + STATUS).returncode == 75
    # The document tells, as in Python; the arguments do not.
    assert installed(SAMPLE, "attack_status", "192.0.2.1").returncode == 0
    installed.spool.refuse(AdmissionLevel.NOTHING)
    assert installed(STATUS).returncode == 0
    assert [it.document for it in installed.entries()] == [SAMPLE, STATUS]
    assert len(installed.entries(installed.fallback)) == 2


def test_a_spool_at_its_limit_takes_nothing(installed: Installed) -> None:
    installed.spool.refuse(AdmissionLevel.ALL)
    done = installed(SAMPLE)
    assert done.returncode == 75
    assert b"at its limit: all" in done.stderr
    assert installed.entries() == []
    assert len(installed.entries(installed.fallback)) == 1


def test_a_document_beyond_all_bounds_is_drained_and_refused(
    installed: Installed,
) -> None:
    installed.change("MAX_STDIN=67108864", "MAX_STDIN=10240")
    done = installed(b"x" * 1_000_000)
    assert done.returncode == 75
    assert done.stderr.count(b"\n") == 1
    assert b"lost" in done.stderr
    assert (installed.entries(), installed.entries(installed.fallback)) == ([], [])
    assert installed.temporary() == []
    assert installed(b"x" * 10_000).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount small file systems."""
    if not ROOT:
        pytest.skip("only root can mount a small file system")
    made = []

    def mount(options: str) -> Path:
        target = tmp_path / f"disk{len(made)}"
        target.mkdir()
        argv = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", target]
        done = subprocess.run(argv, check=False, capture_output=True)
        if done.returncode:
            pytest.skip(f"cannot mount a tmpfs: {done.stderr.decode().strip()}")
        made.append(target)
        return target

    yield mount
    for target in made:
        subprocess.run(["umount", "-l", target], check=True)


@pytest.mark.parametrize(
    ("options", "size"),
    [("size=400k", 70_001), ("nr_inodes=30", 1), ("size=400k", 1_000_000)],
    ids=["bytes", "inodes", "one document is larger"],
)
def test_a_disk_that_really_is_full_loses_nothing(
    installed: Installed, disk: Callable[[str], Path], options: str, size: int
) -> None:
    """Documents of odd size: what tee has read and cannot write is what counts.

    Without NULs and line breaks, which are gone when the shell has to keep the rest.
    """
    installed.spool = Spool(disk(options) / "spool")
    installed.install()
    documents = [bytes([65 + it]) * (size + it * 997) for it in range(12)]
    calls = [installed(it) for it in documents]
    kept = installed.entries()
    aside = installed.entries(installed.fallback)
    assert {it.returncode for it in calls} <= {0, 75}
    assert aside
    assert len(kept) == [it.returncode for it in calls].count(0)
    assert sorted(it.document for it in [*kept, *aside]) == documents
    assert all(it.stderr.count(b"\n") == bool(it.returncode) for it in calls)
    assert installed.temporary() == []


def test_what_the_shell_had_to_keep_is_without_nuls_and_line_breaks_at_its_end(
    installed: Installed, disk: Callable[[str], Path]
) -> None:
    installed.spool = Spool(disk("size=400k") / "spool")
    installed.install()
    lines = b"of text\n" * 100_000
    assert installed(b"\0lines " + lines + b"\n\n", "ban").returncode == 75
    (entry,) = installed.entries(installed.fallback)
    assert entry.arguments == ("ban",)
    assert entry.document == b"lines " + lines.rstrip(b"\n")


def test_calls_that_fill_a_disk_together_lose_nothing(
    plain: Installed, disk: Callable[[str], Path]
) -> None:
    plain.spool = Spool(disk("size=600k") / "spool")
    plain.install()
    documents = [bytes([65 + it]) * 33_333 for it in range(40)]
    calls = [plain.start() for _ in documents]
    for call, document in zip(calls, documents, strict=True):
        assert call.stdin is not None
        call.stdin.write(document[:10_000])
    for call, document in zip(calls, documents, strict=True):
        assert call.stdin is not None
        call.stdin.write(document[10_000:])
        call.stdin.close()
        call.stdin = None
    for call in calls:
        call.communicate(timeout=60)
    statuses = [it.returncode for it in calls]
    assert set(statuses) == {0, 75}
    aside = plain.entries(plain.fallback)
    assert len(plain.entries()) == statuses.count(0)
    assert sorted(it.document for it in [*plain.entries(), *aside]) == documents
    assert plain.temporary() == []


def test_a_full_fallback_disk_does_not_disturb_a_healthy_spool(
    plain: Installed, disk: Callable[[str], Path]
) -> None:
    plain.fallback = Spool(disk("size=100k") / "fallback")
    plain.install()
    document = os.urandom(500_001)
    done = plain(document)
    assert (done.returncode, done.stderr) == (0, b"")
    assert [it.document for it in plain.entries()] == [document]
    assert plain.temporary() == []


def test_what_neither_disk_has_room_for_is_said_to_be_lost(
    installed: Installed, disk: Callable[[str], Path]
) -> None:
    installed.spool = Spool(disk("size=200k") / "spool")
    installed.fallback = Spool(disk("size=100k") / "fallback")
    installed.install()
    done = installed(b"x" * 500_000)
    assert done.returncode == 75
    assert b"lost" in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert (installed.entries(), installed.entries(installed.fallback)) == ([], [])
    assert installed.temporary() == []


def test_a_disk_that_can_only_be_read_costs_nothing_but_the_fallback(
    installed: Installed, disk: Callable[[str], Path]
) -> None:
    target = disk("size=400k")
    installed.spool = Spool(target / "spool")
    installed.install()
    subprocess.run(["mount", "-o", "remount,ro", target], check=True)
    done = installed(SAMPLE)
    assert done.returncode == 75
    assert b"Read-only" in done.stderr
    assert [it.document for it in installed.entries(installed.fallback)] == [SAMPLE]


NAME = f"{'0123456789abcdef' * 2}-000000000100-0000007-0000000a"


@pytest.mark.parametrize("where", ["incoming/tmp", "incoming/new/a"])
@pytest.mark.parametrize("target", ["there", "nowhere"])
def test_a_planted_link_leads_nowhere(
    installed: Installed, tmp_path: Path, where: str, target: str
) -> None:
    installed.change("fd_path=/dev", f"name={NAME}\nfd_path=/dev")
    (tmp_path / "there").write_bytes(b"as it was")
    (installed.spool.root / where / NAME).symlink_to(tmp_path / target)
    assert installed(SAMPLE).returncode == 75
    assert (tmp_path / "there").read_bytes() == b"as it was"
    assert not (tmp_path / "nowhere").exists()
    assert [it.document for it in installed.entries(installed.fallback)] == [SAMPLE]


@pytest.mark.parametrize(
    "link", ["incoming", "incoming/tmp", "incoming/new", f"incoming/new/{NAME[-1]}"]
)
def test_a_directory_that_is_a_link_is_not_entered(
    installed: Installed, tmp_path: Path, link: str
) -> None:
    installed.change("fd_path=/dev", f"name={NAME}\nfd_path=/dev")
    away = tmp_path / "away"
    shutil.move(installed.spool.root / link, away)
    (installed.spool.root / link).symlink_to(away)
    before = sorted(away.rglob("*"))
    done = installed(SAMPLE)
    assert (done.returncode, b"is or has a link" in done.stderr) == (75, True)
    assert sorted(away.rglob("*")) == before
    assert [it.document for it in installed.entries(installed.fallback)] == [SAMPLE]


def test_a_spool_s_own_path_may_have_links(place: Path, installed: Installed) -> None:
    moved = place / "moved"
    installed.spool.root.rename(moved)
    installed.spool.root.symlink_to(moved)
    done = installed(SAMPLE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert [it.document for it in installed.entries()] == [SAMPLE]


def test_a_link_that_takes_the_place_of_an_open_file_leads_nowhere(
    installed: Installed, tmp_path: Path
) -> None:
    """As the spool's owner could plant it, where root runs the hook."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"as it was")
    call = installed.start()
    wait_until(lambda: bool(installed.temporary()), 30, "it waits for its document")
    [file] = installed.temporary()
    file.unlink()
    file.symlink_to(precious)
    call.communicate(SAMPLE, timeout=30)
    assert precious.read_bytes() == b"as it was"
    assert installed.entries(installed.fallback) == []


def test_a_pipe_in_place_of_the_marker_is_not_waited_for(installed: Installed) -> None:
    os.mkfifo(installed.spool.root / "full")
    assert installed(SAMPLE).returncode == 0


def test_a_marker_that_its_owner_leased_is_not_waited_for(installed: Installed) -> None:
    with leased(installed.spool.root / "full"):
        assert installed(SAMPLE, timeout=10).returncode == 0


def test_a_marker_of_a_terabyte_is_not_read(installed: Installed) -> None:
    with (installed.spool.root / "full").open("wb") as marker:
        marker.truncate(1 << 40)
    assert installed(SAMPLE, timeout=10).returncode == 0


@pytest.mark.parametrize("document", [SAMPLE, STATUS])
def test_a_link_in_place_of_the_marker_is_not_followed(
    installed: Installed, place: Path, document: bytes
) -> None:
    (place / "shadow").write_text("root:secret\n")
    (installed.spool.root / "full").symlink_to(place / "shadow")
    done = installed(document)
    assert done.returncode == 75
    assert b"full: is a link" in done.stderr
    assert b"secret" not in done.stderr
    (entry,) = installed.entries(installed.fallback)
    assert entry.document == document


def test_unexpected_words_in_the_marker_are_not_repeated(installed: Installed) -> None:
    (installed.spool.root / "full").write_text("secret\n")
    done = installed(STATUS)
    assert done.returncode == 75
    assert b"at its limit: status" in done.stderr
    assert installed(SAMPLE).returncode == 0


def test_an_entry_that_the_relay_takes_before_the_sync_is_stored_once(
    installed: Installed,
) -> None:
    """Where there is no /dev/fd, the file is synced by its name, so before the link."""
    installed.change("/dev/fd/0", "/nowhere/0")
    taken = installed.spool.root / "taken"
    installed.change(
        'reason="$bucket/$name: cannot be synced"',
        f'mv "./$name" "{taken}"; reason=""',
    )
    assert installed(SAMPLE).returncode == 0
    assert SAMPLE.rstrip() in taken.read_bytes()
    assert installed.entries(installed.fallback) == []


def test_calls_come_in_the_order_in_which_they_were_started(
    installed: Installed,
) -> None:
    """The first is started first, and is the last to get its document."""
    first = installed.start("0")
    for number in range(1, 6):
        assert installed(SAMPLE, str(number)).returncode == 0
    first.communicate(SAMPLE, timeout=30)
    epochs = BootEpochs(
        installed.spool.root / "state/epochs.json", python_hook.boot_id()
    )
    spool = Spool(installed.spool.root, epochs)
    assert [spool.read(it).arguments[0] for it in spool.scan()] == list("012345")


def test_where_proc_is_hidden_the_name_tells_the_time_of_the_call(
    installed: Installed,
) -> None:
    installed.change("/proc/", "/nowhere/")
    installed.change("/dev/fd/0", "/nowhere/0")
    before = int(time.time()) * 100  # some programs `date` know seconds only
    for number in range(2):
        assert installed(SAMPLE, str(number)).returncode == 0
    after = time.time_ns() // 10**7
    epochs = BootEpochs(
        installed.spool.root / "state/epochs.json", python_hook.boot_id()
    )
    names = Spool(installed.spool.root, epochs).scan()
    assert [installed.spool.read(it).arguments[0] for it in names] == ["0", "1"]
    assert {it.document for it in installed.entries()} == {SAMPLE.rstrip()}
    for name in names:
        assert boot_of(name).startswith(python_hook.NO_BOOT_ID)
        place = epochs.sequence(name) >> PID_BITS
        assert before <= place + 1_735_689_600 * 100 <= after


@pytest.mark.parametrize("how", ["gone", "no bucket"])
def test_where_proc_is_hidden_the_fallback_spool_has_it_all_the_same(
    installed: Installed, how: str
) -> None:
    installed.change("/proc/", "/nowhere/")
    installed.change("/dev/fd/0", "/nowhere/0")
    broken(installed, how)
    assert installed(SAMPLE, "ban").returncode == 75
    (entry,) = installed.entries(installed.fallback)
    assert (entry.arguments, entry.document.rstrip()) == (("ban",), SAMPLE.rstrip())
    assert installed.temporary() == []


def test_many_calls_at_once_lose_nothing(plain: Installed) -> None:
    calls = [plain.start(str(number)) for number in range(64)]
    for call in calls:
        call.communicate(SAMPLE, timeout=60)
    assert {call.returncode for call in calls} == {0}
    entries = plain.entries()
    assert {pid_of(it.name) for it in entries} == {call.pid for call in calls}
    assert {it.arguments for it in entries} == {(str(it),) for it in range(64)}
    assert plain.temporary() == []


def test_what_a_killed_call_leaves_is_swept_once_it_is_dead(
    installed: Installed,
) -> None:
    call = installed.start()
    assert call.stdin is not None
    call.stdin.write(b'{"half": ')
    deadline = time.monotonic() + 30
    while not (left := installed.temporary()) or not left[0].read_bytes().endswith(
        b" "
    ):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    for path in left:
        os.utime(path, (0, 0))
    assert installed.spool.remove_orphans() == []
    call.send_signal(signal.SIGKILL)
    call.stdin.close()
    call.stdin = None
    call.communicate(timeout=30)
    for path in left:
        os.utime(path, (0, 0))
    assert [it.name for it in installed.spool.remove_orphans()] == [left[0].name]
    assert installed.temporary() == []
    assert installed.entries() == []


@pytest.mark.parametrize("limit", [resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE])
def test_limits_of_the_process_are_no_reason_to_lose_anything_in_silence(
    installed: Installed, limit: int
) -> None:
    def lower() -> None:
        resource.setrlimit(limit, (4, 4))

    done = installed(SAMPLE, preexec_fn=lower)
    kept = [*installed.entries(), *installed.entries(installed.fallback)]
    assert done.returncode == 0 if kept else done.returncode != 0
    assert installed.temporary() == []


@needs_root
def test_where_no_process_can_be_started_stdin_is_read_and_it_says_so(
    installed: Installed,
) -> None:
    def none_more() -> None:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        os.setuid(NOBODY)

    done = installed(SAMPLE * 100, preexec_fn=none_more)
    assert done.returncode == 75
    assert b"lost" in done.stderr


@needs_root
def test_a_user_of_the_group_can_add_and_a_stranger_hears_why_not(
    installed: Installed,
) -> None:
    for spool in (installed.spool, installed.fallback):
        spool.make(1234, 2345)
    ours = {"user": NOBODY, "group": 2345, "extra_groups": []}
    assert installed(SAMPLE, **ours).returncode == 0
    (entry,) = installed.entries()
    facts = Path(entry.path).stat()
    assert (facts.st_uid, facts.st_gid) == (NOBODY, 2345)
    stranger = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    done = installed(SAMPLE, **stranger)
    assert done.returncode == 75
    assert b"Permission denied" in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert b"lost" in done.stderr
    assert len(installed.entries()) == 1


def test_a_check_proves_it(plain: Installed) -> None:
    findings = check_hook.check(plain.path)
    assert findings[1].ok
    assert "/bin/sh: has tee, sync, link" in findings[1].text
    wrong = [it.text for it in findings if not it.ok]
    # What is wrong here: both spools are on one file system, and no relay runs.
    assert ["file system" in wrong[0], wrong[1]] == [True, "no relay runs"]
    assert "stored, and removed" in findings[-1].text
    assert not [*plain.spool.root.glob("incoming/tmp/*"), *plain.spool.scan()]
    plain.change("umask 027", "umask 000")
    assert any("changed by hand" in it.text for it in check_hook.check(plain.path))


def test_a_check_misses_the_programs_that_it_needs(
    plain: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sync", "link", "rm", "cat", "stat"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    monkeypatch.setattr(check_hook, "_TOOLS_PATH", str(tmp_path))
    finding = check_hook.check(plain.path)[1]
    assert finding.text == f"/bin/sh: not in {tmp_path}: tee"
    assert finding.remedy == "install coreutils"


def test_a_check_misses_the_shell(plain: Installed, tmp_path: Path) -> None:
    plain.change("#!/bin/sh", f"#!{tmp_path}/busybox sh")
    assert (
        check_hook.check(plain.path)[1].remedy == "install busybox, or the hook again"
    )
