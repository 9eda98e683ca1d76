"""`fnm-bus-consumer` and `python -m consumers`: the consumers."""

from typing import Annotated

import typer

from consumers import explaining, people, policies, services
from fnm_bus import __version__
from fnm_bus.cli.options import out, run

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


app.command()(services.mitigator)
app.command()(services.exabgp)
app.command()(services.nftables)
app.command()(services.webhook)
app.command()(services.jsonlines)
app.add_typer(people.app, name="mitigations")
app.add_typer(policies.app, name="policy")
app.command()(explaining.explain)
app.command()(services.check)
app.command()(services.demo)
app.command()(services.demo_bgp)


def main() -> None:
    """Run the command on the command line; a user's mistake is a line, no traceback."""
    run(app)


if __name__ == "__main__":
    main()
