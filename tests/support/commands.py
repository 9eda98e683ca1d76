"""Whether a command line, as a document or a service has it, exists."""

import re
import shlex
from typing import Any

from typer.main import get_command

from consumers.__main__ import app as consumers
from fnm_bus.cli import app as fnm_bus

PROGRAMS: dict[str, Any] = {
    "fnm-bus": get_command(fnm_bus),
    "fnm-bus-consumer": get_command(consumers),
}
PROGRAMS["fnm-bus"].list_commands(None)  # adds those of installed packages


def fault_of(line: str) -> str | None:
    """Return what is wrong with a command line, or None.

    Args:
        line: begins with a program of PROGRAMS. What follows a pipe, a redirection or
            a comment is not looked at, nor is what follows a NAME for a command.
    """
    program, *words = shlex.split(re.split(r" [|<>#&\\]|;", line)[0])
    command = PROGRAMS[program]
    for word in words:
        option = word.partition("=")[0]
        if hasattr(command, "commands") and not word.startswith("-"):
            if word.isupper():
                return None
            if word not in command.commands:
                return f"{line}: no command {word}"
            command = command.commands[word]
        elif option.startswith("-") and option not in options(command):
            return f"{line}: no option {option}"
    if hasattr(command, "commands") and words[-1:] != ["--help"]:
        return f"{line}: a further command is missing"
    return None


def options(command: Any) -> set[str]:
    """Return the options of a command, with the one that all have."""
    names = (parameter.opts + parameter.secondary_opts for parameter in command.params)
    return {"--help", *(name for word in names for name in word)}
