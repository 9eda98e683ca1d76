"""The native hook is found or compiled, tried out, installed, and checked."""

import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from click.testing import Result
from support.installed_hook import SAMPLE
from typer.testing import CliRunner

from fnm_bus.cli import app
from fnm_bus.config.settings import Settings
from fnm_bus.errors import ConfigError
from fnm_bus.hook import python_hook
from fnm_bus.setup import (
    check_hook,
    compile_hook,
    hook_call,
    init,
    install_hook,
    native_binary,
    native_build,
)
from fnm_bus.spool.spool import Spool

needs_compiler = pytest.mark.skipif(
    not compile_hook.commands(), reason="no C compiler is installed"
)


class Machine:
    """A directory for a hook and two spools, and the commands for them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.hook = directory / "hook"
        self.spool = Spool(directory / "spool")
        self.fallback = Spool(directory / "fallback")

    def install(self, *options: str) -> Result:
        spools = ("--spool", self.spool.root, "--fallback", self.fallback.root)
        command = ("hook", "install", self.hook, *spools, *options)
        return CliRunner().invoke(app, [str(word) for word in command])

    def native(self) -> bytes:
        """Install the native hook; return its content."""
        result = self.install("--native")
        assert result.exit_code == 0, result.output
        return self.hook.read_bytes()

    def failed(self) -> dict[str, str]:
        """Return text and remedy of each failed check, except that of the relay."""
        return {
            result.text: result.remedy
            for result in check_hook.check(self.hook)
            if not result.ok and "relay" not in result.text
        }


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(check_hook, "_OTHER_FILE_SYSTEMS", ())
    # A binary of the package would make the compiler superfluous.
    monkeypatch.setattr(native_build, "PACKAGED", tmp_path / "packaged")
    return Machine(tmp_path)


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@needs_compiler
def test_the_installed_hook_stores_a_notification(machine: Machine) -> None:
    result = machine.install("--native")
    assert result.exit_code == 0, result.output
    assert f"notify_script_path {machine.hook}\n" in result.output
    assert machine.hook.stat().st_mode & 0o7777 == 0o755
    subprocess.run([machine.hook, "ban", "192.0.2.1"], input=SAMPLE, check=True, env={})
    [name] = machine.spool.scan()
    expected = python_hook.encode_entry(("ban", "192.0.2.1"), SAMPLE)
    assert machine.spool.path(name).read_bytes() == expected
    assert not [path for path in machine.directory.iterdir() if path.name[0] == "."]


@needs_compiler
def test_a_call_continues_while_the_hook_is_replaced(machine: Machine) -> None:
    machine.native()
    with subprocess.Popen([machine.hook], stdin=subprocess.PIPE, env={}) as call:
        machine.native()
        call.communicate(SAMPLE, timeout=60)
    assert call.returncode == 0
    assert len(machine.spool.scan()) == 1


@needs_compiler
def test_the_limits_are_those_of_the_python_hook(machine: Machine) -> None:
    native = install_hook.read_settings(machine.native())
    assert machine.install("--python", "--no-drain").exit_code == 0
    assert install_hook.read_settings(machine.hook.read_bytes()) == native


@needs_compiler
def test_a_repeated_installation_keeps_the_kind(machine: Machine) -> None:
    machine.native()
    assert machine.install().exit_code == 0
    assert install_hook.is_native(machine.hook)
    assert machine.install("--python").exit_code == 0
    assert not install_hook.is_native(machine.hook)
    assert machine.install().exit_code == 0
    assert not install_hook.is_native(machine.hook)


@needs_compiler
def test_init_keeps_the_kind(machine: Machine) -> None:
    native = machine.native()
    settings = Settings.model_validate(
        {"spool": {"directory": machine.spool.root, "fallback": machine.fallback.root}}
    )
    host = init.Host(machine.directory / "fnm-bus.toml", machine.hook, None, "root")
    [step] = [step for step in init.steps(settings, host, None) if "hook" in step.text]
    machine.hook.write_bytes(native + b"damaged")
    step.run()
    assert machine.hook.read_bytes() == native


@pytest.mark.parametrize(
    ("options", "drains"), [([], True), (["--drain"], True), (["--no-drain"], False)]
)
def test_the_python_hook_drains_by_default(
    machine: Machine, options: list[str], *, drains: bool
) -> None:
    assert machine.install(*options).exit_code == 0
    settings = install_hook.read_settings(machine.hook.read_bytes())
    assert bool(settings["DRAIN"]) == drains


def test_the_native_hook_refuses_to_drain(machine: Machine) -> None:
    result = machine.install("--native", "--drain")
    assert result.exit_code == 2
    assert "never drains" in result.output
    assert list(machine.directory.iterdir()) == []


@needs_compiler
def test_an_installed_native_hook_refuses_to_drain(machine: Machine) -> None:
    native = machine.native()
    assert machine.install("--drain").exit_code == 2
    assert machine.hook.read_bytes() == native
    assert machine.install("--python", "--drain").exit_code == 0


def test_another_program_is_not_replaced(machine: Machine) -> None:
    machine.hook.write_bytes(b"\x7fELF another program")
    result = machine.install("--native")
    assert isinstance(result.exception, ConfigError)
    assert "another program" in str(result.exception)
    assert machine.hook.read_bytes() == b"\x7fELF another program"


# -- the binary -----------------------------------------------------------------------


def test_a_machine_without_a_compiler_is_told_the_packages(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(machine.directory))
    result = machine.install("--native")
    assert isinstance(result.exception, ConfigError)
    for words in ("apt-get install gcc libc6-dev", "gcc glibc-devel", "Python hook"):
        assert words in str(result.exception)
    assert not machine.hook.exists()


@pytest.mark.parametrize(
    ("compiler", "problem"),
    [("echo no such header >&2; exit 1", "no such header"), ("exit 0", "No such file")],
)
def test_a_compiler_that_fails_is_reported(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, compiler: str, problem: str
) -> None:
    path = program(machine.directory / "bin" / "mycc", compiler)
    monkeypatch.setenv("CC", str(path))
    result = machine.install("--native")
    assert isinstance(result.exception, ConfigError)
    assert problem in str(result.exception)
    assert not machine.hook.exists()


def test_a_missing_compiler_of_the_environment_is_reported(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "/nowhere/cc -m64")
    result = machine.install("--native")
    assert "/nowhere/cc" in str(result.exception)


@needs_compiler
def test_a_directory_for_temporary_files_without_programs_is_named(
    machine: Machine, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remount = ["mount", "-o", "remount,noexec,size=4m,nr_inodes=999", small_disk]
    subprocess.run(remount, check=True)
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    result = machine.install("--native")
    assert str(small_disk) in str(result.exception)
    assert "set TMPDIR" in str(result.exception)


@needs_compiler
def test_a_missing_directory_for_temporary_files_is_reported(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(machine.directory / "missing"))
    result = machine.install("--native")
    assert isinstance(result.exception, ConfigError)
    assert str(machine.directory / "missing") in str(result.exception)
    assert not machine.hook.exists()


NOTHING_STORED = f"""
static const char block[{native_binary.BLOCK}] __attribute__((used)) =
    "fnm-bus native hook 1";
