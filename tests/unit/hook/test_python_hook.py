"""The hook's functions in this process; the program is tested in tests/integration."""

import ast
import os
import posix
import stat
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from fnm_bus.hook import python_hook
from fnm_bus.spool import entry_name
from fnm_bus.spool.entry import decode_entry
from fnm_bus.spool.spool import Spool

BOOT = "0123456789abcdef" * 2
NAME = f"{BOOT}-000000000100-0000007-0000000a"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Spool(tmp_path / "spool").make(os.geteuid(), os.getegid())
    return tmp_path / "spool"


@pytest.fixture
def fallback(tmp_path: Path) -> Path:
    Spool(tmp_path / "fallback").make(os.geteuid(), os.getegid())
    return tmp_path / "fallback"


def entries(root: Path) -> list[Path]:
    return sorted((root / "incoming/new").glob("?/*"))


def without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(path: str) -> bytes:
        raise FileNotFoundError(path)

    monkeypatch.setattr(python_hook, "read_small_file", hidden)


def test_a_name_has_boot_start_and_pid_of_the_process() -> None:
    name = python_hook.new_entry_name()
    assert entry_name.is_entry_name(name)
    assert entry_name.pid_of(name) == os.getpid()
    assert entry_name.ticks_of(name) == python_hook.process_start_ticks()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert entry_name.boot_of(name) == boot.replace("-", "")


def test_two_names_of_one_process_differ() -> None:
    assert python_hook.new_entry_name() != python_hook.new_entry_name()


def test_the_start_follows_a_program_name_with_brackets_and_blanks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fields = " ".join(str(field) for field in range(3, 53))
    line = f"7 (fast) net) mon 9 9) {fields}\n".encode()
    monkeypatch.setattr(python_hook, "read_small_file", lambda _path: line)
    assert python_hook.process_start_ticks() == 22


def test_without_proc_a_name_has_the_time_of_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = python_hook.process_start_ticks()
    without_proc(monkeypatch)
    name = python_hook.new_entry_name()
    assert entry_name.is_entry_name(name)
    assert name.startswith(python_hook.NO_BOOT_ID)
    assert start <= entry_name.ticks_of(name) <= python_hook.uptime_ticks()


def test_without_proc_a_clock_of_1970_makes_a_valid_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_proc(monkeypatch)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert entry_name.is_entry_name(python_hook.new_entry_name())


def test_the_start_of_an_ended_process_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        python_hook.process_start_ticks(4_194_305)  # Linux's PID_MAX_LIMIT is 4194304


@pytest.mark.parametrize("arguments", [[], ["ban", "192.0.2.1"], ["", "é", "\udcff"]])
def test_arguments_and_document_survive_encoding(arguments: list[str]) -> None:
    document = b'{"a": "\x00\xff"}\0\n'
    shown = tuple(argument.replace("\udcff", "\\xff") for argument in arguments)
    data = python_hook.encode_entry(arguments, document)
    assert decode_entry(data) == (shown, document)


