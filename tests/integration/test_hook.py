"""The installed hook, as FastNetMon starts it: a process of its own."""

import contextlib
import json
import os
import pty
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from services.process import being, wait_until

from fnm_bus import hook, install, probe
from fnm_bus.backoff import Backoff
from fnm_bus.errors import ConfigError
from fnm_bus.limits import Refusal
from fnm_bus.order import Epochs, pid_of, sequence
from fnm_bus.spool import Entry, Spool

SAMPLE = b'{"action":"ban","alert_scope":"host","ip":"192.0.2.1"}\n'
STATUS = b'{"action":"attack_status","alert_scope":"host","ip":"192.0.2.1"}\n'
NOBODY = 65_534
ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="only root can act as another user")


class Installed:
    """A hook in front of a spool and a fallback spool."""

    def __init__(self, directory: Path, drain: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.spool = Spool(directory / "spool")
        self.fallback = Spool(directory / "fallback")
        self.path = directory / "notify"
        for spool in (self.spool, self.fallback):
            spool.make(os.geteuid(), os.getegid())
        self.install(drain)

    def install(self, drain: tuple[str, ...] = ()) -> str:
        python = Path(sys.executable).resolve()
        return install.install(
            self.path, self.spool.root, self.fallback.root, python, drain
        )

    def __call__(
        self, document: bytes = SAMPLE, *arguments: str, **options: object
    ) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [self.path, *arguments],
            input=document,
            capture_output=True,
            check=False,
            timeout=60,
            **{"env": {}, "cwd": "/", **options},  # type: ignore[call-overload]
        )

    def entries(self, spool: Spool | None = None) -> list[Entry]:
        spool = spool or self.spool
        return [spool.read(name) for name in spool.scan()]

    def temporary(self) -> list[Path]:
        return list((self.spool.root / "incoming/tmp").iterdir())


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path)


def test_a_notification_is_on_disk_when_the_hook_says_so(installed: Installed) -> None:
    done = installed(SAMPLE, "ban", "192.0.2.1")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    (entry,) = installed.entries()
    assert entry.document == SAMPLE
    assert entry.arguments == ("ban", "192.0.2.1")
    assert installed.temporary() == []


def test_the_steps_to_disk_are_in_the_order_that_survives_a_loss_of_power(
    installed: Installed, tmp_path: Path
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
def test_a_document_of_any_size_is_kept_whole(installed: Installed, size: int) -> None:
    assert installed(b"x" * size).returncode == 0
    (entry,) = installed.entries()
    assert entry.document == b"x" * size


def test_arguments_are_kept_whatever_their_bytes_are(installed: Installed) -> None:
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
    installed: Installed, environment: dict[str, str]
) -> None:
    assert installed(SAMPLE, "ban", "é", env=environment).returncode == 0
    assert installed.entries()[0].arguments == ("ban", "é")


def test_nothing_beside_the_hook_is_imported(
    installed: Installed, tmp_path: Path
) -> None:
    """Not from the directory of the hook, nor from that in which it is started."""
    for module in ("posix", "sys", "os", "fcntl", "syslog", "time"):
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


def test_unban_in_text_mode_does_not_wait_for_a_terminal(installed: Installed) -> None:
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
    installed: Installed, closed: tuple[int, ...]
) -> None:
    def close() -> None:
        for fd in closed:
            os.close(fd)

    argv = [installed.path, "192.0.2.1", "incoming", "1000", "unban"]
    done = subprocess.run(argv, check=False, preexec_fn=close)
    assert done.returncode == 0
    assert installed.entries()[0].document == b""


def break_spool(installed: Installed, how: str) -> None:
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
        installed.spool.refuse(Refusal.ALL)


@pytest.mark.parametrize("how", ["gone", "no bucket", "a link", "a file", "full"])
def test_what_the_spool_does_not_take_is_in_the_fallback_spool_and_it_says_so(
    installed: Installed, how: str
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
    installed: Installed,
) -> None:
    for spool in (installed.spool, installed.fallback):
        spool.root.rename(f"{spool.root}-moved")
    done = installed(b"x" * 3_000_000)
    assert done.returncode == 75
    assert b"lost" in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert done.stdout == b""


