"""The command line: `fnm-bus`."""

from fnm_bus.cli.app import app
from fnm_bus.cli.options import run


def main() -> None:
    """Run the command on the command line; a user's mistake is a line, no traceback."""
    run(app)


__all__ = ["app", "main"]
