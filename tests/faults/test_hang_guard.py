"""A process that hangs ends, with its stack."""

import subprocess
import sys

_HANGS = """
from fnm_bus.relay.hang_guard import HangGuard
import signal
guard = HangGuard(0.3)
guard.reset()
{last}
signal.sigtimedwait([], 1.5)  # blocks in C
"""


def run(last: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", _HANGS.format(last=last)],
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_a_process_without_a_reset_ends_with_its_stack() -> None:
    ended = run("")
    assert ended.returncode == 1
    assert b"Timeout" in ended.stderr


def test_a_closed_guard_does_nothing() -> None:
    assert run("guard.close()").returncode == 0
