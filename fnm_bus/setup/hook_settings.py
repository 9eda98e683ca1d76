"""The settings of an installed hook."""

import sys
from collections.abc import Sequence
from pathlib import Path

from fnm_bus.hook import python_hook


def drain_command(timeout: float, config: Path | None) -> list[str]:
    """Return the command by which a hook drains the spool where no relay runs.

    Args:
        timeout: seconds that it may take; FastNetMon's call waits for it.
        config: the configuration file, or None for the default. The command has an
            empty environment, except for the hook's spools and lock.
    """
    command = [sys.executable, "-I", "-m", "fnm_bus", "drain"]
    command += ["--timeout", str(timeout)]
    return [*command, "--config", str(config.resolve())] if config else command


def settings(
    spool: Path, fallback: Path, drain: Sequence[str] = ()
) -> dict[str, object]:
    """Return the settings of a hook, by name; limits are those of `python_hook`.

    Args:
        spool: the spool's directory.
        fallback: the fallback spool's directory, on another file system.
        drain: command that drains the spool if no relay runs; () for no command.
    """
    return {
        "SPOOL": str(spool),
        "FALLBACK": str(fallback),
        "DRAIN": tuple(drain),
        "RESERVE_BYTES": python_hook.RESERVE_BYTES,
        "RESERVE_INODES": python_hook.RESERVE_INODES,
        "FALLBACK_FILES": python_hook.FALLBACK_FILES,
        "FALLBACK_BYTES": python_hook.FALLBACK_BYTES,
    }
