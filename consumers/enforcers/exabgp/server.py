"""Run ExaBGP, and exit with a status that shows an error.

ExaBGP exits with status 0 even if one of its processes died too often. This program
exits with 70 if no signal requested the end, and with 78 after a wrong configuration.

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
"""Environment variable with the path of a file. A process of ExaBGP that cannot start
because of its configuration writes the reason to the file."""

_STOP_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_SOFTWARE: Final = 70
_CONFIG: Final = 78


def main() -> int:
    """Run ExaBGP; return the exit status."""
    run_exabgp = import_module("exabgp.application.main").main
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    # Python writes each signal's number to the pipe, also if ExaBGP handles the signal.
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    code: object
    try:
        code = run_exabgp()
    except SystemExit as exc:
        code = exc.code
    signal.set_wakeup_fd(-1)
    try:
        stopped = not _STOP_SIGNALS.isdisjoint(os.read(reading, 1 << 16))
    except BlockingIOError:
        stopped = False
    status, reason = exit_status(code, read_failure(), stopped=stopped)
    if reason:
        sys.stderr.write(f"fnm-bus-consumer: {visible(reason)}\n")
    return status


def exit_status(code: object, failure: str, *, stopped: bool) -> tuple[int, str]:
    """Return the exit status and the message, or "".

    Args:
        code: ExaBGP's exit code.
        failure: the reason that a process of ExaBGP could not start, or "".
        stopped: whether a signal requested the end.
    """
    if stopped and not code:
        return 0, ""
    if failure:
        return _CONFIG, f"ExaBGP has ended: {failure}"
    if not code:
        text = (
            "ExaBGP has ended without a stop signal: one of its processes died too"
            " often; see the lines above"
        )
        return _SOFTWARE, text
    return code if isinstance(code, int) else _SOFTWARE, ""


def read_failure() -> str:
    """Return the reason that a process of ExaBGP could not start, or ""."""
    try:
        return Path(os.environ[FAILURE_FILE]).read_text("utf-8", "replace").strip()
    except (KeyError, OSError):
        return ""


if __name__ == "__main__":
    sys.exit(main())
