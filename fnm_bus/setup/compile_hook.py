"""Compile the native hook; `packaging` builds the wheels with this file, too."""

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fnm_bus.errors import ConfigError

SOURCE: Final = Path(__file__).parents[1] / "hook" / "hook.c"
_FLAGS: Final = (
    *("-std=c11", "-O2", "-s"),
    *("-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"),
)
_COMPILERS: Final = ("musl-gcc", "cc", "gcc", "clang", "tcc")
_TIMEOUT: Final = 600.0
"""Seconds for the compiler; zig compiles its C library at the first use."""
_MAX_ERROR: Final = 500


def commands() -> list[list[str]]:
    """Return the commands that may compile the hook on this machine, the best first.

    The variable `CC` of the environment names the only compiler, if it is set. musl's
    binary is the smallest and starts fastest. A static binary needs no library at the
    moment of a call, so each compiler is first asked for one.
    """
    chosen = shlex.split(os.environ.get("CC", ""))
    installed = [[name] for name in _COMPILERS if shutil.which(name)]
    return [
        [*compiler, *link]
        for compiler in ([chosen] if chosen else installed)
        for link in (["-static"], [])
    ]


def compile_hook(command: Sequence[str]) -> bytes:
    """Return the hook's binary.

    Args:
        command: the compiler with options of its own.

    Raises:
        ConfigError: the compiler is missing, or fails; the text has its first lines.
    """
    with tempfile.TemporaryDirectory(prefix="fnm-bus-") as directory:
        binary = Path(directory, "hook")
        try:
            done = subprocess.run(  # noqa: S603 - the compiler of the user's choice
                [*command, *_FLAGS, "-o", binary, SOURCE],
                check=False,
                timeout=_TIMEOUT,
                stdin=subprocess.DEVNULL,
                capture_output=True,
            )
            if not done.returncode:
                return binary.read_bytes()
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise ConfigError(f"{shlex.join(command)}: {exc}") from exc
    text = done.stderr.decode("utf-8", "replace").strip()[:_MAX_ERROR]
    raise ConfigError(f"{shlex.join(command)}: {text}")
