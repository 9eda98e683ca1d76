"""Check a hook with one call, from FastNetMon's side to the relay's."""

import os
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from fnm_bus.errors import FnmBusError
from fnm_bus.hook import python_hook
from fnm_bus.setup.check_result import CheckResult
from fnm_bus.spool.entry_name import pid_of
from fnm_bus.spool.spool import Spool

_DOCUMENT: Final = b'{"fnm-bus": "this only proves the way"}\n'
"""Invalid as a notification, in case that a program takes it for one."""
_HOOK_TIMEOUT: Final = 30.0
"""Seconds for the hook: disks can be slow."""
_RELAY_TIMEOUT: Final = 10.0
"""Seconds for the relay to remove the entry."""
_PAUSE: Final = 0.02


def check(
    path: Path, spool: Spool, fallback: Spool, *, drains: bool
) -> list[CheckResult]:
    """Call the hook once; return results for the relay and for the notification.

    Args:
        path: the hook.
        spool: the hook's spool.
        fallback: the hook's fallback spool.
        drains: whether a call drains the spool if no relay runs.
    """
    # While this process holds the lock, the hook stores and does not drain.
    lock = python_hook.try_lock(str(spool.root))
    try:
        relay = _check_relay(spool, is_locked_here=lock >= 0, drains=drains)
        has_relay = relay.ok and lock < 0
        try:
            return [relay, _check_call(path, spool, fallback, has_relay=has_relay)]
        except (FnmBusError, OSError) as exc:
            return [relay, CheckResult(ok=False, text=str(exc), remedy="see above")]
    finally:
        if lock >= 0:
            os.close(lock)


def _check_relay(spool: Spool, *, is_locked_here: bool, drains: bool) -> CheckResult:
    if is_locked_here:
        text = "no relay runs" + (": each call drains the spool itself" * drains)
        remedy = "" if drains else "start it: systemctl enable --now fnm-bus-relay"
        return CheckResult(drains, text, remedy)
    try:
        if spool.is_locked():
            return CheckResult(ok=True, text="a relay runs (the spool's lock is held)")
    except FnmBusError as exc:
        if isinstance(exc.__cause__, PermissionError):
            text = "only the spool's owner may see the lock; the call shows a relay"
            return CheckResult(ok=True, text=text)
        return CheckResult(ok=False, text=f"relay: {exc}", remedy="run this as root")
    return CheckResult(ok=False, text="no relay runs", remedy="run this as root")


def _check_call(
    path: Path, spool: Spool, fallback: Spool, *, has_relay: bool
) -> CheckResult:
    try:
        process = subprocess.Popen(  # noqa: S603 - the hook, as FastNetMon starts it
            [str(path), python_hook.CHECK_ARGUMENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env={},
        )
    except OSError as exc:  # another machine's binary, or a missing interpreter
        text = f"the hook does not start: {exc.strerror}"
        remedy = "install the hook again, on this machine"
        return CheckResult(ok=False, text=text, remedy=remedy)
    with process:
        try:
            out, err = process.communicate(_DOCUMENT, timeout=_HOOK_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            spool.become_owner()
            _remove_entries((spool, fallback), process.pid)
            text = f"the hook did not end within {_HOOK_TIMEOUT:.0f} s"
            remedy = "check the disk: it is slow, or it hangs"
            return CheckResult(ok=False, text=text, remedy=remedy)
    # The spool's owner can replace any name in it, so root must not remove by names.
    spool.become_owner()
    if process.returncode or out:
        _remove_entries((spool, fallback), process.pid)
        text = f"the hook ended with {process.returncode}: {err.decode()!r:.500}"
        return CheckResult(ok=False, text=text, remedy="this line has the reason")
    return _wait_for_relay(spool, process.pid, has_relay=has_relay)


def _wait_for_relay(spool: Spool, pid: int, *, has_relay: bool) -> CheckResult:
    end = time.monotonic() + _RELAY_TIMEOUT
    while name := _entry(spool, pid):
        if not has_relay:
            spool.remove(name)
            return CheckResult(ok=True, text="a notification was stored, and removed")
        if time.monotonic() > end:
            spool.remove(name)
            text = f"the relay did not take a notification within {_RELAY_TIMEOUT:.0f}"
            remedy = "check that the relay runs, and its log"
            return CheckResult(ok=False, text=f"{text} s", remedy=remedy)
        time.sleep(_PAUSE)
    if has_relay:
        text = "a notification was stored, and the relay took it"
        return CheckResult(ok=True, text=text)
    return CheckResult(
        ok=False,
        text="the hook ended with 0, but its notification is missing",
        remedy="stop the other program that empties the spool",
    )


def _remove_entries(spools: Iterable[Spool], pid: int) -> None:
    """Remove the call's notification from each spool, as far as possible."""
    for spool in spools:
        with suppress(FnmBusError, OSError):
            if name := _entry(spool, pid):
                spool.remove(name)


def _entry(spool: Spool, pid: int) -> str | None:
    """Return the name of the entry that the hook with this process id stored."""
    for name in spool.scan():
        if pid_of(name) == pid:
            try:
                if spool.read(name).is_check:
                    return name
            except FileNotFoundError:
                continue
    return None
