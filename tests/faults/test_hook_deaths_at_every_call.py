"""A hook dies, or meets a fault, at every system call that touches the spool."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import injection
from support.fetch import Unavailable
from support.injection import Run, Site

from fnm_bus.hook import python_hook
from fnm_bus.setup import install_hook
from fnm_bus.spool.spool import Spool

DOCUMENT = b'{"action":"ban","alert_scope":"host","ip":"192.0.2.1"}'
KINDS = ("python", "shell")
_PROGRAMS = ('tee -a "$fd_path" 4>&4); }', 'link "$', "sync ${")
"""How the lines of the hook in shell begin that start a program for each call."""
ACTS = {
    "python": {"openat", "fchmod", "write", "fsync", "close", "renameat"},
    "shell": {"openat", "dup2", "write", "fsync", "close", "link", "chdir"},
}
"""Calls whose failure must not be taken for success, whatever else may be."""


class Front:
    """A hook with its two spools.

    Args:
        root: a directory for all of it.
        kind: python or shell.
    """

    def __init__(self, root: Path, kind: str) -> None:
        self.path = root / "notify"
        self.spool, self.fallback = Spool(root / "spool"), Spool(root / "fallback")
        for it in (self.spool, self.fallback):
            it.make(os.geteuid(), os.getegid())
        roots = (self.spool.root, self.fallback.root)
        interpreters = {
            "python": Path(sys.executable).resolve(),
            "shell": install_hook.SHELL,
        }
        install_hook.install(self.path, *roots, interpreters[kind])
        self.programs = _PROGRAMS if kind == "shell" else ()

    def runs(self, fault: str) -> Iterator[tuple[Site, Run, list[bytes], list[bytes]]]:
        """Run it with a fault at each call; yield what was met, and what is stored."""
        parts = [injection.whole([str(self.path)], DOCUMENT)]
        parts += [
            injection.part(self.path, spot, self.spool.root, DOCUMENT)
            for spot in self.programs
        ]
        for traced in parts:
            try:
                sites = injection.sites(traced, self.spool.root)
            except Unavailable as exc:
                pytest.skip(str(exc))  # which fails a run with CI=true
            self.take()
            # How a program is started is not its own doing.
            sites = [it for it in sites if it.call != "execve"]
            for site, run in injection.runs(traced, sites, fault):
                yield site, run, *self.take()

    def take(self) -> tuple[list[bytes], list[bytes]]:
        """Return what is in the spool and in the fallback spool, and empty both."""
        both = []
        for spool in (self.spool, self.fallback):
            names = spool.scan()
            both.append([spool.read(name).document for name in names])
            for name in names:
                spool.remove(name)
        return both[0], both[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_killed_at_any_call_has_stored_all_or_nothing(
    tmp_path: Path, kind: str
) -> None:
    front = Front(tmp_path, kind)
    calls = []
    for site, run, stored, aside in front.runs("signal=KILL"):
        calls.append(site.call)
        # Where one of its programs is killed, the hook itself says so.
        assert run.status in ({-9} if kind == "python" else {-9, 75}), site
        assert run.status == -9 or run.stderr.count(b"\n") == 1, site
        assert stored in ([], [DOCUMENT]), site
        assert aside in ([], [DOCUMENT]), site
    assert calls.count("fsync") == 2
    # What they leave is swept away when it is certain that they are dead.
    temporary = front.spool.root / "incoming/tmp"
    for path in temporary.iterdir():
        os.utime(path, (0, 0))
    assert 0 < len(front.spool.remove_orphans()) <= len(calls)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EMFILE", "EROFS"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_at_any_call_is_met_with_the_fallback_or_harmless(
    tmp_path: Path, kind: str, error: str
) -> None:
    front = Front(tmp_path, kind)
    met = []
    for site, run, stored, aside in front.runs(f"error={error}"):
        assert run.faults, site
        assert run.status in {0, python_hook.TRY_LATER}, (site, run)
        if run.status == 0:
            assert (stored, run.stderr) == ([DOCUMENT], b""), (site, run)
            continue
        met.append(site.call)
        assert run.stderr.count(b"\n") == 1, (site, run)
        assert aside == [DOCUMENT], (site, run)
        assert b"kept in the fallback spool" in run.stderr, (site, run)
    assert set(met) >= ACTS[kind]
