"""Write the hook as one file that FastNetMon can start, and say how to use it."""

import ast
import re
import shlex
import shutil
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
"""Bytes of a first line that every kernel since Linux 2.0 reads (execve(2))."""
SHELL: Final = Path("/bin/sh")
"""Named as the interpreter, it means `shell_hook.sh`; as busybox does."""
_SHELL_TEXT: Final = Path(python_hook.__file__).with_name("shell_hook.sh")
_SHELL_SETTINGS: Final = ("SPOOL", "FALLBACK", "FALLBACK_FILES", "FALLBACK_BYTES")
_SHELL_NUMBERS: Final = ("FALLBACK_FILES", "FALLBACK_BYTES")


def best_python() -> Path:
    """Return the Python that a hook had best use: the system's, else this one's.

    The system's does not go away with a virtual environment, and all users may start
    it; FastNetMon may not be able to look into somebody's home directory.
    """
    system = Path("/usr/bin/python3")
    return system if system.exists() else Path(sys.executable).resolve()


def busybox() -> Path:
    """Return where busybox is.

    Raises:
        ConfigError: it is not on this machine.
    """
    found = shutil.which("busybox", path="/usr/bin:/bin")
    if found is None:
        raise ConfigError("busybox: is neither in /usr/bin nor in /bin; install it")
    return Path(found)


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


def speaks_shell(interpreter: Path) -> bool:
    """Return whether this interpreter means the hook in shell."""
    return interpreter == SHELL or interpreter.name == "busybox"


def _first_line(interpreter: Path) -> str:
    if interpreter == SHELL:
        return f"#!{interpreter}"
    return f"#!{interpreter} {'sh' if speaks_shell(interpreter) else '-IS'}"


def settings(
    spool: Path, fallback: Path, drain: Sequence[str] = ()
) -> dict[str, object]:
    """Return the settings of a hook, by name; limits are those of `python_hook`.

    Args:
        spool: the spool's directory.
        fallback: the fallback spool's, on another file system.
        drain: command that drains the spool where no relay does; () for none.
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
        interpreter: absolute path of a Python, 3.9 or newer, without any package; or
            `SHELL`; or busybox', whose shell starts no program for what it has itself.
        values: see `settings`.

    Raises:
        ConfigError: a first line cannot hold this path, a path is not absolute, or a
            hook in shell is to drain.
    """
    faults = [
        f"{name.lower()}: {value} is no absolute path"
        for name, value in {**values, "PYTHON": interpreter}.items()
        if name in {"SPOOL", "FALLBACK", "PYTHON"} and not str(value).startswith("/")
    ]
    first = _first_line(interpreter)
    if re.search(r"\s", str(interpreter)) or len(first.encode()) > _SHEBANG:
        faults.append(
            f"python: {interpreter}: the first line of a script holds no blanks in a"
            f" path, and {_SHEBANG} bytes; choose another, such as /usr/bin/python3"
        )
    if speaks_shell(interpreter) and values["DRAIN"]:
        faults.append("drain: the hook in shell never drains")
    if faults:
        raise ConfigError("\n".join(faults))
    if speaks_shell(interpreter):
        text = _SHELL_TEXT.read_text(encoding="utf-8")
        text = f"{first}\n{text.partition(chr(10))[2]}"
        lines = [f"{name}={_quoted(name, values[name])}\n" for name in _SHELL_SETTINGS]
    else:
        text = f"{first}\n{Path(python_hook.__file__).read_text(encoding='utf-8')}"
        lines = [f"{name} = {value!r}\n" for name, value in values.items()]
    head, rest = text.split(_FIRST)
    tail = rest.split(_LAST)[1]
    return f"{head}{_FIRST}{''.join(lines)}{_LAST}{tail}"


def _quoted(name: str, value: object) -> str:
    text = str(value)
    if not text.isprintable():
        raise ConfigError(
            f"{name.lower()}: {text!r} has characters that cannot be seen"
        )
    return shlex.quote(text)


def read_settings(text: str) -> tuple[str, dict[str, object]]:
    """Return the path of the interpreter and the settings in a hook's text.

    Raises:
        ConfigError: it is not the text of a hook.
    """
    match = re.match(rf"#!(?=({SHELL}\n|\S+/busybox sh\n)|\S+ -IS\n)(\S+)", text)
    if match is None or _FIRST not in text or _LAST not in text:
        raise ConfigError("this is no hook of fnm-bus")
    lines = text[text.index(_FIRST) + len(_FIRST) : text.index(_LAST)].splitlines()
    read = _read_shell if match[1] else _read_python
    try:
        return match[2], read(lines)
    except (KeyError, ValueError, SyntaxError) as exc:
        raise ConfigError(f"the settings of this hook were changed: {exc}") from exc


def _read_python(lines: Sequence[str]) -> dict[str, object]:
    return {
        name: ast.literal_eval(value)
        for name, value in (line.split(" = ", 1) for line in lines)
    }


def _read_shell(lines: Sequence[str]) -> dict[str, object]:
    words = [shlex.split(line) for line in lines]
    found = dict(word.split("=", 1) for (word,) in words)
    numbers = {name: int(found[name]) for name in _SHELL_NUMBERS}
    values = settings(Path(found["SPOOL"]), Path(found["FALLBACK"]))
    return {**values, **numbers}


def install(
    path: Path,
    spool: Path,
    fallback: Path,
    python: Path,
    drain: Sequence[str] = (),
) -> str:
    """Write the hook to *path*, in one step; return how to make FastNetMon use it.

    Calls that run meanwhile go on with the old file.

    Args:
        path: absolute; FastNetMon wants a path without arguments and blanks.
        spool: see `settings`.
        fallback: see `settings`.
        python: or `SHELL`; see `source`.
        drain: see `settings`.

    Raises:
        ConfigError: a path that cannot be used.
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
    """Check that a hook can be written to *path*: nothing is there, or a hook.

    Raises:
        ConfigError: FastNetMon cannot use the path, or it is somebody else's.
        SpoolError: what is there cannot be read.
    """
    if not path.is_absolute() or re.search(r"[^\w./+@:-]", str(path)):
        # Community hands it to a shell, unquoted.
        raise ConfigError(f"path: {path}: wanted an absolute path of plain characters")
    try:
        facts = path.lstat()
        if not stat.S_ISREG(facts.st_mode):
            raise ConfigError(f"path: {path}: is there, and no regular file")
        if facts.st_size and _FIRST.encode() not in path.read_bytes():
            raise ConfigError(
                f"path: {path}: is another program, which is not replaced;"
                " choose another path, or move it away"
            )
    except FileNotFoundError:
        return
    except OSError as exc:
        raise SpoolError(f"{path}: {exc}") from exc


def instructions(path: Path) -> str:
    """Return the settings of FastNetMon that make it use the hook at *path*.

    The names are those of FastNetMon's documentation of its notify scripts.
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
