"""The marker of a demo's spool: only such spools accept a simulated attack.

The marker is a file in the spool's directory. It names the demo's broker.
"""

import json
from pathlib import Path
from typing import Final

from fnm_bus.errors import ConfigError, SpoolError
from fnm_bus.spool import entry

NAME: Final = "made-by-fnm-bus-demo.json"
_LARGEST: Final = 4096
"""Bytes of a marker; a longer file is not one."""


def write_marker(spool: Path, bootstrap: str) -> None:
    """Mark *spool* as made by a demo whose broker is at *bootstrap*.

    Raises:
        SpoolError: the marker cannot be written.
    """
    path = spool / NAME
    try:
        path.write_text(json.dumps({"bootstrap": bootstrap}) + "\n", encoding="utf-8")
    except OSError as exc:
        raise SpoolError(f"{path}: {exc.strerror}") from exc


def read_marker(spool: Path) -> str | None:
    """Return the broker of the demo that made *spool*; None if no demo made it."""
    try:
        data, _ = entry.read_file(str(spool / NAME), _LARGEST)
        value = json.loads(data)
    except (OSError, SpoolError, ValueError):
        return None
    bootstrap = value.get("bootstrap") if isinstance(value, dict) else None
    return bootstrap if isinstance(bootstrap, str) and bootstrap else None


def require_broker(spool: Path, bootstrap: str | None) -> None:
    """Refuse a configuration that does not use the broker of the demo's own spool.

    Args:
        spool: [spool] directory as configured.
        bootstrap: [kafka] "bootstrap.servers" as configured.

    Raises:
        ConfigError: no demo made the spool, or the broker is not that demo's.
    """
    expected = read_marker(spool)
    if expected is None:
        raise ConfigError(
            f"[spool] directory: {spool} was not made by a demo."
            " A demo uses its own spool and its own broker only: run `fnm-bus demo`"
        )
    if bootstrap != expected:
        raise ConfigError(
            f'[kafka] "bootstrap.servers": got {bootstrap}, wanted the demo\'s broker'
            f" {expected}. Remove FNM_BUS_KAFKA__BOOTSTRAP_SERVERS from the environment"
        )
