"""Every command explains itself, quickly and with examples that are right."""

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
LEAVES = [it for it in ALL if not hasattr(command_at(it), "commands")]


def helped(path: tuple[str, ...]) -> str:
    done = CliRunner().invoke(app, [*path, "--help"])
    assert done.exit_code == 0
    return done.stdout


def examples(path: tuple[str, ...]) -> list[list[str]]:
    """Return the examples in a command's help, as words after `fnm-bus`."""
    lines = [line.strip() for line in helped(path).splitlines()]
    lines = [line.replace("fnm-bus-consumer ", "fnm-bus consumer ") for line in lines]
    return [shlex.split(it)[1:] for it in lines if it.startswith("fnm-bus ")]


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_and_option_says_what_it_is_for(path: tuple[str, ...]) -> None:
    command = command_at(path)
    assert command.help
    for parameter in command.params:
        assert parameter.help, parameter.name
        assert parameter.help.endswith("."), parameter.name


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_has_an_example_of_itself(path: tuple[str, ...]) -> None:
    found = examples(path)
    assert any(tuple(words[: len(path)]) == path for words in found)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_the_options_in_examples_are_there(path: tuple[str, ...]) -> None:
    for words in examples(path):
        own = words[len(path) :]
        own = own[: own.index("|")] if "|" in own else own
        known = {opt for it in command_at(path).params for opt in it.opts}
        assert {it for it in own if it.startswith("-")} <= known


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
