"""All commands of `fnm-bus`."""

from typing import Annotated, Final

import typer

from fnm_bus import __version__
from fnm_bus.cli import (
    check,
    configuration,
    demo,
    drain,
    hook,
    init,
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
from fnm_bus.cli.entry_points import EntryPointGroup
from fnm_bus.cli.options import LogFormat, keep_examples, out

HELP: Final = (
    "Carry FastNetMon's attack events to Kafka, and turn them into mitigations that"
    " always end."
)

app = typer.Typer(
    name="fnm-bus",
    cls=EntryPointGroup,
    help=HELP,
    epilog="Documentation: docs/operation.md. Exit status: 0 done, 1 refused, not found"
    " or a check failed, 2 usage, 65 invalid document, 69 Kafka or registry"
    " unreachable, 75 not in the spool or no answer, 78 configuration.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(*, wanted: bool) -> None:
    if wanted:
        out(f"fnm-bus {__version__}")
        raise typer.Exit


@app.callback(help=HELP)
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
    log_format: LogFormat = None,
) -> None:
    """Handle the options before the command."""


FOREIGN = {"allow_extra_args": True, "ignore_unknown_options": True}
"""For commands whose further arguments are FastNetMon's."""

app.command("init")(init.init)
app.command("notify", context_settings=FOREIGN)(notify.notify)
app.add_typer(hook.app, name="hook")
app.command("relay")(relay.relay)
app.command("drain")(drain.drain)
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

keep_examples(app)
