"""A wheel for one kind of machine has a static native hook, which works there."""

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.installed_hook import SAMPLE, STATUS

from fnm_bus.hook import python_hook
from fnm_bus.setup import native_binary
from fnm_bus.setup.hook_settings import settings
from fnm_bus.spool.limits import AdmissionLevel
from fnm_bus.spool.spool import Spool

ROOT = Path(__file__).parents[3]
CROSS, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"
Build = Callable[[str], "subprocess.CompletedProcess[str]"]


def installed(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """A function that builds a wheel in the test's directory by a compiler."""

    def run(compiler: str) -> "subprocess.CompletedProcess[str]":
        hatch = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
        return subprocess.run(
            [*hatch, "-d", tmp_path],
            cwd=ROOT,
            env={**os.environ, "FNM_BUS_HOOK_CC": compiler},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def wheel_of(tmp_path: Path, machine: str) -> Path:
    [wheel] = tmp_path.glob("*.whl")
    tag = f"py3-none-manylinux_2_17_{machine}.musllinux_1_1_{machine}"
    assert wheel.name.endswith(f"-{tag}.whl")
    return wheel


def test_a_machine_with_the_wheel_needs_no_compiler(
    tmp_path: Path, build: Build
) -> None:
    compiler = installed("musl-gcc")
    assert build(compiler).returncode == 0
    wheel = wheel_of(tmp_path, platform.machine())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "packages")
        assert "fnm_bus/hook/hook.c" in archive.namelist()
    hook = tmp_path / "hook"
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "fnm_bus", "hook", "install", "--native"),
            *(hook, "--spool", tmp_path / "spool", "--fallback", tmp_path / "second"),
        ],
        env={"PATH": "/nowhere", "PYTHONPATH": str(tmp_path / "packages")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    subprocess.run([hook], input=SAMPLE, check=True, env={})
    assert len(Spool(tmp_path / "spool").scan()) == 1


def test_a_wheel_for_any_machine_has_the_source_only(
    tmp_path: Path, build: Build
) -> None:
    assert build("").returncode == 0
    [wheel] = tmp_path.glob("*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        files = archive.namelist()
    assert "fnm_bus/hook/hook.c" in files
    assert [name for name in files if "/native-" in name] == []


IGNORES_STATIC = """#!/bin/sh
while [ "$1" != -o ]; do shift; done
cp /bin/sh "$2"
"""


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("#!/bin/sh\n", "No such file"),
        ("#!/bin/sh\necho unknown option >&2\nexit 1\n", "unknown option"),
        (IGNORES_STATIC, "not static"),
    ],
)
def test_a_wheel_without_a_static_binary_is_not_built(
    tmp_path: Path, build: Build, script: str, problem: str
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(script)
    compiler.chmod(0o755)
    done = build(str(compiler))
    assert done.returncode != 0
    assert problem in done.stderr
    assert list(tmp_path.glob("*.whl")) == []


# -- the other kind of machine --------------------------------------------------------


class Emulated:
    """The hook of aarch64's wheel, started by an emulator."""

    def __init__(self, directory: Path, binary: bytes) -> None:
        self.spool, self.fallback = (Spool(directory / name) for name in ("one", "two"))
        for spool in (self.spool, self.fallback):
            spool.make(os.geteuid(), os.getegid())
        self.hook = directory / "hook"
        values = settings(self.spool.root, self.fallback.root)
        self.hook.write_bytes(native_binary.fill(binary, values, b""))
        self.hook.chmod(0o755)

    def __call__(
        self, document: bytes, *arguments: str | bytes
    ) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [installed(EMULATOR), self.hook, *arguments],
            input=document,
            capture_output=True,
            env={},
            timeout=60,
            check=False,
        )

    def stored(self, spool: Spool) -> list[bytes]:
        return [spool.path(name).read_bytes() for name in spool.scan()]


@pytest.fixture
def emulated(tmp_path: Path, build: Build) -> Emulated:
    installed(EMULATOR)
    done = build(installed(CROSS))
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(wheel_of(tmp_path, "aarch64")) as archive:
        return Emulated(tmp_path, archive.read("fnm_bus/hook/native-aarch64"))


def test_aarch64_stores_each_notification_to_the_byte(emulated: Emulated) -> None:
    large = SAMPLE + bytes(range(256)) * 8_000
    for document in (b"", b"\0\xff\n\n", SAMPLE, STATUS, large):
        done = emulated(document, "ban", b"\xff\xfe", "", "é")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        [data] = emulated.stored(emulated.spool)
        arguments = ("ban", "\udcff\udcfe", "", "é")
        assert data == python_hook.encode_entry(arguments, document)
        emulated.spool.remove(emulated.spool.scan()[0])


def test_aarch64_respects_the_limits_of_the_spool(emulated: Emulated) -> None:
    emulated.spool.refuse(AdmissionLevel.STATUS)
    assert emulated(SAMPLE).returncode == 0
    done = emulated(STATUS)
    assert done.returncode == 75
    assert str(emulated.fallback.root) in done.stderr.decode()
    emulated.spool.refuse(AdmissionLevel.ALL)
    assert emulated(SAMPLE).returncode == 75
    assert len(emulated.stored(emulated.spool)) == 1
    assert len(emulated.stored(emulated.fallback)) == 2


def test_aarch64_reports_a_loss(emulated: Emulated) -> None:
    for spool in (emulated.spool, emulated.fallback):
        shutil.rmtree(spool.root)
    done = emulated(SAMPLE)
    assert done.returncode == 75
    assert b"lost" in done.stderr
