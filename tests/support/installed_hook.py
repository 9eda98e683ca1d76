"""A hook as FastNetMon starts it, in front of two spools."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from fnm_bus.hook import python_hook
from fnm_bus.setup import install_hook
from fnm_bus.spool.spool import Entry, Spool
from support.fetch import Unavailable

SAMPLE = b'{"action":"ban","alert_scope":"host","ip":"192.0.2.1"}\n'
STATUS = b'{"action":"attack_status","alert_scope":"host","ip":"192.0.2.1"}\n'
NOBODY = 65_534
CALL: dict[str, object] = {
    "stdout": subprocess.PIPE,
    "stderr": subprocess.PIPE,
    "timeout": 60,
    "env": {},
    "cwd": "/",
}
"""How a hook is called unless a test wants something else."""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do that")
all_builds = pytest.mark.parametrize(
    "hook", ["python", "gcc", "musl", "sanitized"], indirect=True
)
"""Run a test with sanitizers as well."""
SOURCE: Final = Path(python_hook.__file__).with_name("hook.c")
MAGIC: Final = b"fnm-bus native hook 1\0"
"""First string of the native hook's settings."""
SETTINGS_SIZE: Final = 4096
STRICT: Final = (
    *("-std=c11", "-Wall", "-Wextra", "-Werror", "-O2"),
    *("-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"),
)
SANITIZERS: Final = "-fsanitize=address,undefined -fno-sanitize-recover=all"
BUILDS: Final = {
    "gcc": ("gcc", *STRICT),
    "clang": ("clang", *STRICT),
    "musl": ("musl-gcc", *STRICT, "-static"),
    "tcc": ("tcc", "-std=c11", "-Wall", "-Werror"),
    "sanitized": ("gcc", "-std=c11", "-g", "-O1", *SANITIZERS.split()),
}
"""Compilers of the native hook, with their options."""


def build_native(command: Sequence[str], target: Path) -> Path:
    """Compile the native hook; return the program.

    Raises:
        Unavailable: the compiler is not installed.
    """
    if shutil.which(command[0]) is None:
        raise Unavailable(f"{command[0]} is not installed")
    subprocess.run([*command, "-o", target, SOURCE], check=True)
    return target


class InstalledHook:
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
        return install_hook.install(
            self.path, self.spool.root, self.fallback.root, python, drain
        )

    def use(self, python: str) -> None:
        """Let another Python run it."""
        text = self.path.read_text().split("\n", 1)[1]
        self.path.write_text(f"#!{python} -IS\n{text}")

    def change(self, **values: object) -> None:
        """Change settings of the installed hook."""
        text = self.path.read_text()
        for name, value in values.items():
            line = f"{name} = {value!r}"
            text, count = re.subn(rf"^{name} = .*$", line, text, flags=re.MULTILINE)
            assert count == 1, name
        self.path.write_text(text)

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [self.path, *arguments], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0
        )

    def __call__(
        self, document: bytes = SAMPLE, *arguments: str | bytes, **options: object
    ) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [self.path, *arguments],
            input=document,
            check=False,
            **{**CALL, **options},  # type: ignore[call-overload]
        )

    def entries(self, spool: Spool | None = None) -> list[Entry]:
        spool = spool or self.spool
        return [spool.read(name) for name in spool.scan()]

    def documents(self, spool: Spool | None = None) -> list[bytes]:
        return [entry.document for entry in self.entries(spool)]

    def raw_entries(self, spool: Spool | None = None) -> list[bytes]:
        spool = spool or self.spool
        return [spool.path(name).read_bytes() for name in spool.scan()]

    def move_spools(self, spool: Path, fallback: Path | None = None) -> None:
        """Install the hook again, with spools in other directories."""
        self.spool = Spool(spool)
        self.fallback = Spool(fallback) if fallback else self.fallback
        for moved in (self.spool, self.fallback):
            moved.make(os.geteuid(), os.getegid())
        self.install()
        self.change(RESERVE_BYTES=0, RESERVE_INODES=0)

    def temporary(self) -> list[Path]:
        roots = (self.spool.root, self.fallback.root)
        return [path for root in roots for path in root.glob("incoming/tmp/*")]


class NativeHook(InstalledHook):
    """The native hook in front of two spools.

    Args:
        directory: a directory for all of it.
        program: the compiled hook.
    """

    def __init__(self, directory: Path, program: Path) -> None:
        self._program = program.read_bytes()
        self.settings: dict[str, object] = {}
        super().__init__(directory)

    def install(self, drain: tuple[str, ...] = ()) -> str:
        assert not drain, "the native hook never drains"
        self.settings = install_hook.settings(self.spool.root, self.fallback.root)
        del self.settings["DRAIN"]
        self.change()
        return ""

    def change(self, **values: object) -> None:
        assert self.settings.keys() >= values.keys()
        self.settings.update(values)
        self.write_block(self.block())

    def block(self) -> bytes:
        """Return the bytes of the settings."""
        lines = [f"{name}={value}" for name, value in self.settings.items()]
        return MAGIC + b"".join(os.fsencode(line) + b"\0" for line in lines)

    def write_block(self, block: bytes) -> None:
        """Install the program with the bytes of its settings."""
        assert self._program.count(MAGIC) == 1
        start = self._program.index(MAGIC)
        block = block.ljust(SETTINGS_SIZE, b"\0")
        assert len(block) == SETTINGS_SIZE
        rest = self._program[start + SETTINGS_SIZE :]
        self.path.write_bytes(self._program[:start] + block + rest)
        self.path.chmod(0o755)


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
        "environment": sorted(os.environ),
        "spools": [
            os.environ.get(f"FNM_BUS_SPOOL__{key}") for key in ("DIRECTORY", "FALLBACK")
        ],
        "descriptors": sorted(
            int(it)
            for it in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{it}")
        ),
        "session": os.getsid(0) == os.getpid(),
    },
    open(sys.argv[1] + ".new", "w"),
)
os.rename(sys.argv[1] + ".new", sys.argv[1])
print("this must not be seen")
sys.exit(int(sys.argv[2]))
"""


def drains(installed: InstalledHook, status: int = 0) -> Path:
    """Let it start a drain that tells what it was given, in a file; return its path."""
    told = installed.directory / "told"
    installed.install((sys.executable, "-IS", "-c", DRAINED, str(told), str(status)))
    return told


def as_user(uid: int, gid: int) -> dict[str, object]:
    """Return the options of `subprocess` for a user of one group."""
    return {"user": uid, "group": gid, "extra_groups": []}