def test_a_fallback_spool_drained_during_the_count_has_room(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python_hook.store_entry(str(root), NAME, b"one")
    scandir = posix.scandir

    def taken_in_between(path: str) -> object:
        entries = list(scandir(path))
        for entry in root.glob("incoming/new/?/*"):
            entry.unlink()
        return nullcontext(entries)

    monkeypatch.setattr(posix, "scandir", taken_in_between)
    python_hook.check_fallback_limits(str(root))
    assert not list(root.glob("incoming/new/?/*"))


def test_an_entry_is_complete_and_unreadable_for_others(root: Path) -> None:
    old = os.umask(0)
    try:
        path = Path(python_hook.store_entry(str(root), NAME, b"x" * 100_000))
    finally:
        os.umask(old)
    assert entries(root) == [path]
    assert path.read_bytes() == b"x" * 100_000
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_strict_umask_leaves_an_entry_readable_for_the_relay(root: Path) -> None:
    old = os.umask(0o777)
    try:
        path = Path(python_hook.store_entry(str(root), NAME, b""))
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    "broken", ["open", "fchmod", "write", "fsync", "rename", "close"]
)
def test_a_failing_step_leaves_no_entry_and_no_temporary_file(
    root: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    right = getattr(posix, broken)
    calls = []

    def fails(*arguments: object, **options: object) -> object:
        # Opening and closing directories succeeds.
        if broken == "open" and arguments[0] != NAME:
            return right(*arguments, **options)
        if broken == "close":
            file = stat.S_ISREG(os.fstat(arguments[0]).st_mode)  # type: ignore[arg-type]
            right(*arguments)
            if not file:
                return None
        calls.append(arguments)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(posix, broken, fails)
        with pytest.raises(OSError, match=f"No space left.*/{NAME}"):
            python_hook.store_entry(str(root), NAME, b"document")
    assert calls
    assert not entries(root)
    assert not list((root / "incoming/tmp").iterdir())


def test_a_failed_sync_of_the_directory_is_an_error(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = posix.fsync

    def fails(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(5, "Input/output error")
        right(fd)

    monkeypatch.setattr(posix, "fsync", fails)
    with pytest.raises(OSError, match="Input/output"):
        python_hook.store_entry(str(root), NAME, b"document")


def test_copies_in_spool_and_fallback_have_the_same_name(
    root: Path, fallback: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = posix.fsync
    failed = []

    def fails_once(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode) and not failed:
            failed.append(fd)
            raise OSError(5, "Input/output error")
        right(fd)

    monkeypatch.setattr(posix, "fsync", fails_once)
    path, trouble = python_hook.store_or_fallback(
        str(root), str(fallback), [], b"document"
    )
    assert "Input/output" in trouble
    assert [entry.name for entry in entries(root)] == [Path(path).name]
    assert [str(entry) for entry in entries(fallback)] == [path]


def test_short_writes_are_continued(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = posix.write
    monkeypatch.setattr(posix, "write", lambda fd, data: right(fd, data[:10]))
    path = Path(python_hook.store_entry(str(root), NAME, b"0123456789" * 10 + b"!"))
    assert path.read_bytes() == b"0123456789" * 10 + b"!"


@pytest.mark.parametrize("kind", ["file", "link", "pipe"])
def test_an_existing_file_is_never_written_to(
    root: Path, tmp_path: Path, kind: str
) -> None:
    target, planted = tmp_path / "precious", root / "incoming/tmp" / NAME
    target.write_bytes(b"precious")
    if kind == "file":
        planted.write_bytes(b"old")
    elif kind == "link":
        planted.symlink_to(target)
    else:
        os.mkfifo(planted)
    with pytest.raises(FileExistsError):
        python_hook.store_entry(str(root), NAME, b"document")
    assert target.read_bytes() == b"precious"
    assert planted.is_symlink() or planted.exists()


@pytest.mark.parametrize(
    "link", ["incoming", "incoming/tmp", "incoming/new", f"incoming/new/{NAME[-1]}"]
)
def test_a_link_to_a_directory_is_not_followed(
    root: Path, tmp_path: Path, link: str
) -> None:
    away = tmp_path / "away"
    (root / link).rename(away)
    (root / link).symlink_to(away)
    before = sorted(away.rglob("*"))
    with pytest.raises(NotADirectoryError):
        python_hook.store_entry(str(root), NAME, b"document")
    assert sorted(away.rglob("*")) == before


def test_a_pipe_instead_of_the_marker_does_not_block(root: Path) -> None:
    os.mkfifo(root / "full")
    python_hook.check_room(str(root), b"document")


def test_a_link_instead_of_the_marker_is_not_followed(
    root: Path, fallback: Path
) -> None:
    secret = root.parent / "shadow"
    secret.write_text("root:secret")
    (root / "full").symlink_to(secret)
    document = b'{"action":"attack_status"}'
    path, trouble = python_hook.store_or_fallback(
        str(root), str(fallback), [], document
    )
    assert fallback in Path(path).parents
    assert "secret" not in trouble


@pytest.mark.parametrize(
    ("marker", "document", "refused"),
    [
        ("status", b'{"action":"attack_status"}', True),
        ("status", b'{"action":"ban"}', False),
        ("all", b'{"action":"attack_status"}', True),
        ("all", b'{"action":"ban"}', True),
    ],
)
def test_refused_notifications_go_to_the_fallback_spool(
    root: Path, fallback: Path, marker: str, document: bytes, *, refused: bool
) -> None:
    (root / "full").write_text(f"{marker}\n")
    path, trouble = python_hook.store_or_fallback(
        str(root), str(fallback), [], document
    )
    assert (fallback in Path(path).parents) is refused
    assert ("at its limit" in trouble) is refused


@pytest.mark.parametrize(
    ("setting", "value"), [("RESERVE_BYTES", 1 << 62), ("RESERVE_INODES", 1 << 62)]
)
def test_the_reserve_of_the_file_system_stays_free(
    root: Path,
    fallback: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    value: int,
) -> None:
    monkeypatch.setattr(python_hook, setting, value)
    path, trouble = python_hook.store_or_fallback(str(root), str(fallback), [], b"{}")
    assert fallback in Path(path).parents
    assert "reserve" in trouble


@pytest.mark.parametrize("setting", ["FALLBACK_FILES", "FALLBACK_BYTES"])
def test_the_fallback_spool_is_bounded(
    tmp_path: Path, fallback: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    gone = str(tmp_path / "gone")
    monkeypatch.setattr(python_hook, setting, 1)
    python_hook.store_or_fallback(gone, str(fallback), [], b"the first")
    with pytest.raises(OSError, match=r"gone.*; fallback: .*full, 1 files"):
        python_hook.store_or_fallback(gone, str(fallback), [], b"the second")
    assert len(entries(fallback)) == 1


@pytest.mark.parametrize("link", ["incoming/new/3", "incoming/new", "incoming"])
def test_a_link_is_not_followed_to_count_files(
    tmp_path: Path, fallback: Path, link: str
) -> None:
    """The spool's owner could plant a link to a directory without end."""
    away = tmp_path / "away"
    (fallback / link).rename(away)
    (fallback / link).symlink_to(away)
    with pytest.raises(NotADirectoryError):
        python_hook.check_fallback_limits(str(fallback))


def test_counting_stops_at_the_limit(
    fallback: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        (fallback / f"incoming/new/0/{number}").touch()
    monkeypatch.setattr(python_hook, "FALLBACK_FILES", 2)
    with pytest.raises(OSError, match="full, 2 files or more"):
        python_hook.check_fallback_limits(str(fallback))


def test_a_link_is_not_followed_to_check_free_space(root: Path, tmp_path: Path) -> None:
    (root / "incoming/tmp").rename(tmp_path / "away")
    (root / "incoming/tmp").symlink_to(tmp_path / "away")
    with pytest.raises(NotADirectoryError, match=f"{root}/incoming/tmp"):
        python_hook.check_room(str(root), b"document")


def test_an_oversized_document_is_read_to_the_end_and_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(python_hook, "MAX_STDIN", 100_000)
    left = [b"x" * 65_536] * 5
    monkeypatch.setattr(posix, "read", lambda _fd, _n: left.pop() if left else b"")
    with pytest.raises(OSError, match="stdin holds 327680 bytes"):
        python_hook.read_stdin([])
    assert not left


def test_a_removed_lock_file_is_not_locked(root: Path) -> None:
    (root / "lock").unlink()
    assert python_hook.try_lock(str(root)) == -1


def test_a_lock_file_of_another_user_is_not_locked(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spool's owner could move a file of root there, to become root."""
    (root / "lock").unlink()
    (root / "lock").write_bytes(b"")
    right = posix.fstat

    def of_another(fd: int) -> os.stat_result:
        return os.stat_result((*right(fd)[:4], os.geteuid() + 1, *right(fd)[5:]))

    monkeypatch.setattr(posix, "fstat", of_another)
    monkeypatch.setattr(posix, "geteuid", lambda: 0)
    assert python_hook.try_lock(str(root)) == -1


def test_the_oldest_supported_python_can_parse_the_hook() -> None:
    """3.9 has no `match`, and cannot evaluate `int | None` in annotations."""
    tree = ast.parse(Path(python_hook.__file__).read_text(), feature_version=(3, 9))
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
            assert not isinstance(node.annotation, ast.BinOp), node.lineno
        if isinstance(node, ast.FunctionDef):
            assert not isinstance(node.returns, ast.BinOp), node.name


def test_a_damaged_backoff_file_costs_one_attempt(root: Path) -> None:
    (root / "state/backoff").write_bytes(b"\xff\0 nonsense")
    assert python_hook.backoff_seconds_left(str(root)) == 0.0
