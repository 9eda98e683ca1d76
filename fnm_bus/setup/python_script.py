"""The Python hook as one file: its source with a first line and the settings."""

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fnm_bus.errors import ConfigError
from fnm_bus.hook import python_hook

FIRST: Final = "# -- settings, filled in by `fnm-bus hook install` --\n"
_LAST: Final = "# -- end of the settings --\n"
_SHEBANG: Final = 127
"""Bytes of the first line that every kernel since Linux 2.0 reads (execve(2))."""


def source(interpreter: Path, values: Mapping[str, object]) -> str:
    """Return the hook's whole text.

    Args:
        interpreter: absolute path of a Python, 3.9 or newer, without any package.
        values: see `hook_settings.settings`.

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
    head, rest = text.split(FIRST)
    tail = rest.split(_LAST)[1]
    return f"{head}{FIRST}{''.join(lines)}{_LAST}{tail}"


def read_settings(text: str) -> tuple[str, dict[str, object]]:
    """Return the path of the interpreter and the settings in a hook's text.

    Raises:
        ConfigError: the text is not an unchanged hook.
    """
    match = re.match(r"#!(\S+) -IS\n", text)
    if match is None or FIRST not in text or _LAST not in text:
        raise ConfigError("is not an fnm-bus hook")
    lines = text[text.index(FIRST) + len(FIRST) : text.index(_LAST)].splitlines()
    try:
        values = {
            name: ast.literal_eval(value)
            for name, value in (line.split(" = ", 1) for line in lines)
        }
    except (ValueError, SyntaxError) as exc:
        raise ConfigError(f"the settings of this hook were changed: {exc}") from exc
    return match[1], values
