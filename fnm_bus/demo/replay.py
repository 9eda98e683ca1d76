"""Call the hook with a list of calls, as FastNetMon would.

Every call is a process of its own. The processes start in the order of the calls,
because the start of its process decides a notification's sequence.
"""

import subprocess
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from fnm_bus.demo.attack import NotifyCall
from fnm_bus.errors import SpoolError

_AT_ONCE: Final = 16
"""Calls that run at the same time, at most."""
_CALL_TIMEOUT: Final = 30.0
"""Seconds for a call."""
_TICK: Final = 0.01
"""Seconds between two starts: Linux records the start of a process in such ticks."""


def replay(hook: Path, calls: Iterable[NotifyCall], rate: float = 0.0) -> Iterator[int]:
    """Start *hook* for every call; yield each exit status, in the order of the calls.

    Args:
        hook: path of the installed hook.
        calls: FastNetMon's calls.
        rate: calls per second, at most 100; 0 means as fast as possible.

    Raises:
        SpoolError: the hook cannot be started, or does not exit in time.
    """
    running: deque[subprocess.Popen[bytes]] = deque()
    step = max(1 / rate, _TICK) if rate else _TICK
    due = monotonic()
    try:
        for call in calls:
            if len(running) >= _AT_ONCE:
                yield _wait_for(running.popleft())
            sleep(max(0.0, due - monotonic()))
            due = max(due, monotonic() - step) + step
            running.append(_start_hook(hook, call))
        while running:
            yield _wait_for(running.popleft())
    finally:
        for process in running:
            process.kill()
            process.wait()


def _start_hook(hook: Path, call: NotifyCall) -> subprocess.Popen[bytes]:
    try:
        process = subprocess.Popen(  # noqa: S603 - the hook that was given
            [hook, *call.arguments],
            stdin=subprocess.PIPE,
            cwd="/",
            env={},  # as FastNetMon starts it
        )
    except OSError as exc:
        raise SpoolError(f"{hook}: {exc.strerror}") from exc
    pipe = process.stdin
    if pipe is not None:
        try:
            with pipe:
                pipe.write(call.document)
        except BrokenPipeError as exc:
            process.wait()
            raise SpoolError(f"{hook}: does not read its input") from exc
    return process


def _wait_for(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(_CALL_TIMEOUT)
    except subprocess.TimeoutExpired as exc:
        process.kill()
        process.wait()
        raise SpoolError(f"the hook did not end within {_CALL_TIMEOUT:.0f} s") from exc
