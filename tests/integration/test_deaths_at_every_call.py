"""Hook and relay die, or meet a fault, at every system call that touches the spool."""

import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from services import injection
from services.fetch import Unavailable
from services.injection import Site
from services.plant import Plant, ban

from fnm_bus import hook, install
from fnm_bus.spool import Spool

DOCUMENT = b'{"action":"ban","alert_scope":"host","ip":"192.0.2.1"}\n'
KINDS = ("python", "shell")
_LOOKS = {"newfstatat", "ioctl", "lseek", "getdents64", "read"}
_SAME = re.compile(r"(?<=/new/)[0-9a-f]\b|[0-9a-f]{32}-\S*?(?=[\">])|\d+")


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
            "shell": install.SHELL,
        }
        install.install(self.path, *roots, interpreters[kind])

    def sites(self) -> list[Site]:
        try:
            found = injection.sites([str(self.path)], DOCUMENT, self.spool.root)
        except Unavailable as exc:
            pytest.skip(str(exc))  # which fails a run with CI=true
        self.take()
        return found

    def take(self) -> tuple[list[bytes], list[bytes]]:
        """Return what is in the spool and in the fallback spool, and empty both."""
        both = []
        for spool in (self.spool, self.fallback):
            names = spool.scan()
            both.append([spool.read(name).document for name in names])
            for name in names:
                spool.remove(name)
        return both[0], both[1]


@pytest.fixture(params=KINDS)
def front(tmp_path: Path, request: pytest.FixtureRequest) -> Front:
    return Front(tmp_path, request.param)


def test_a_hook_killed_at_any_call_has_stored_all_or_nothing(front: Front) -> None:
    sites = front.sites()
    assert "fsync" in {it.call for it in sites}
    killed = 0
    for site, run in injection.runs([str(front.path)], DOCUMENT, sites, "signal=KILL"):
        stored, aside = front.take()
        killed += run.status != 0
        assert run.status != 0 or stored == [DOCUMENT], site
        assert [it for it in (*stored, *aside) if it != DOCUMENT] == [], site
        assert len(stored) <= 1, site
    assert killed > 5
    # What they leave is swept away when it is certain that they are dead.
    temporary = front.spool.root / "incoming/tmp"
    for path in temporary.iterdir():
        os.utime(path, (0, 0))
    assert 0 < len(front.spool.clean()) <= killed
    assert list(temporary.iterdir()) == []


FAULTS = [*(("python", it) for it in ("ENOSPC", "EIO", "EMFILE", "EROFS"))]
FAULTS += [("shell", "EIO")]  # to the shell they are all one


@pytest.mark.parametrize(("kind", "error"), FAULTS)
def test_a_fault_at_any_call_is_met_with_the_fallback_or_told(
    tmp_path: Path, kind: str, error: str
) -> None:
    front = Front(tmp_path, kind)
    sites = front.sites()
    met = 0
    for site, run in injection.runs(
        [str(front.path)], DOCUMENT, sites, f"error={error}"
    ):
        stored, aside = front.take()
        if run.status == 0:
            assert stored == [DOCUMENT], (site, run)
        else:
            assert run.stderr, (site, run)
            # Else calls of other processes with that number failed as well.
            if len(run.faults) > 1 or str(front.spool.root) not in run.faults[0]:
                continue
            met += 1
            assert run.status == hook.TRY_LATER, (site, run)
            assert run.stderr.count(b"\n") == 1, (site, run)
            assert aside == [DOCUMENT], (site, run)
            assert b"kept in the fallback spool" in run.stderr, (site, run)
    assert met > (3 if kind == "python" else 0)


@pytest.fixture
def killable(plant: Plant) -> Iterator[Callable[[], list[str]]]:
    """Return the command of a drain; before each run something waits in the spool."""
    numbers = iter(range(1, 10_000))

    def command() -> list[str]:
        # As in a new spool, so that every run makes the same calls.
        for path in (plant.spool.root / "state").iterdir():
            path.unlink()
        plant.call(ban(f"198.51.100.{next(numbers) % 250 + 1}"))
        config = ("--config", str(plant.config))
        return [sys.executable, "-m", "fnm_bus", "relay", "--once", *config]

    return command


def test_a_relay_killed_at_any_call_publishes_everything_at_least_once(
    plant: Plant, killable: Callable[[], list[str]]
) -> None:
    try:
        found = injection.sites(killable(), b"", plant.spool.root)
    except Unavailable as exc:
        pytest.skip(str(exc))
    # Sixteen directories are read alike: one of them stands for all. And to die at a
    # call that only looks is to die after the one before it.
    acts = [it for it in reversed(found) if it.call not in _LOOKS]
    sites = {(it.call, _SAME.sub("_", it.text)): it for it in acts}.values()
    killed = 0
    for site in sites:
        for _, run in injection.runs(killable(), b"", [site], "signal=KILL"):
            assert run.status in {0, -9}, (site, run)
            killed += run.status == -9
    assert killed > 15
    calls = 1 + len(sites)
    done = plant.run("relay", "--once")
    assert done.returncode == 0, done.stderr
    assert plant.empty()
    ids = Counter(it.receipt.event_id for it in plant.events("host", calls))
    assert len(ids) == calls
    assert plant.events("deadletter", 0, within=5) == []
