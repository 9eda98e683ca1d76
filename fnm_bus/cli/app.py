"""All commands, put together."""

import inspect
from typing import Annotated

import typer

from fnm_bus import __version__
from fnm_bus.cli import (
    check,
    configuration,
    demo,
    hook,
    notify,
    parse,
    quarantine,
    relay,
    schemas,
    simulate,
    spool,
    tail,
    topics,
)
from fnm_bus.cli.options import out

app = typer.Typer(
    name="fnm-bus",
    help="Carry FastNetMon's attack events to Kafka, losing none.",
    epilog="Documentation: docs/operation.md. Exit status: 0 done, 2 usage, 65 invalid"
    " document, 69 Kafka or registry away, 75 not in the spool, 78 configuration.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(*, wanted: bool) -> None:
    if wanted:
        out(f"fnm-bus {__version__}")
        raise typer.Exit


@app.callback()
def fnm_bus(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=lambda value: _version(wanted=value),
            is_eager=True,
            help="Print the version.",
        ),
    ] = False,
) -> None:
    """Carry FastNetMon's attack events to Kafka, losing none."""


FOREIGN = {"allow_extra_args": True, "ignore_unknown_options": True}
"""For commands whose further arguments are FastNetMon's."""

app.command("notify", context_settings=FOREIGN)(notify.notify)
app.add_typer(hook.app, name="hook")
app.command("relay")(relay.relay)
app.command("parse", context_settings=FOREIGN)(parse.parse)
app.command("tail")(tail.tail)
app.add_typer(topics.app, name="topics")
app.add_typer(schemas.app, name="schemas")
app.add_typer(spool.app, name="spool")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(configuration.app, name="config")
app.command("check")(check.check)
app.command("simulate")(simulate.simulate)
app.command("demo")(demo.demo)


def _show_examples(commands: typer.Typer) -> None:
    """Keep the examples in the help as they are written, each on a line."""
    for command in commands.registered_commands:
        text, head, examples = (inspect.getdoc(command.callback) or "").partition(
            "Example"
        )
        lines = [line for line in (head + examples).splitlines() if line]
        # After a backspace a paragraph of the help is left as it is.
        command.help = text + "\n".join(["\b", *lines] if lines else [])
    for group in commands.registered_groups:
        if group.typer_instance is not None:
            _show_examples(group.typer_instance)


_show_examples(app)
