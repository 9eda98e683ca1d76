"""What commands have in common: options, and how they speak."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from fnm_bus.settings import Settings

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Configuration file. Else FNM_BUS_CONFIG, else /etc/fnm-bus/fnm-bus.toml.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def settings(file: Path | None) -> "Settings":
    """Return the settings; from here on logging is as they say.

    Raises:
        ConfigError: they are wrong.
    """
    from fnm_bus import config, log

    loaded = config.load(file).settings
    log.configure(loaded.log.level, loaded.log.format)
    return loaded


def plain(text: str) -> str:
    """Return *text* without what steers a terminal or begins a new line."""
    return "".join(
        it if it.isprintable() else "\N{REPLACEMENT CHARACTER}" for it in text
    )


def say(text: str) -> None:
    """Say something to a person; stdout is for data."""
    typer.echo("\n".join(map(plain, text.split("\n"))), err=True)


def complain(text: str) -> None:
    """Say what is wrong, a line for each thing."""
    for line in text.splitlines():
        say(f"fnm-bus: {line}")


def dump(value: Any) -> None:
    """Print one JSON value on one line."""
    typer.echo(json.dumps(value, ensure_ascii=False, default=str))


def end(code: int) -> NoReturn:
    """End the command with an exit status."""
    raise typer.Exit(code)


def colored() -> bool:
    """Return whether to use colours: on a terminal, unless NO_COLOR is set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
