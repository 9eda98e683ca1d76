"""Write a hook as one file, and return FastNetMon's settings for it."""

import re
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from fnm_bus import atomic_file
from fnm_bus.errors import ConfigError, SpoolError
from fnm_bus.setup import (
    compile_hook,
    native_binary,
    native_build,
    python_script,
)
from fnm_bus.setup.hook_settings import settings


def best_python() -> Path:
    """Return the best Python for a hook: the system's, else this process's.

    The system's Python survives the removal of a virtual environment, and all users
    can start it. FastNetMon may have no access to a person's home directory.
    """
    system = Path("/usr/bin/python3")
    return system if system.exists() else Path(sys.executable).resolve()


def install(
    path: Path,
    spool: Path,
    fallback: Path,
    python: Path,
    drain: Sequence[str] = (),
) -> str:
    """Write the Python hook to *path* atomically; return FastNetMon's settings for it.

    Running calls continue with the old file.

    Args:
        path: absolute; FastNetMon needs a path without arguments and blanks.
        spool: see `hook_settings.settings`.
        fallback: see `hook_settings.settings`.
        python: the interpreter; see `python_script.source`.
        drain: see `hook_settings.settings`.

    Raises:
        ConfigError: a path cannot be used.
        SpoolError: the file cannot be written.
    """
    check_path(path)
    text = python_script.source(python, settings(spool, fallback, drain))
    _write(path, text.encode())
    return instructions(path)


def install_native(path: Path, spool: Path, fallback: Path) -> str:
    """Write the native hook to *path* atomically; return FastNetMon's settings for it.

    Args:
        path: see `install`.
        spool: see `hook_settings.settings`.
        fallback: see `hook_settings.settings`.

    Raises:
        ConfigError: a path cannot be used, or no binary works on this machine.
        SpoolError: the file cannot be written.
    """
    check_path(path)
    source = compile_hook.SOURCE.read_bytes()
    binary = native_build.working_binary()
    _write(path, native_binary.fill(binary, settings(spool, fallback), source))
    return instructions(path)


def _write(path: Path, content: bytes) -> None:
    try:
        atomic_file.replace(path, content, mode=0o755)
    except OSError as exc:
        raise SpoolError(f"{path}: {exc}") from exc


def is_native(path: Path) -> bool:
    """Return whether a native hook is installed at *path*."""
    return path.is_file() and native_binary.is_native(path.read_bytes())


def read_settings(content: bytes) -> dict[str, object]:
    """Return the settings in a hook of either kind.

    Raises:
        ConfigError: the content is not an unchanged hook.
    """
    if native_binary.is_native(content):
        return native_binary.read(content).settings
    return python_script.read_settings(content.decode("utf-8", "replace"))[1]


def check_path(path: Path) -> None:
    """Check that a hook can be written to *path*: it does not exist, or is a hook.

    Raises:
        ConfigError: FastNetMon cannot use the path, or another program is there.
        SpoolError: the existing file cannot be read.
    """
    if not path.is_absolute() or re.search(r"[^\w./+@:-]", str(path)):
        # FastNetMon Community passes the path to a shell without quotes.
        raise ConfigError(f"path: {path}: wanted an absolute path of plain characters")
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"path: {path}: exists and is not a regular file")
        content = path.read_bytes()
        if content and not (
            python_script.FIRST.encode() in content or native_binary.is_native(content)
        ):
            raise ConfigError(
                f"path: {path}: is another program, which would be lost;"
                " choose another path, or move it away"
            )
    except FileNotFoundError:
        return
    except OSError as exc:
        raise SpoolError(f"{path}: {exc}") from exc


def instructions(path: Path) -> str:
    """Return the settings of FastNetMon that make it use the hook at *path*.

    The names are from FastNetMon's documentation of notify scripts.
    """
    advanced = (
        "notify_script_enabled enable",
        f"notify_script_path {path}",
        "notify_script_format json",
        "notify_script_hostgroup_enabled enable",
        f"notify_script_hostgroup_path {path}",
        "notify_script_attack_status_updates enable",
        "ban_status_delay 20",
    )
    return "\n".join(
        [
            "# FastNetMon Advanced:",
            *(f"sudo fcli set main {line}" for line in advanced),
            "sudo fcli commit",
            "",
            "# FastNetMon Community, in /etc/fastnetmon.conf, then restart it:",
            f"notify_script_path = {path}",
            "",
        ]
    )