def test_a_full_spool_takes_everything_but_status(installed: Installed) -> None:
    installed.spool.refuse(Refusal.STATUS)
    assert installed(STATUS).returncode == 75
    assert installed(SAMPLE).returncode == 0
    assert [it.document for it in installed.entries()] == [SAMPLE]
    assert [it.document for it in installed.entries(installed.fallback)] == [STATUS]


def test_a_document_beyond_all_bounds_is_drained_and_refused(
    installed: Installed,
) -> None:
    text = installed.path.read_text().replace("MAX_STDIN = 64 << 20", "MAX_STDIN = 10")
    installed.path.write_text(text)
    done = installed(b"x" * 1_000_000)
    assert done.returncode == 75
    assert b"1000000 bytes" in done.stderr
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


def test_calls_come_in_the_order_in_which_they_were_started(
    installed: Installed,
) -> None:
    """The first is started first, and is the last to get its document."""
    first = subprocess.Popen([installed.path, "0"], stdin=subprocess.PIPE)
    for number in range(1, 6):
        assert installed(SAMPLE, str(number)).returncode == 0
    epochs = Epochs(installed.spool.root / "state/epochs.json", hook.boot_id())
    spool = Spool(installed.spool.root, epochs)
    published = spool.scan()
    assert [spool.read(it).arguments[0] for it in published] == list("12345")
    given_out = [sequence(it, epochs) for it in published]
    first.communicate(SAMPLE, timeout=30)
    names = spool.scan()
    assert [spool.read(it).arguments[0] for it in names] == list("012345")
    assert sequence(names[0], epochs) < given_out[0]
    assert [sequence(it, epochs) for it in names[1:]] == given_out


def test_two_hundred_calls_at_once_lose_nothing(installed: Installed) -> None:
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


def test_a_killed_call_leaves_no_entry(installed: Installed) -> None:
    call = subprocess.Popen([installed.path], stdin=subprocess.PIPE)
    assert call.stdin is not None
    call.stdin.write(b'{"half": ')
    call.stdin.flush()
    call.send_signal(signal.SIGKILL)
    assert call.wait(timeout=30) == -signal.SIGKILL
    call.stdin.close()
    assert installed.entries() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if not ROOT:
        pytest.skip("only root can mount a small file system")
    target = tmp_path / "disk"
    target.mkdir()
    options = "size=400k,nr_inodes=60"
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", target]
    done = subprocess.run(mount, check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.decode().strip()}")
    yield target
    subprocess.run(["umount", "-l", target], check=True)


@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_a_disk_that_really_is_full_costs_nothing_but_the_fallback(
    installed: Installed, small_disk: Path, what: str
) -> None:
    installed.spool = Spool(small_disk / "spool")
    installed.spool.make(os.geteuid(), os.getegid())
    installed.install()
    text = installed.path.read_text()
    for setting in ("RESERVE_BYTES", "RESERVE_INODES"):
        text = text.replace(f"{setting} = {getattr(hook, setting)}", f"{setting} = 0")
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
def test_syslog_is_told_as_well(installed: Installed, kind: str) -> None:
    if kind == "shell":
        roots = (installed.spool.root, installed.fallback.root)
        install.install(installed.path, *roots, install.SHELL)
    installed.spool.refuse(Refusal.ALL)
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


def test_calls_at_once_that_the_fallback_has_no_room_for_say_so(
    installed: Installed,
) -> None:
    installed.spool.refuse(Refusal.ALL)
    text = installed.path.read_text()
    installed.path.write_text(
        text.replace(f"FALLBACK_FILES = {hook.FALLBACK_FILES}", "FALLBACK_FILES = 5")
    )
    with ThreadPoolExecutor(8) as pool:
        calls = [*pool.map(installed, [SAMPLE] * 40)]
    assert {it.returncode for it in calls} == {75}
    lost = sum(b"this notification is lost" in it.stderr for it in calls)
    kept = len(installed.entries(installed.fallback))
    # Those that look at the same moment see the same room.
    assert (lost + kept, 5 <= kept < 5 + 8) == (40, True)


