"""The configuration file's path, and the spools' paths in it.

This is separate from `load` for two reasons. A notification must be stored even if the
rest of the configuration is wrong, and a thousand calls must not load pydantic each.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fnm_bus.hook import python_hook

FILE: Final = Path("/etc/fnm-bus/fnm-bus.toml")
PREFIX: Final = "FNM_BUS_"
CONFIG: Final = "FNM_BUS_CONFIG"


def configured_spools(
    path: Path | None = None, environ: Mapping[str, str] = os.environ
) -> tuple[Path, Path]:
    """Return the spool and the fallback spool; mistakes in the file are ignored.

    Args:
        path: the file; else FNM_BUS_CONFIG; else /etc/fnm-bus/fnm-bus.toml.
        environ: the environment, which overrides the file.
    """
    paths = {"directory": python_hook.SPOOL, "fallback": python_hook.FALLBACK}
    file = path or Path(environ.get(CONFIG) or FILE)
    try:
        table = tomllib.loads(file.read_text("utf-8")).get("spool", {})
    except (OSError, ValueError):  # `load` reports the mistake, after storing
        table = {}
    for key in paths:
        value = environ.get(f"{PREFIX}SPOOL__{key.upper()}") or (
            table.get(key) if isinstance(table, dict) else None
        )
        if isinstance(value, str) and value:
            paths[key] = value
    return Path(paths["directory"]), Path(paths["fallback"])
