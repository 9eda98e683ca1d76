"""Where the configuration is and, of it, where the spool is.

Apart from the rest of the configuration for two reasons: a notification has to be
stored whatever is wrong with the rest, and a thousand calls should not each load what
checks it.
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


def spools(
    path: Path | None = None, environ: Mapping[str, str] = os.environ
) -> tuple[Path, Path]:
    """Return spool and fallback spool, as far as anything can be read at all.

    Args:
        path: the file; else the one that FNM_BUS_CONFIG names; else /etc's.
        environ: the environment, which wins over the file.
    """
    found = {"directory": python_hook.SPOOL, "fallback": python_hook.FALLBACK}
    file = path or Path(environ.get(CONFIG) or FILE)
    try:
        table = tomllib.loads(file.read_text("utf-8")).get("spool", {})
    except (OSError, ValueError):  # the same file is complained of after storing
        table = {}
    for key in found:
        value = environ.get(f"{PREFIX}SPOOL__{key.upper()}") or (
            table.get(key) if isinstance(table, dict) else None
        )
        if isinstance(value, str) and value:
            found[key] = value
    return Path(found["directory"]), Path(found["fallback"])
