"""The native hook: compilers, its settings, and limits that the Python hook has not."""

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.installed_hook import BUILDS, MAGIC, SAMPLE, SOURCE, NativeHook
from support.process import wait_until

from fnm_bus.spool.limits import AdmissionLevel

Program = Callable[[str], Path]


@pytest.fixture
def native(place: Path, native_program: Program) -> NativeHook:
    return NativeHook(place, native_program("gcc"))


@pytest.mark.parametrize("build", BUILDS)
def test_each_compiler_makes_a_hook(
    place: Path, native_program: Program, build: str
) -> None:
    """Without a warning, and with the settings in the program once."""
    hook = NativeHook(place, native_program(build))
    done = hook(SAMPLE, "ban")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    (entry,) = hook.entries()
    assert (entry.arguments, entry.document) == (("ban",), SAMPLE)


@pytest.mark.parametrize(
    "command",
    [
        (
            *("cppcheck", "--quiet", "--std=c11", "--error-exitcode=1"),
            "--enable=warning,style,performance,portability",
        ),
        (
            *("clang-tidy", "--quiet", "--warnings-as-errors=*"),
            # It would refuse every snprintf.
            "--checks=-clang-analyzer-security.insecureAPI.*",
        ),
    ],
    ids=lambda command: str(command[0]),
)
def test_a_checker_has_no_remark(command: tuple[str, ...]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    options = ("--", "-std=c11") if command[0] == "clang-tidy" else ()
    argv = [*command, str(SOURCE), *options]
    done = subprocess.run(argv, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr.decode()


@pytest.mark.parametrize("build", ["gcc", "sanitized"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"SPOOL=", b"SPOOK="),
        (b"SPOOL=/", b"SPOOL="),
        (b"FALLBACK=/", b"FALLBACK=./"),
        (b"RESERVE_BYTES=", b"RESERVE_BYTES= "),
        (b"RESERVE_BYTES=8388608", b"RESERVE_BYTES=18446744073709551616"),
        (b"RESERVE_INODES=64\0", b""),
        (b"FALLBACK_FILES=2000", b"FALLBACK_FILES=-1"),
        (b"FALLBACK_FILES=2000", b"FALLBACK_FILES=many"),
        (b"FALLBACK_FILES=2000", b"FALLBACK_FILES="),
        (b"FALLBACK_BYTES=67108864", b"FALLBACK_BYTES=64M"),
        (b"SPOOL=", b"\0SPOOL="),
        (b"SPOOL=", b"x" * 4_000 + b"SPOOL="),
        (MAGIC, MAGIC.rstrip(b"\0").ljust(4_096, b"x")),
    ],
    ids=range(13),
)
def test_damaged_settings_lose_the_document_and_log_it(
    place: Path, native_program: Program, build: str, old: bytes, new: bytes
) -> None:
    hook = NativeHook(place, native_program(build))
    assert hook.block().count(old) == 1
    hook.write_block(hook.block().replace(old, new)[:4_096])
    done = hook(b"x" * 1_000_000)
    assert done.returncode == 75
    assert b"this notification is lost: the settings of this hook" in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert hook.entries() == hook.entries(hook.fallback) == []


@pytest.mark.parametrize("build", ["gcc", "sanitized"])
def test_the_longest_path_of_the_settings_is_not_cut(
    place: Path, native_program: Program, build: str
) -> None:
    hook = NativeHook(place, native_program(build))
    room = 4_096 - len(hook.block()) - 1
    hook.change(SPOOL=f"{hook.spool.root}{'/' * room}")
    assert hook(SAMPLE).returncode == 0
    hook.spool.refuse(AdmissionLevel.ALL)
    assert hook(SAMPLE).returncode == 75
    assert len(hook.entries()) == len(hook.entries(hook.fallback)) == 1


@pytest.mark.parametrize(("size", "status"), [(19_000, 0), (40_000_000, 75)])
def test_little_memory_is_enough_for_small_documents(
    native: NativeHook, size: int, status: int
) -> None:
    limit = (32 << 20, 32 << 20)
    done = native(
        b"x" * size, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit)
    )
    assert done.returncode == status
    assert len(native.entries()) == (status == 0)
    assert (b"lost: stdin holds 40000000 bytes" in done.stderr) == (status == 75)


def test_a_crash_leaves_no_copy_of_the_document(native: NativeHook) -> None:
    argv = ["sh", "-c", 'ulimit -c unlimited; exec "$0"', native.path]
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    with subprocess.Popen(argv, stdin=reading, cwd=native.directory) as call:
        wait_until(lambda: os.get_blocking(reading), 30, "the hook reads")
        call.send_signal(signal.SIGSEGV)
        assert call.wait(30) == -signal.SIGSEGV
    os.close(reading)
    os.close(writing)
    assert not list(native.directory.glob("core*"))


def test_no_file_takes_the_number_of_a_closed_standard_file(
    native: NativeHook, tmp_path: Path
) -> None:
    """An error message would be written into an entry with the number 2."""
    trace = tmp_path / "trace"
    argv = ["strace", "-o", trace, "-e", "trace=openat,socket", "sh", "-c"]
    argv += ['exec "$0" 192.0.2.1 incoming 1000 unban <&- >&- 2>&-', native.path]
    subprocess.run(argv, check=True, capture_output=True)
    calls = trace.read_text().rpartition('openat(AT_FDCWD, "/", ')[2].splitlines()
    numbers = [int(call.rpartition(" = ")[2].split()[0]) for call in calls[:-1]]
    assert len(numbers) > 8
    assert [number for number in numbers if 0 <= number <= 2] == []


def test_a_waiting_call_has_little_memory(native_program: Program, place: Path) -> None:
    """With vm.overcommit_memory=2, a storm's calls would take it from FastNetMon."""
    hook = NativeHook(place, native_program("musl"))
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    with subprocess.Popen([hook.path], stdin=reading) as call:
        wait_until(lambda: os.get_blocking(reading), 30, "the hook reads")
        pages = int(Path(f"/proc/{call.pid}/statm").read_text().split()[0])
        os.close(reading)
        os.close(writing)
        assert call.wait(30) == 0
    assert pages * resource.getpagesize() < 1_000_000


def test_a_process_without_descriptors_reports_the_loss(
    native_program: Program, place: Path
) -> None:
    """poll(2) fails for a limit of 0; the standard files are open nevertheless."""
    hook = NativeHook(place, native_program("musl"))
    limit = resource.RLIMIT_NOFILE
    done = hook(SAMPLE, preexec_fn=lambda: resource.setrlimit(limit, (0, 0)))
    assert (done.returncode, done.stderr.count(b"\n")) == (75, 1)
    assert b"this notification is lost: " in done.stderr
