"""Every command has a help text with correct examples."""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from fnm_bus.cli import app

ROOT: Any = get_command(app)
ROOT.list_commands(None)  # adds those of installed packages to ROOT.commands
"""Typer brings pydantic along by itself."""


def paths(command: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield above
    for name, below in getattr(command, "commands", {}).items():
        yield from paths(below, (*above, name))


def command_at(path: tuple[str, ...]) -> Any:
    command = ROOT
    for name in path:
        command = command.commands[name]
    return command


ALL = list(paths(ROOT))
LEAVES = [path for path in ALL if not hasattr(command_at(path), "commands")]


def helped(path: tuple[str, ...]) -> str:
    done = CliRunner().invoke(app, [*path, "--help"])
    assert done.exit_code == 0
    return done.stdout


def examples(path: tuple[str, ...]) -> list[list[str]]:
    """Return the examples in a command's help, as words after `fnm-bus`."""
    lines = [line.strip() for line in helped(path).splitlines()]
    lines = [line.replace("fnm-bus-consumer ", "fnm-bus consumer ") for line in lines]
    return [shlex.split(line)[1:] for line in lines if line.startswith("fnm-bus ")]


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_and_option_has_a_help_text(path: tuple[str, ...]) -> None:
    command = command_at(path)
    assert command.help
    for parameter in command.params:
        assert parameter.help, parameter.name
        assert parameter.help.endswith("."), parameter.name


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_has_an_example_of_itself(path: tuple[str, ...]) -> None:
    lines = examples(path)
    assert any(tuple(words[: len(path)]) == path for words in lines)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_the_options_in_examples_exist(path: tuple[str, ...]) -> None:
    for words in examples(path):
        own = words[len(path) :]
        own = own[: own.index("|")] if "|" in own else own
        options = {name for option in command_at(path).params for name in option.opts}
        assert {word for word in own if word.startswith("-")} <= options


def test_a_shell_completes_the_names_of_commands() -> None:
    done = CliRunner().invoke(
        app,
        [],
        prog_name="fnm-bus",
        env={
            "_FNM_BUS_COMPLETE": "complete_bash",
            "COMP_WORDS": "fnm-bus top",
            "COMP_CWORD": "1",
        },
    )
    assert done.stdout.split() == ["topics"]