def as_user(uid: int, gid: int) -> dict[str, object]:
    return {"user": uid, "group": gid, "extra_groups": []}


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """A spool of user 1234 and group 2345, that every user can reach."""
    directory = Path(tmp_path_factory.mktemp("shared"))
    installed = Installed(directory)
    opened = []
    for path in (directory, *directory.parents):
        mode = path.stat().st_mode
        if not mode & 0o001:
            opened.append((path, mode))
            path.chmod(mode | 0o011)
    for spool in (installed.spool, installed.fallback):
        spool.make(1234, 2345)
    python = "/usr/bin/python3"
    text = installed.path.read_text().split("\n", 1)[1]
    installed.path.write_text(f"#!{python} -IS\n{text}")
    yield installed
    for path, mode in opened:
        path.chmod(mode)


@needs_root
def test_a_user_of_the_group_can_add_and_nothing_else(shared: Installed) -> None:
    assert shared(SAMPLE, **as_user(NOBODY, 2345)).returncode == 0
    assert shared(SAMPLE, **as_user(1234, 2345)).returncode == 0
    assert shared(SAMPLE).returncode == 0
    entries = shared.entries()
    facts = {Path(it.path).stat().st_uid: Path(it.path) for it in entries}
    assert facts.keys() == {NOBODY, 1234, 0}
    assert {Path(it.path).stat().st_gid for it in entries} == {2345}
    assert {Path(it.path).stat().st_mode & 0o777 for it in entries} == {0o640}
    tries = "import os, sys\nos.unlink(sys.argv[1])"
    for owner in (0, 1234):
        argv = ["/usr/bin/python3", "-c", tries, facts[owner]]
        done = subprocess.run(
            argv,
            check=False,
            capture_output=True,
            user=NOBODY,
            group=2345,
            extra_groups=[],
        )
        assert b"Operation not permitted" in done.stderr
    # The owner of the spool reads and removes what others put there.
    reads = "import os, sys\nopen(sys.argv[1]).read()\nos.unlink(sys.argv[1])"
    for path in facts.values():
        subprocess.run(
            ["/usr/bin/python3", "-c", reads, path],
            check=True,
            user=1234,
            group=2345,
            extra_groups=[],
        )


@needs_root
def test_a_stranger_gets_nothing_in_and_hears_why(shared: Installed) -> None:
    done = shared(SAMPLE, **as_user(NOBODY, NOBODY))
    assert done.returncode == 75
    assert b"Permission denied" in done.stderr
    assert b"lost" in done.stderr
    assert shared.entries() == []


DRAINED = """
import json, os, sys
fd = int(os.environ["FNM_BUS_LOCK_FD"])
facts = os.fstat(fd)
json.dump(
    {
        "ids": [os.getuid(), os.getgid(), os.getgroups()],
        "lock": [facts.st_dev, facts.st_ino],
        "in": sys.stdin.read(),
        "argv": sys.argv[2:],
    },
    open(sys.argv[1] + ".new", "w"),
)
os.rename(sys.argv[1] + ".new", sys.argv[1])
print("this must not be seen")
sys.exit(int(sys.argv[2]))
"""


def drains(installed: Installed, status: int = 0) -> Path:
    told = installed.directory / "told"
    installed.install((sys.executable, "-IS", "-c", DRAINED, str(told), str(status)))
    return told


def test_where_no_relay_runs_the_hook_starts_the_drain_and_hands_the_lock_over(
    installed: Installed,
) -> None:
    told = drains(installed)
    done = installed(SAMPLE)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    facts = json.loads(told.read_text())
    lock = (installed.spool.root / "lock").stat()
    assert facts["lock"] == [lock.st_dev, lock.st_ino]
    assert facts["in"] == ""
    assert len(installed.entries()) == 1


@pytest.mark.parametrize("status", [75, 78])
def test_how_the_drain_ends_is_not_what_became_of_the_document(
    installed: Installed, status: int
) -> None:
    told = drains(installed, status)
    assert installed(SAMPLE).returncode == 0
    assert told.exists()
    assert len(installed.entries()) == 1


def test_where_a_relay_runs_the_hook_leaves_the_rest_to_it(
    installed: Installed,
) -> None:
    told = drains(installed)
    lock = installed.spool.lock()
    assert lock is not None
    with lock:
        assert installed(SAMPLE).returncode == 0
    assert not told.exists()


