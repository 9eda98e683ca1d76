"""Write the hook as one file, and return FastNetMon's settings for it."""

import ast
import re
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from fnm_bus import atomic_file
from fnm_bus.errors import ConfigError, SpoolError
from fnm_bus.hook import python_hook

_FIRST: Final = "# -- settings, filled in by `fnm-bus hook install` --\n"
_LAST: Final = "# -- end of the settings --\n"
_SHEBANG: Final = 127
"""Bytes of the first line that every kernel since Linux 2.0 reads (execve(2))."""


def best_python() -> Path:
    """Return the best Python for a hook: the system's, else this process's.

    The system's Python survives the removal of a virtual environment, and all users
    can start it. FastNetMon may have no access to a person's home directory.
    """
    system = Path("/usr/bin/python3")
    return system if system.exists() else Path(sys.executable).resolve()


def drain_command(timeout: float, config: Path | None) -> list[str]:
    """Return the command by which a hook drains the spool where no relay runs.

    Args:
        timeout: seconds that it may take; FastNetMon's call waits for it.
        config: the configuration file, or None for the default. The command has an
            empty environment, except for the hook's spools and lock.
    """
    command = [sys.executable, "-I", "-m", "fnm_bus", "drain"]
    command += ["--timeout", str(timeout)]
    return [*command, "--config", str(config.resolve())] if config else command


def settings(
    spool: Path, fallback: Path, drain: Sequence[str] = ()
) -> dict[str, object]:
    """Return the settings of a hook, by name; limits are those of `python_hook`.

    Args:
        spool: the spool's directory.
        fallback: the fallback spool's directory, on another file system.
        drain: command that drains the spool if no relay runs; () for no command.
    """
    return {
        "SPOOL": str(spool),
        "FALLBACK": str(fallback),
        "DRAIN": tuple(drain),
        "RESERVE_BYTES": python_hook.RESERVE_BYTES,
        "RESERVE_INODES": python_hook.RESERVE_INODES,
        "FALLBACK_FILES": python_hook.FALLBACK_FILES,
        "FALLBACK_BYTES": python_hook.FALLBACK_BYTES,
    }


def source(interpreter: Path, values: Mapping[str, object]) -> str:
    """Return the hook's whole text.

    Args:
        interpreter: absolute path of a Python, 3.9 or newer, without any package.
        values: see `settings`.

    Raises:
        ConfigError: the path does not fit into a first line, or a path is not absolute.
    """
    faults = [
        f"{name.lower()}: {value} is not an absolute path"
        for name, value in {**values, "PYTHON": interpreter}.items()
        if name in {"SPOOL", "FALLBACK", "PYTHON"} and not str(value).startswith("/")
    ]
    first = f"#!{interpreter} -IS"
    if re.search(r"\s", str(interpreter)) or len(first.encode()) > _SHEBANG:
        faults.append(
            f"python: {interpreter}: a script's first line has room for a path without"
            f" blanks, {_SHEBANG} bytes in all; choose one such as /usr/bin/python3"
        )
    if faults:
        raise ConfigError("\n".join(faults))
    text = f"{first}\n{Path(python_hook.__file__).read_text(encoding='utf-8')}"
    lines = [f"{name} = {value!r}\n" for name, value in values.items()]
    head, rest = text.split(_FIRST)
    tail = rest.split(_LAST)[1]
    return f"{head}{_FIRST}{''.join(lines)}{_LAST}{tail}"


def read_settings(text: str) -> tuple[str, dict[str, object]]:
    """Return the path of the interpreter and the settings in a hook's text.

    Raises:
        ConfigError: the text is not an unchanged hook.
    """
    match = re.match(r"#!(\S+) -IS\n", text)
    if match is None or _FIRST not in text or _LAST not in text:
        raise ConfigError("is not an fnm-bus hook")
    lines = text[text.index(_FIRST) + len(_FIRST) : text.index(_LAST)].splitlines()
    try:
        values = {
            name: ast.literal_eval(value)
            for name, value in (line.split(" = ", 1) for line in lines)
        }
    except (ValueError, SyntaxError) as exc:
        raise ConfigError(f"the settings of this hook were changed: {exc}") from exc
    return match[1], values


def install(
    path: Path,
    spool: Path,
    fallback: Path,
    python: Path,
    drain: Sequence[str] = (),
) -> str:
    """Write the hook to *path* atomically; return FastNetMon's settings for it.

    Running calls continue with the old file.

    Args:
        path: absolute; FastNetMon needs a path without arguments and blanks.
        spool: see `settings`.
        fallback: see `settings`.
        python: the interpreter; see `source`.
        drain: see `settings`.

    Raises:
        ConfigError: a path cannot be used.
        SpoolError: the file cannot be written.
    """
    check_path(path)
    text = source(python, settings(spool, fallback, drain))
    try:
        atomic_file.replace(path, text.encode(), mode=0o755)
    except OSError as exc:
        raise SpoolError(f"{path}: {exc}") from exc
    return instructions(path)


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
        if status.st_size and _FIRST.encode() not in path.read_bytes():
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
