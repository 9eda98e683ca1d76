"""Commands of installed packages in `fnm-bus`, declared as entry points.

A package declares each command in the group `fnm_bus.commands`: the entry point's name
is the command, its object a Typer application or a function.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command

from fnm_bus.cli.options import keep_examples
from fnm_bus.errors import CommandNotLoaded
from fnm_bus.ops.terminal import visible

GROUP: Final = "fnm_bus.commands"


class EntryPointGroup(TyperGroup):
    """A group with the commands of installed packages.

    Entry points are searched and imported only for the list of all commands, and for
    a name that is not a command of fnm_bus. So hook calls and services start without
    this cost. A later command never replaces an earlier one or one of fnm_bus.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands."""
        self._add_entry_points()
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of a name, or None."""
        if cmd_name not in self.commands:
            self._add_entry_points()
        return super().get_command(ctx, cmd_name)

    def _add_entry_points(self) -> None:
        points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
        for point in points:
            if point.name not in self.commands:
                self.commands[point.name] = _load(point)


def _load(point: EntryPoint) -> Any:
    """Return an entry point's command, or a command that reports the load error."""
    try:
        return _command(point.name, point.load())
    # A module may raise any exception; the other commands must still work.
    except (Exception, SystemExit) as exc:  # noqa: BLE001
        return _unavailable(point, visible(f"{type(exc).__name__}: {exc}"))


def _command(name: str, loaded: Any) -> Any:
    commands = _holder()
    if isinstance(loaded, typer.Typer):
        commands.add_typer(loaded, name=name)
    elif callable(loaded):
        commands.command(name)(loaded)
    else:
        raise TypeError("expected a Typer application or a function")
    keep_examples(commands)
    return _only(commands)


def _unavailable(point: EntryPoint, reason: str) -> Any:
    package = point.dist.name if point.dist else point.value
    commands = _holder()

    # Accepts all arguments, `--help` too, so that the reason is always shown.
    @commands.command(
        point.name,
        help=f"Unavailable: {reason}",
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
    def unavailable() -> None:
        raise CommandNotLoaded(
            f"the command {point.name} cannot be loaded from {point.value}: {reason};"
            f" reinstall the package {package}"
        )

    return _only(commands)


def _holder() -> typer.Typer:
    """Return an application for one command."""
    commands = typer.Typer(add_completion=False, rich_markup_mode=None)
    commands.callback()(lambda: None)  # else Typer makes the command the application
    return commands


def _only(commands: typer.Typer) -> Any:
    group: Any = get_command(commands)
    [command] = group.commands.values()
    return command
