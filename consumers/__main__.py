"""`fnm-bus-consumer`: the sample consumers."""

import sys
from typing import Annotated

import typer

from fnm_bus import __version__

app = typer.Typer(
    name="fnm-bus-consumer",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def consumer(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.")
    ] = False,
) -> None:
    """List the sample consumers: programs that read the events, to run and to copy."""
    if version:
        typer.echo(f"fnm-bus-consumer {__version__}")
        return
    typer.echo(
        "No sample consumer comes with this version."
        " `fnm-bus tail --json` shows what one would read."
    )


def main() -> None:
    """Run the command line."""
    sys.exit(app())


if __name__ == "__main__":
    main()
