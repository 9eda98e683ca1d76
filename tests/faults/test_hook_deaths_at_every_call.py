"""A hook dies, or meets a fault, at every system call."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import injection
from support.fetch import Unavailable
from support.injection import Run, Site
from support.installed_hook import SAMPLE, InstalledHook, NativeHook

from fnm_bus.hook import python_hook

MUST_FAIL = {"openat", "fchmod", "write", "fsync", "close", "renameat"}
"""Calls with at least one failure that status 0 must not hide."""
ERRORS = ["ENOSPC", "EIO", "EMFILE", "EROFS", "EDQUOT", "EINTR", "ENOMEM"]


def runs(
    hook: InstalledHook, fault: str
) -> Iterator[tuple[Site, Run, list[bytes], list[bytes]]]:
    """Run the hook with a fault at each call; yield the result and both spools.

    Of the native hook every call of `main` has a fault, of the Python hook those that
    touch its spools: the others are the interpreter's.
    """
    traced = injection.whole([str(hook.path)], SAMPLE)
    is_native = isinstance(hook, NativeHook)
    try:
        sites = injection.sites(traced, Path() if is_native else hook.spool.root)
    except Unavailable as exc:
        pytest.skip(str(exc))  # which fails a run with CI=true
    if is_native:
        calls = [site.call for site in sites]
        sites = sites[calls.index("prctl") : calls.index("exit_group")]
        assert len(sites) > 40
    take(hook)
    for site, run in injection.runs(traced, sites, fault):
        stored, aside = take(hook)
        if site.call not in {"execve", "getpid"}:  # a getpid cannot fail
            yield site, run, stored, aside


def take(hook: InstalledHook) -> tuple[list[bytes], list[bytes]]:
    """Return the documents of both spools, and empty both."""
    both = []
    for spool in (hook.spool, hook.fallback):
        names = spool.scan()
        both.append([spool.read(name).document for name in names])
        for name in names:
            spool.remove(name)
    return both[0], both[1]


def test_a_hook_killed_at_any_call_has_stored_all_or_nothing(
    hook: InstalledHook,
) -> None:
    calls = []
    for site, run, stored, aside in runs(hook, "signal=KILL"):
        calls.append(site.call)
        assert (run.status, run.stderr) == (-9, b""), site
        assert stored in ([], [SAMPLE]), site
        assert aside == [], site
    assert calls.count("fsync") == 2
    # The relay removes the temporary files of dead hooks.
    temporary = hook.spool.root / "incoming/tmp"
    for path in temporary.iterdir():
        os.utime(path, (0, 0))
    assert 0 < len(hook.spool.remove_orphans()) <= len(calls)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("error", ERRORS)
def test_a_fault_at_any_call_is_harmless_or_leads_to_the_fallback(
    hook: InstalledHook, error: str
) -> None:
    failed = set()
    for site, run, stored, aside in runs(hook, f"error={error}"):
        assert run.faults, site
        assert run.status in {0, python_hook.TRY_LATER}, (site, run)
        if run.status == 0:
            assert (stored, aside, run.stderr) == ([SAMPLE], [], b""), (site, run)
            continue
        failed.add(site.call)
        assert run.stderr.count(b"\n") == 1, (site, run)
        if site.call == "read" and site.text.startswith("0"):
            assert b"this notification is lost: " in run.stderr, (site, run)
            assert (stored, aside) == ([], []), (site, run)
        else:
            assert aside == [SAMPLE], (site, run)
            assert b"kept in the fallback spool" in run.stderr, (site, run)
    # Most calls are repeated after EINTR.
    assert failed >= MUST_FAIL or error == "EINTR"
