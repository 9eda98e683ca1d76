"""The command line: `fnm-bus`."""

import sys

from fnm_bus.cli.app import app
from fnm_bus.cli.options import complain
from fnm_bus.errors import FnmBusError


def main() -> None:
    """Run the command on the command line; a user's mistake is a line, no traceback."""
    try:
        app()
    except FnmBusError as exc:
        complain(str(exc))
        sys.exit(exc.exit_code)


__all__ = ["app", "main"]