def test_after_a_failed_drain_calls_do_not_even_start_one(installed: Installed) -> None:
    told = drains(installed)
    for _ in range(6):
        Backoff(installed.spool.root).failed()
    assert installed(SAMPLE).returncode == 0
    assert not told.exists()


def test_a_full_spool_is_drained_and_the_status_still_says_where_this_one_is(
    installed: Installed,
) -> None:
    told = drains(installed)
    installed.spool.refuse(Refusal.ALL)
    assert installed(SAMPLE).returncode == 75
    assert told.exists()
    assert len(installed.entries(installed.fallback)) == 1


def test_a_drain_that_cannot_be_started_does_not_make_a_stored_one_fail(
    installed: Installed,
) -> None:
    installed.install(("/nowhere/python",))
    done = installed(SAMPLE)
    assert done.returncode == 0
    assert b"cannot drain the spool" in done.stderr
    assert len(installed.entries()) == 1


@needs_root
def test_root_drains_with_the_rights_of_the_spool_s_owner_only(
    shared: Installed,
) -> None:
    told = shared.directory / "told"
    shared.directory.chmod(0o777)
    argv = ("/usr/bin/python3", "-IS", "-c", DRAINED, str(told), "0")
    shared.install(argv)
    assert shared(SAMPLE).returncode == 0
    assert json.loads(told.read_text())["ids"] == [1234, 2345, [2345]]


@needs_root
def test_a_user_who_may_only_add_never_drains(shared: Installed) -> None:
    told = shared.directory / "told"
    shared.directory.chmod(0o777)
    shared.install(("/usr/bin/python3", "-IS", "-c", DRAINED, str(told), "0"))
    text = shared.path.read_text().split("\n", 1)[1]
    shared.path.write_text(f"#!/usr/bin/python3 -IS\n{text}")
    assert shared(SAMPLE, **as_user(NOBODY, 2345)).returncode == 0
    assert not told.exists()
    assert len(shared.entries()) == 1


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"python": Path("/opt/my python/bin/python3")}, "blanks"),
        ({"python": Path("/" + "x" * 130)}, "127 bytes"),
        ({"python": Path("python3")}, "absolute"),
        ({"spool": Path("spool")}, "absolute"),
        ({"path": Path("notify")}, "absolute"),
        ({"path": Path("/tmp/a b")}, "plain characters"),  # noqa: S108 - never made
        ({"path": Path("/tmp/a;b")}, "plain characters"),  # noqa: S108 - never made
    ],
)
def test_a_path_that_cannot_work_is_refused(
    installed: Installed, changes: dict[str, Path], word: str
) -> None:
    paths = {
        "path": installed.path,
        "spool": installed.spool.root,
        "fallback": installed.fallback.root,
        "python": Path("/usr/bin/python3"),
        **changes,
    }
    with pytest.raises(ConfigError, match=word):
        install.install(**paths)


def test_the_instructions_name_the_settings_of_both_editions(
    installed: Installed,
) -> None:
    text = installed.install()
    assert f"sudo fcli set main notify_script_path {installed.path}\n" in text
    assert "notify_script_attack_status_updates enable" in text
    assert f"\nnotify_script_path = {installed.path}\n" in text
    assert (installed.path.stat().st_mode & 0o7777) == 0o755


def wrong(findings: list[probe.Finding]) -> str:
    return "\n".join(it.what for it in findings if not it.ok)


def test_a_check_without_a_relay_stores_one_and_takes_it_away(
    installed: Installed,
) -> None:
    told = drains(installed)
    findings = probe.check(installed.path)
    assert "removed" in findings[-1].what
    assert findings[-1].ok
    # What is wrong here: both spools are on one file system.
    assert "on the spool's file system" in wrong(findings)
    assert not told.exists()
    assert installed.entries() == []


TAKES = """
import sys
from fnm_bus.spool import Spool
from fnm_bus.watch import Watch
spool = Spool(sys.argv[1])
with spool.lock(), Watch(spool.buckets()) as watch:
    print("held", flush=True)
    while watch.wait(60) and watch.changed():
        for name in spool.scan():
            spool.remove(name)
"""


