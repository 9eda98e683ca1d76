"""Options and output that all commands share."""

import inspect
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from fnm_bus.config.spool_paths import PREFIX
from fnm_bus.errors import ConfigError, FnmBusError, TopicRefused
from fnm_bus.ops.terminal import SafeStream, json_line, visible, visible_lines

if TYPE_CHECKING:
    from fnm_bus.config.settings import Settings

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Configuration file. Else FNM_BUS_CONFIG, else /etc/fnm-bus/fnm-bus.toml.",
    ),
]


def _set_log_format(value: str | None) -> str | None:
    """Override [log] format, for child processes too: they inherit the environment."""
    if value is not None:
        os.environ[f"{PREFIX}LOG__FORMAT"] = value
    return value


LogFormat = Annotated[
    Literal["console", "json"] | None,
    typer.Option(
        "--log-format",
        callback=_set_log_format,
        help="Form of log lines on stderr. Else [log] format.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def settings(file: Path | None) -> "Settings":
    """Return the settings, and configure logging.

    Raises:
        ConfigError: lists all problems of the configuration.
    """
    from fnm_bus.config import load
    from fnm_bus.ops import log

    loaded = load.load(file).settings
    log.configure(loaded.log.level, loaded.log.format)
    return loaded


# All output goes through the next functions, so that control characters in documents,
# records and commands never reach a terminal (`fnm_bus.ops.terminal`).


def out(text: str, word: str = "", color: str = "") -> None:
    """Print one line of data.

    Args:
        text: the line.
        word: on a terminal, its first occurrence is coloured.
        color: the colour, or "".
    """
    line = visible(text)
    if color and colored():
        line = line.replace(word, typer.style(word, fg=color), 1)
    typer.echo(line)


def out_raw(data: bytes) -> None:
    """Print bytes: unchanged to a pipe or a file, with escapes to a terminal."""
    if sys.stdout.isatty():
        typer.echo(visible_lines(data.decode("utf-8", "backslashreplace")), nl=False)
    else:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def dump(value: Any) -> None:
    """Print one JSON value on one line."""
    typer.echo(json_line(value))


def print_note(line: str) -> None:
    """Print one line for people on stderr; stdout is for data."""
    typer.echo(visible(line), err=True)


def print_progress(text: str) -> None:
    """Replace the progress line on a terminal; "" clears it."""
    if sys.stderr.isatty():
        typer.echo(f"\r\x1b[K{visible(text)}", file=sys.__stderr__, nl=False)


def print_error(line: str) -> None:
    """Print one error on stderr."""
    print_note(f"fnm-bus: {line}")


def print_errors(error: FnmBusError) -> None:
    """Print an error on stderr, one line for each problem that it lists."""
    has_list = isinstance(error, ConfigError | TopicRefused)
    for line in str(error).split("\n") if has_list else [str(error)]:
        print_error(line)


def run(app: typer.Typer) -> None:
    """Run the command line; print errors without a traceback."""
    sys.stderr = SafeStream(sys.stderr)
    try:
        app()
    except FnmBusError as exc:
        print_errors(exc)
        sys.exit(exc.exit_code)


def keep_examples(commands: typer.Typer) -> None:
    """Keep the line breaks of the examples in the help."""
    for command in commands.registered_commands:
        documentation = inspect.getdoc(command.callback) or ""
        text, head, examples = documentation.partition("Example")
        lines = [line for line in (head + examples).splitlines() if line]
        # Click leaves a paragraph unchanged after a backspace.
        command.help = text + "\n".join(["\b", *lines] if lines else [])
    for group in commands.registered_groups:
        if group.typer_instance is not None:
            keep_examples(group.typer_instance)


def end(code: int) -> NoReturn:
    """Exit the command with a status."""
    raise typer.Exit(code)


def colored() -> bool:
    """Return whether to use colours: on a terminal, unless NO_COLOR is set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
