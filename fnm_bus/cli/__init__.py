"""The command line: `fnm-bus`."""

from fnm_bus.cli.app import app
from fnm_bus.cli.options import run


def main() -> None:
    """Run the command line; print errors without a traceback."""
    run(app)


__all__ = ["app", "main"]
