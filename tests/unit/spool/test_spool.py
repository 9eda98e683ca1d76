"""The spool's read side."""

import hashlib
import os
import stat
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fnm_bus.errors import SpoolError
from fnm_bus.hook import python_hook
from fnm_bus.spool import entry as entries
from fnm_bus.spool import layout
from fnm_bus.spool.limits import AdmissionLevel, Limits, SpoolUsage
from fnm_bus.spool.sequence import BootEpochs
from fnm_bus.spool.spool import Spool

BOOT = "b" * 32


def name(ticks: int, digit: str = "0", pid: int = 7) -> str:
    return f"{BOOT}-{ticks:012d}-{pid:07d}-0000000{digit}"


class Box:
    """A spool with its hook."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spool = Spool(root, BootEpochs(root / "state/epochs.json", BOOT))
        self.spool.make(os.geteuid(), os.getegid())

    def store(self, entry: str, document: bytes = b"{}", *arguments: str) -> str:
        python_hook.store_entry(
            str(self.root), entry, python_hook.encode_entry(arguments, document)
        )
        return entry


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "spool")


def test_the_constructor_creates_nothing(tmp_path: Path) -> None:
    Spool(tmp_path / "spool")
    assert not list(tmp_path.iterdir())


def test_a_stored_entry_is_read_unchanged(box: Box) -> None:
    before = datetime.now(UTC).timestamp()
    box.store(name(5), b'{"action": "ban"}\n', "ban", "192.0.2.1")
    entry = box.spool.read(name(5))
    assert entry.name == name(5)
    assert entry.arguments == ("ban", "192.0.2.1")
    assert entry.document == b'{"action": "ban"}\n'
    assert entry.size == Path(entry.path).stat().st_size
    assert entry.stored_at.tzinfo is UTC
    assert -1 < entry.stored_at.timestamp() - before < 60


def test_entries_are_in_the_order_of_the_calls(box: Box) -> None:
    calls = [name(ticks, "f8a4"[ticks % 4]) for ticks in range(50)]
    for entry in reversed(calls):
        box.store(entry)
    assert box.spool.scan() == calls


def test_an_empty_spool_has_no_entries(box: Box) -> None:
    assert box.spool.scan() == []
    assert box.spool.usage() == (0, 0, None)


def test_an_entry_may_be_removed_twice(box: Box) -> None:
    box.store(name(5))
    box.spool.remove(name(5))
    box.spool.remove(name(5))
    assert box.spool.scan() == []
    with pytest.raises(FileNotFoundError):
        box.spool.read(name(5))


def test_a_name_is_not_returned_before_an_earlier_one(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While 8 is read, an earlier call is stored in 0, then a later one in f."""
    first, second, third = name(1, "8"), name(2, "0"), name(3, "f")
    box.store(first)
    right, done = os.listdir, []

    def listdir(path: str) -> list[str]:
        if path.endswith("/8") and not done:
            done.append(path)
            box.store(second)
            box.store(third)
        return right(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert box.spool.scan() == [first]
    assert box.spool.scan() == [first, second, third]


def test_a_scan_waits_for_an_earlier_call(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, early = name(1, "0"), name(2, "f")
    box.store(early)
    right, done = os.listdir, []

    def listdir(path: str) -> list[str]:
        if path.endswith("/1") and not done:
            done.append(path)
            box.store(late)
        return right(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert box.spool.scan() == [late, early]


def test_a_missing_spool_is_an_error(tmp_path: Path) -> None:
    absent = Spool(tmp_path / "absent")
    for act in (
        absent.scan,
        absent.usage,
        absent.remove_orphans,
        absent.foreign_files,
        absent.lock,
    ):
        with pytest.raises(SpoolError, match="absent"):
            act()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"fnm-bus 1 ",
        b"fnm-bus 1 2\0ban\0{}",
        b"fnm-bus 1 x\0{}",
        b"fnm-bus 1 99999999999999\0{}",
        b"fnm-bus 1 9999\0" + b"\0" * 10_000,
        b"fnm-bus 2 0\0{}\4",
        b"\0",
    ],
)
def test_bytes_of_another_program_are_a_document(data: bytes) -> None:
    assert entries.decode_entry(data) == ((), data, True)


@pytest.mark.parametrize("length", range(10))
def test_an_entry_cut_by_a_power_loss_is_incomplete(length: int) -> None:
    document = b"192.0.2.1"
    data = python_hook.encode_entry(["ban"], document)
    cut = data[: len(data) - len(document) - 1 + length]
    assert entries.decode_entry(cut) == (("ban",), document[:length], False)


def test_a_truncated_oversized_document_exceeds_the_parser_s_limit(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "_MAX_READ", 1_000)
    box.store(name(5), b"x" * 5_000)
    entry = box.spool.read(name(5))
    assert 900 < len(entry.document) <= 1_000
    assert (entry.size > 5_000, entry.is_complete) == (True, True)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("length", [1_000, 1_001, 2_000, 5_000])
def test_size_and_digest_cover_the_whole_oversized_document(
    box: Box, monkeypatch: pytest.MonkeyPatch, length: int, *, packed: bool
) -> None:
    monkeypatch.setattr(entries, "_MAX_READ", 900)
    monkeypatch.setattr(entries, "_CHUNK", 1_000)
    document = os.urandom(length - 1) + b"\4"  # as an entry ends
    if packed:
        box.store(name(5), document)
    else:
        box.spool.path(name(5)).write_bytes(document)
    whole = box.spool.read(name(5)).oversized
    assert whole is not None
    digest = hashlib.sha256(document).hexdigest()
    assert whole == (length, f"sha256:{digest}")


def test_a_file_larger_than_any_entry_is_not_hashed(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a file may be sparse and have terabytes."""
    monkeypatch.setattr(entries, "_MAX_READ", 900)
    with box.spool.path(name(5)).open("wb") as file:
        file.truncate(1 << 40)
    assert box.spool.read(name(5)).oversized == (1 << 40, "")


@pytest.mark.parametrize("seconds", [-(10**9), 0, 2**40])
def test_a_file_may_have_any_time(box: Box, seconds: int) -> None:
    box.store(name(5))
    os.utime(box.spool.path(name(5)), (seconds, seconds))
    assert box.spool.scan() == [name(5)]
    assert box.spool.read(name(5)).stored_at.year < 10_000
    assert box.spool.usage().oldest is not None


def plant(path: Path, kind: str, target: Path) -> None:
    if kind == "link":
        path.symlink_to(target)
    elif kind == "dangling link":
        path.symlink_to(target / "nowhere")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.write_bytes(b"{}")


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "directory"])
def test_a_planted_link_or_pipe_is_not_read(
    box: Box, tmp_path: Path, kind: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    plant(box.spool.path(name(5)), kind, secret)
    box.store(name(6))
    assert name(6) in box.spool.scan()
    with pytest.raises(SpoolError):
        box.spool.read(name(5))
    (foreign,) = box.spool.foreign_files()
    assert foreign.reason.endswith(kind.removeprefix("dangling "))
    moved = box.spool.quarantine_foreign(foreign)
    assert moved.parent == box.root / "quarantine/foreign"
    assert box.spool.foreign_files() == []
    assert secret.read_bytes() == b"secret"


def test_a_name_with_ticks_beyond_the_uptime_is_valid(box: Box) -> None:
    """FastNetMon in a time namespace has another uptime than the relay."""
    ticks = python_hook.uptime_ticks() + 2 * 86_400 * python_hook.TICKS_PER_SECOND
    late = f"{python_hook.boot_id()}-{ticks:012d}-0000007-00000000"
    box.store(late)
    assert box.spool.scan() == [late]
    assert box.spool.usage().files == 1
    assert box.spool.foreign_files() == []


@pytest.mark.parametrize(
    "place",
    [
        "incoming/new/0/ban.json",
        f"incoming/new/0/{name(5, 'f')}",
        "incoming/tmp/core",
        "incoming/new/3/\udcff",
        "incoming/new/3/" + "x" * 255,
    ],
)
def test_a_foreign_file_is_moved_to_the_quarantine(box: Box, place: str) -> None:
    plant(box.root / place, "file", box.root)
    assert box.spool.scan() == []
    (odd,) = box.spool.foreign_files()
    assert box.spool.quarantine_foreign(odd).read_bytes() == b"{}"
    assert box.spool.foreign_files() == []


def test_usage_has_entries_bytes_and_the_oldest(box: Box) -> None:
    for ticks in range(3):
        box.store(name(ticks, f"{ticks}"), b"x" * 100)
        os.utime(box.spool.path(name(ticks, f"{ticks}")), (1_000 + ticks,) * 2)
    depth = box.spool.usage()
    size = len(python_hook.encode_entry([], b"x" * 100))
    assert depth == (3, 3 * size, datetime.fromtimestamp(1_000, UTC))


def temporary(box: Box, entry: str, age: float) -> Path:
    path = box.root / "incoming/tmp" / entry
    path.write_bytes(b"half")
    then = datetime.now(UTC).timestamp() - age
    os.utime(path, (then, then))
    return path


def own(**changes: int) -> str:
    ticks = changes.get("ticks", python_hook.process_start_ticks())
    pid = changes.get("pid", os.getpid())
    return f"{python_hook.boot_id()}-{ticks:012d}-{pid:07d}-00000000"


def dead_pid() -> int:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    return pid


def test_the_temporary_file_of_a_running_call_stays(box: Box) -> None:
    path = temporary(box, own(), age=10**6)
    assert box.spool.remove_orphans() == []
    assert path.exists()


def test_the_temporary_file_of_an_ended_call_is_removed(box: Box) -> None:
    entry = own(pid=dead_pid())
    path = temporary(box, entry, age=4_000)
    (left,) = box.spool.remove_orphans()
    assert (left.name, left.size) == (entry, 4)
    assert not path.exists()


def test_a_reused_pid_does_not_keep_a_file(
    box: Box,
) -> None:
    temporary(box, own(ticks=python_hook.process_start_ticks() - 1), age=4_000)
    assert len(box.spool.remove_orphans()) == 1


def test_a_file_of_an_earlier_boot_is_removed(box: Box) -> None:
    temporary(box, name(5, pid=os.getpid()), age=4_000)
    assert len(box.spool.remove_orphans()) == 1


def test_a_new_file_without_a_process_stays(
    box: Box,
) -> None:
    temporary(box, own(pid=dead_pid()), age=3_000)
    temporary(box, name(5), age=-(10**6))
    assert box.spool.remove_orphans() == []


def test_a_file_of_an_unknown_boot_stays_a_day(box: Box) -> None:
    hidden = python_hook.NO_BOOT_ID + f"{5:012d}" + name(5)[32:]
    path = temporary(box, hidden, age=80_000)
    assert box.spool.remove_orphans() == []
    os.utime(path, (1, 1))
    assert len(box.spool.remove_orphans()) == 1


def test_cleaning_keeps_links_and_foreign_files(box: Box, tmp_path: Path) -> None:
    (box.root / "incoming/tmp" / name(5)).symlink_to(tmp_path)
    (box.root / "incoming/tmp" / "core").write_bytes(b"")
    assert box.spool.remove_orphans() == []
    assert len(list((box.root / "incoming/tmp").iterdir())) == 2


def test_a_temporary_file_is_not_an_entry(box: Box) -> None:
    temporary(box, own(), age=0)
    assert box.spool.scan() == []
    assert box.spool.foreign_files() == []


def test_the_directories_have_the_documented_modes(box: Box) -> None:
    assert layout.find_faults(box.root, os.geteuid(), os.getegid()) == []
    modes = {
        path: stat.S_IMODE((box.root / path).stat().st_mode)
        for path in ("incoming/tmp", "incoming/new/f", "quarantine", "lock")
    }
    assert modes == {
        "incoming/tmp": 0o3770,
        "incoming/new/f": 0o3770,
        "quarantine": 0o700,
        "lock": 0o600,
    }


def test_a_second_set_up_repairs_modes_and_keeps_files(box: Box) -> None:
    box.store(name(5))
    lock = (box.root / "lock").stat().st_ino
    (box.root / "incoming/tmp").chmod(0o777)
    (box.root / "state").chmod(0o755)
    assert len(layout.find_faults(box.root, os.geteuid(), os.getegid())) == 2
    box.spool.make(os.geteuid(), os.getegid())
    assert layout.find_faults(box.root, os.geteuid(), os.getegid()) == []
    assert (box.root / "lock").stat().st_ino == lock
    assert box.spool.scan() == [name(5)]


@pytest.mark.parametrize("place", ["incoming", "incoming/new/0", "lock", "."])
def test_set_up_does_not_follow_a_link(box: Box, tmp_path: Path, place: str) -> None:
    other = tmp_path / "other"
    (box.root / place).rename(tmp_path / "moved")
    if place == "lock":
        other.write_bytes(b"")
    else:
        other.mkdir()
    other.chmod(0o700)
    (box.root if place == "." else box.root / place).symlink_to(other)
    with pytest.raises(SpoolError):
        box.spool.make(os.geteuid(), os.getegid())
    assert stat.S_IMODE(other.stat().st_mode) == 0o700
    assert layout.find_faults(box.root, os.geteuid(), os.getegid())


@pytest.mark.parametrize("exchanged", ["incoming", "incoming/new"])
def test_set_up_does_not_follow_a_link_planted_meanwhile(
    box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanged: str
) -> None:
    """The spool's owner can plant a link between two system calls of root."""
    elsewhere, right = tmp_path / "elsewhere", os.fchmod
    for name in ("tmp", "new/0", "0"):
        (elsewhere / name).mkdir(parents=True)
    place = box.root / exchanged
    inode = place.stat().st_ino

    def exchanges(fd: int, mode: int) -> None:
        right(fd, mode)
        if os.fstat(fd).st_ino == inode and not place.is_symlink():
            place.rename(tmp_path / "moved")
            place.symlink_to(elsewhere)

    monkeypatch.setattr(os, "fchmod", exchanges)
    before = {path: path.stat().st_mode for path in elsewhere.rglob("*")}
    with pytest.raises(SpoolError):
        box.spool.make(os.geteuid(), os.getegid())
    assert {path: path.stat().st_mode for path in elsewhere.rglob("*")} == before


def test_set_up_refuses_a_lock_with_two_links(box: Box, tmp_path: Path) -> None:
    """The spool's owner would become the owner of the other file."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"")
    precious.chmod(0o644)
    (box.root / "lock").unlink()
    (box.root / "lock").hardlink_to(precious)
    with pytest.raises(SpoolError, match="one name; remove it"):
        box.spool.make(os.geteuid(), os.getegid())
    assert stat.S_IMODE(precious.stat().st_mode) == 0o644


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_set_up_refuses_a_lock_of_another_user(box: Box) -> None:
    """The spool's owner can move a file of root there from another directory."""
    box.spool.make(1234, 2345)
    lock = box.root / "lock"
    lock.unlink()
    lock.write_text("root:secret")
    lock.chmod(0o640)
    with pytest.raises(SpoolError, match=r"lock: belongs to 0, not to 1234.*remove it"):
        box.spool.make(1234, 2345)
    facts = lock.stat()
    assert (facts.st_uid, stat.S_IMODE(facts.st_mode)) == (0, 0o640)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_set_up_with_another_owner_changes_the_lock_s_owner(box: Box) -> None:
    for owner in (1234, 1235, 0):
        box.spool.make(owner, 2345)
        assert layout.find_faults(box.root, owner, 2345) == []


def test_the_marker_has_the_refused_notifications(box: Box) -> None:
    assert box.spool.refusal() is AdmissionLevel.NOTHING
    for level in (
        AdmissionLevel.STATUS,
        AdmissionLevel.ALL,
        AdmissionLevel.ALL,
        AdmissionLevel.NOTHING,
    ):
        box.spool.refuse(level)
        assert box.spool.refusal() is level
    box.spool.refuse(AdmissionLevel.STATUS)
    with pytest.raises(OSError, match="at its limit: status"):
        python_hook.check_room(str(box.root), b"attack_status")


@pytest.mark.parametrize(
    ("text", "means"),
    [
        (b"\xff?", AdmissionLevel.STATUS),
        (b"all", AdmissionLevel.ALL),
        (b"\n", AdmissionLevel.NOTHING),
    ],
)
def test_hook_and_relay_read_any_marker_alike(
    box: Box, text: bytes, means: AdmissionLevel
) -> None:
    (box.root / "full").write_bytes(text)
    assert box.spool.refusal() is means
    for document, refused in (
        (b"attack_status", means is not AdmissionLevel.NOTHING),
        (b"ban", means is AdmissionLevel.ALL),
    ):
        context = pytest.raises(OSError, match="limit") if refused else nullcontext()
        with context:
            python_hook.check_room(str(box.root), document)
    box.spool.refuse(AdmissionLevel.NOTHING)
    assert box.spool.refusal() is AdmissionLevel.NOTHING


@pytest.mark.parametrize(
    ("files", "size", "thinning", "refusal"),
    [
        (0, 0, False, AdmissionLevel.NOTHING),
        (10, 0, True, AdmissionLevel.NOTHING),
        (0, 100, True, AdmissionLevel.NOTHING),
        (75, 0, True, AdmissionLevel.STATUS),
        (0, 750, True, AdmissionLevel.STATUS),
        (100, 0, True, AdmissionLevel.ALL),
        (0, 1_000, True, AdmissionLevel.ALL),
    ],
)
def test_limits_coalesce_then_refuse_status_then_all(
    files: int, size: int, refusal: AdmissionLevel, *, thinning: bool
) -> None:
    limits = Limits(10, 100, 100, 1_000, 0.25)
    depth = SpoolUsage(files, size, None)
    assert limits.coalesces_status(depth) is thinning
    assert limits.refusal(depth) is refusal
