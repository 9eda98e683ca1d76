"""A hook as FastNetMon starts it, in front of two spools."""

import os
import subprocess
import sys
from pathlib import Path

from fnm_bus.setup import install_hook
from fnm_bus.spool.spool import Entry, Spool

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

    def __call__(
        self, document: bytes = SAMPLE, *arguments: str, **options: object
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

    def temporary(self) -> list[Path]:
        return list((self.spool.root / "incoming/tmp").iterdir())


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
