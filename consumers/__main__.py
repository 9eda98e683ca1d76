"""`fnm-bus-consumer`, the program for services: one command per consumer.

`fnm-bus consumer` and `python -m consumers` are the same program. Commands for people
are entry points of `fnm-bus` (pyproject.toml).
"""

from typing import Annotated, Final

import typer

from consumers.cli import run
from fnm_bus import __version__
from fnm_bus.cli import options
from fnm_bus.cli.options import LogFormat, out

HELP: Final = "Run a consumer: mitigator, exabgp, nftables, notifier or jsonlines."

app = typer.Typer(
    name="fnm-bus-consumer",
    help=HELP,
    epilog="Documentation: docs/mitigation.md. Exit status: 0 done, 1 a check failed,"
    " 2 usage, 69 Kafka or a backend unreachable, 75 no answer, 78 configuration.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(value: bool) -> None:  # noqa: FBT001 - Typer passes one argument
    if value:
        out(f"fnm-bus-consumer {__version__}")
        raise typer.Exit


@app.callback(help=HELP)
def consumer(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version.",
        ),
    ] = False,
    log_format: LogFormat = None,
) -> None:
    """Accept the options before the command."""


app.command()(run.mitigator)
app.command()(run.exabgp)
app.command()(run.nftables)
app.command()(run.notifier)
app.command()(run.jsonlines)
app.command()(run.check)
app.command()(run.demo)
options.keep_examples(app)


def main() -> None:
    """Run the command line; print errors without a traceback."""
    options.run(app)


if __name__ == "__main__":
    main()
