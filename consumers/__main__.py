"""`fnm-bus-consumer` and `python -m consumers`: the consumers."""

from typing import Annotated

import typer

from consumers.cli import explain, mitigations, policy, run
from fnm_bus import __version__
from fnm_bus.cli import options
from fnm_bus.cli.options import out

app = typer.Typer(
    name="fnm-bus-consumer",
    help="Turn attack events into mitigations that always end, and tell people.",
    epilog="Documentation: docs/mitigation.md. Exit status: 0 done, 1 refused or not"
    " found, 2 usage, 69 Kafka or a backend away, 75 no answer, 78 configuration.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(*, wanted: bool) -> None:
    if wanted:
        out(f"fnm-bus-consumer {__version__}")
        raise typer.Exit


@app.callback()
def consumer(
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
    """Turn attack events into mitigations that always end, and tell people."""


app.command()(run.mitigator)
app.command()(run.exabgp)
app.command()(run.nftables)
app.command()(run.webhook)
app.command()(run.jsonlines)
app.add_typer(mitigations.app, name="mitigations")
app.add_typer(policy.app, name="policy")
app.command()(explain.explain)
app.command()(run.check)
app.command()(run.demo)
app.command()(run.demo_bgp)


def main() -> None:
    """Run the command on the command line; a user's mistake is a line, no traceback."""
    options.run(app)


if __name__ == "__main__":
    main()