int main(void) {{ return 0; }}
"""


@needs_compiler
def test_a_binary_that_stores_nothing_is_not_installed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = machine.directory / "nothing.c"
    source.write_text(NOTHING_STORED)
    monkeypatch.setattr(compile_hook, "SOURCE", source)
    result = machine.install("--native")
    assert "exits with 0 and stores 0 entries" in str(result.exception)
    assert not machine.hook.exists()


@needs_compiler
def test_a_binary_that_does_not_work_gives_way_to_the_next_compiler(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = machine.directory / "bin"
    tried = directory / "tried"
    fake = 'while [ "$1" != -o ]; do shift; done; cp /bin/true "$2"'
    program(directory / "musl-gcc", f"echo >>{tried}; {fake}")
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    machine.native()
    assert tried.read_text() == "\n\n"  # with -static, and without
    subprocess.run([machine.hook], input=SAMPLE, check=True, env={})


@needs_compiler
def test_the_binary_of_the_package_needs_no_compiler(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    native_build.PACKAGED.write_bytes(native_build.working_binary())
    monkeypatch.setenv("PATH", str(machine.directory))
    machine.native()
    assert machine.failed() == {}


@needs_compiler
def test_the_environment_s_compiler_is_used_instead_of_the_package_s_binary(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = machine.native()
    native_build.PACKAGED.write_bytes(native_build.working_binary() + b"\n")
    assert machine.native() != compiled
    [command, *_] = compile_hook.commands()
    monkeypatch.setenv("CC", command[0])
    assert machine.native() == compiled


@needs_compiler
@pytest.mark.parametrize("content", [b"", b"\x7fELF of another machine"])
def test_a_package_s_binary_that_does_not_work_is_compiled_here(
    machine: Machine, content: bytes
) -> None:
    native_build.PACKAGED.write_bytes(
        content + native_binary.MAGIC.ljust(native_binary.BLOCK, b"\0")
    )
    machine.native()
    assert machine.failed() == {}


# -- the check ------------------------------------------------------------------------


@needs_compiler
def test_a_check_calls_the_hook_and_removes_the_notification(machine: Machine) -> None:
    machine.native()
    results = check_hook.check(machine.hook)
    assert results[1] == (True, f"{machine.hook}: of this version of fnm-bus", "")
    assert results[-1].text == "a notification was stored, and removed"
    assert machine.failed() == {}
    assert machine.spool.scan() == []


@needs_compiler
def test_a_check_finds_a_hook_of_another_version(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.native()
    newer = machine.directory / "hook.c"
    newer.write_bytes(compile_hook.SOURCE.read_bytes() + b"\n")
    monkeypatch.setattr(compile_hook, "SOURCE", newer)
    [(text, remedy)] = machine.failed().items()
    assert "of another version of fnm-bus" in text
    assert remedy == f"run: fnm-bus hook install {machine.hook}"
    machine.native()
    assert machine.failed() == {}


@needs_compiler
def test_a_check_finds_changed_code(machine: Machine) -> None:
    machine.hook.write_bytes(machine.native() + b"\n")
    [text] = machine.failed()
    assert "changed by hand" in text


@needs_compiler
def test_a_check_finds_changed_settings(machine: Machine) -> None:
    spool = native_binary.MAGIC + b"SPOOL="
    changed = machine.native().replace(spool, spool.replace(b"L=", b"K="))
    machine.hook.write_bytes(changed)
    [(text, remedy)] = machine.failed().items()
    assert "the settings of this hook were changed" in text
    assert "hook install" in remedy


@needs_compiler
def test_a_check_finds_the_binary_of_another_machine(machine: Machine) -> None:
    content = bytearray(machine.native())
    content[18] ^= 0xFF  # e_machine of the ELF header
    machine.hook.write_bytes(content)
    failed = machine.failed()
    assert failed["the hook does not start: Exec format error"] == (
        "install the hook again, on this machine"
    )


@needs_compiler
def test_a_check_finds_a_binary_that_crashes(machine: Machine) -> None:
    content = bytearray(machine.native())
    code = slice(4_096, content.index(native_binary.MAGIC))  # behind the ELF headers
    content[code] = bytes(code.stop - code.start)
    machine.hook.write_bytes(content)
    failed = machine.failed()
    [text] = [text for text in failed if "the hook ended with -" in text]
    assert failed[text] == "install the hook again, on this machine"


def test_a_check_shows_a_message_of_any_bytes(machine: Machine) -> None:
    damaged = program(machine.directory / "bin" / "hook", "printf '\\377' >&2; exit 3")
    for spool in (machine.spool, machine.fallback):
        spool.make(os.geteuid(), os.getegid())
    results = hook_call.check(damaged, machine.spool, machine.fallback, drains=False)
    assert results[-1].text == r"the hook ended with 3: '\\xff'"
    assert results[-1].remedy == "this line has the reason"


@needs_compiler
@pytest.mark.parametrize(
    ("damage", "problem"), [("mode", "mode 775"), ("spool", "No such file")]
)
def test_a_check_finds_wrong_rights_and_a_missing_spool(
    machine: Machine, damage: str, problem: str
) -> None:
    machine.native()
    if damage == "mode":
        machine.hook.chmod(0o775)
    else:
        shutil.rmtree(machine.spool.root)
    failed = machine.failed()
    assert problem in "\n".join(failed)
    assert all(failed.values())


def test_the_package_s_binary_is_named_after_the_machine() -> None:
    assert native_build.PACKAGED.name == f"native-{platform.machine()}"
