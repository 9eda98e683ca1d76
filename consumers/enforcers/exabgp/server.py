"""Be ExaBGP, and end with a status that tells the truth.

ExaBGP ends with status 0 also when one of its processes died too often. Here an end
that nobody requested has status 70, and an end because of a wrong configuration 78.

    python -P -m consumers.enforcers.exabgp.server ARGUMENTS OF EXABGP
"""

import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Final

from fnm_bus.ops.terminal import visible

FAILURE_FILE: Final = "FNMBUS_EXABGP_FAILURE"
"""Variable with the path of a file: a process of ExaBGP that cannot start because of
its configuration leaves the reason there."""

_STOPPED: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_SOFTWARE: Final = 70
_CONFIG: Final = 78


def main() -> int:
    """Run ExaBGP; return the exit status."""
    run_exabgp = import_module("exabgp.application.main").main
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    # Python writes the number of each signal there, whatever ExaBGP makes of it.
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    code: object
    try:
        code = run_exabgp()
    except SystemExit as exc:
        code = exc.code
    signal.set_wakeup_fd(-1)
    try:
        stopped = not _STOPPED.isdisjoint(os.read(reading, 1 << 16))
    except BlockingIOError:
        stopped = False
    status, reason = verdict(code, failure(), stopped=stopped)
    if reason:
        sys.stderr.write(f"fnm-bus-consumer: {visible(reason)}\n")
    return status


def verdict(code: object, reason: str, *, stopped: bool) -> tuple[int, str]:
    """Return the exit status, and what is logged.

    Args:
        code: what ExaBGP ended with.
        reason: why one of its processes cannot start, or "".
        stopped: whether a signal requested the end.
    """
    if stopped and not code:
        return 0, ""
    if reason:
        return _CONFIG, f"ExaBGP has ended: {reason}"
    if not code:
        text = (
            "ExaBGP has ended although nobody stopped it: one of its processes died too"
            " often; the lines above tell why"
        )
        return _SOFTWARE, text
    return code if isinstance(code, int) else _SOFTWARE, ""


def failure() -> str:
    """Return why a process of ExaBGP cannot start, or ""."""
    try:
        return Path(os.environ[FAILURE_FILE]).read_text("utf-8", "replace").strip()
    except (KeyError, OSError):
        return ""


if __name__ == "__main__":
    sys.exit(main())
