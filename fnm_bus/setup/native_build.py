"""A binary of the native hook that works on this machine."""

import os
import platform
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from fnm_bus.errors import ConfigError
from fnm_bus.hook import python_hook
from fnm_bus.setup import compile_hook, native_binary
from fnm_bus.setup.hook_settings import settings
from fnm_bus.spool.spool import Spool

PACKAGED: Final = compile_hook.SOURCE.with_name(f"native-{platform.machine()}")
"""The binary in a wheel for one kind of machine; other wheels have the source only."""
_TIMEOUT: Final = 30.0
"""Seconds for the trial: disks can be slow."""
_ARGUMENTS: Final = ("ban", "192.0.2.1")
_DOCUMENT: Final = b'{"fnm-bus": "a trial of the installation"}\n'
_REMEDY: Final = (
    "install a C compiler (`apt-get install gcc libc6-dev`, `dnf install gcc"
    " glibc-devel`), or install the Python hook (`--python`), which needs none"
)


def working_binary() -> bytes:
    """Return a binary that stores notifications on this machine.

    The package's binary is the first choice, then those of the machine's compilers. The
    variable `CC` of the environment names the only choice, if it is set.

    Raises:
        ConfigError: no binary works; the text has the problem of each.
    """
    problems = []
    for attempt in _attempts():
        try:
            binary = attempt()
            _try_out(binary)
        except ConfigError as exc:
            problems.append(str(exc))
        else:
            return binary
    text = "\n".join(problems) or "no C compiler is installed"
    raise ConfigError(f"native hook: {text}\n{_REMEDY}")


def _attempts() -> Iterator[Callable[[], bytes]]:
    if PACKAGED.exists() and not os.environ.get("CC"):
        yield PACKAGED.read_bytes
    for command in compile_hook.commands():
        yield partial(compile_hook.compile_hook, command)


def _try_out(binary: bytes) -> None:
    """Store one notification in a temporary spool by *binary*, and compare the entry.

    Raises:
        ConfigError: the binary does not start, or does not store the notification.
    """
    with tempfile.TemporaryDirectory(prefix="fnm-bus-") as name:
        directory = Path(name)
        spool, fallback = Spool(directory / "spool"), Spool(directory / "fallback")
        for root in (spool, fallback):
            root.make(os.geteuid(), os.getegid())
        values = settings(spool.root, fallback.root)
        values |= {"RESERVE_BYTES": 0, "RESERVE_INODES": 0}
        program = directory / "hook"
        program.write_bytes(native_binary.fill(binary, values, b""))
        program.chmod(0o700)
        try:
            done = subprocess.run(  # noqa: S603 - the binary of the package or compiler
                [program, *_ARGUMENTS],
                input=_DOCUMENT,
                check=False,
                timeout=_TIMEOUT,
                capture_output=True,
                cwd="/",
                env={},
            )
        except PermissionError as exc:
            text = f"{name}: {exc.strerror}; set TMPDIR if its file system is noexec"
            raise ConfigError(text) from exc
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise ConfigError(f"the binary does not run here: {exc}") from exc
        stored = [spool.path(entry).read_bytes() for entry in spool.scan()]
        expected = [python_hook.encode_entry(_ARGUMENTS, _DOCUMENT)]
        if done.returncode or done.stdout or stored != expected:
            text = done.stderr.decode("utf-8", "replace").strip()
            raise ConfigError(
                f"the binary exits with {done.returncode} and stores"
                f" {len(stored)} entries: {text or 'no message'}"
            )