def test_a_check_with_a_relay_waits_until_that_took_it(installed: Installed) -> None:
    argv = [sys.executable, "-c", TAKES, installed.spool.root]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as relay:
        try:
            assert relay.stdout is not None
            assert relay.stdout.readline() == b"held\n"
            findings = probe.check(installed.path)
        finally:
            relay.kill()
    assert "the relay took it" in findings[-1].what


@needs_root
@pytest.mark.parametrize("relay", [True, False])
def test_a_check_by_fastnetmon_s_user_sees_what_that_user_can(
    shared: Installed, monkeypatch: pytest.MonkeyPatch, *, relay: bool
) -> None:
    monkeypatch.setattr(probe, "_PATIENCE", 10.0 if relay else 2.0)

    def check() -> None:
        findings = probe.check(shared.path)
        last = "the relay took it" if relay else "did not take a notification"
        assert last in findings[-1].what
        faults = [*filter(lambda it: not it.ok, findings)]
        # Here both spools are on one file system.
        assert len(faults) == 1 + (not relay), faults

    def takes() -> None:
        wait_until(lambda: bool(shared.spool.scan()), 30, "a notification")
        for name in shared.spool.scan():
            shared.spool.remove(name)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(being, NOBODY, 2345, check)
        if relay:
            being(1234, 2345, takes)
        done.result()
    assert shared.entries() == []


@needs_root
def test_a_check_finds_an_owner_who_is_not_root(installed: Installed) -> None:
    os.chown(installed.path, NOBODY, NOBODY)
    assert f"owner {NOBODY}" in wrong(probe.check(installed.path))


def test_a_check_finds_a_spool_on_several_file_systems(
    installed: Installed, small_disk: Path
) -> None:
    bucket = installed.spool.root / "incoming/new/7"
    (small_disk / "bucket").mkdir()
    subprocess.run(["mount", "--bind", small_disk / "bucket", bucket], check=True)
    try:
        assert "are on several file systems" in wrong(probe.check(installed.path))
    finally:
        subprocess.run(["umount", bucket], check=True)


def test_a_check_finds_a_python_that_only_one_can_start(installed: Installed) -> None:
    private = installed.directory / "private"
    private.mkdir(mode=0o700)
    python = shutil.copy("/usr/bin/python3", private)
    text = installed.path.read_text().split("\n", 1)[1]
    installed.path.write_text(f"#!{python} -IS\n{text}")
    assert "other users cannot start it" in wrong(probe.check(installed.path))


@needs_root
def test_a_check_by_a_stranger_says_which_group_is_missing(shared: Installed) -> None:
    def check() -> None:
        assert "Permission denied" in wrong(probe.check(shared.path))

    being(NOBODY, NOBODY, check)
    assert shared.entries() == []


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ("absent", "No such file"),
        ("no hook", "no hook"),
        ("no python", "nowhere"),
        ("mode", "mode 775"),
        ("changed", "changed by hand"),
        ("spool", "No such file"),
        ("rights", "mode"),
        ("full", "ended with 75"),
        ("relay", "no relay runs"),
    ],
)
def test_a_check_says_what_is_wrong_and_what_to_do(
    installed: Installed, how: str, word: str
) -> None:
    text = installed.path.read_text()
    if how == "absent":
        installed.path.unlink()
    elif how == "no hook":
        installed.path.write_text("#!/bin/sh\ncat > /dev/null\n")
    elif how == "no python":
        installed.path.write_text("#!/nowhere -IS\n" + text.split("\n", 1)[1])
    elif how == "mode":
        installed.path.chmod(0o775)
    elif how == "changed":
        installed.path.write_text(text + "\n")
    elif how == "spool":
        installed.spool.root.rename(installed.directory / "moved")
    elif how == "rights":
        (installed.spool.root / "incoming/tmp").chmod(0o777)
    elif how == "full":
        installed.spool.refuse(Refusal.ALL)
    findings = probe.check(installed.path)
    assert word in wrong(findings)
    assert all(it.remedy for it in findings if not it.ok)
    with contextlib.suppress(FileNotFoundError):
        assert not list((installed.spool.root / "incoming/new").glob("?/*"))
