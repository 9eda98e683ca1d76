"""Who may add to a spool, and who drains it where no relay does."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.installed_hook import (
    DRAINED,
    NOBODY,
    SAMPLE,
    InstalledHook,
    as_user,
    drains,
)
from support.lease import leased

from fnm_bus.spool.drain_backoff import Backoff
from fnm_bus.spool.limits import AdmissionLevel

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can act as another user"
)


@needs_root
def test_a_user_of_the_group_can_add_and_nothing_else(shared: InstalledHook) -> None:
    assert shared(SAMPLE, **as_user(NOBODY, 2345)).returncode == 0
    assert shared(SAMPLE, **as_user(1234, 2345)).returncode == 0
    assert shared(SAMPLE).returncode == 0
    entries = shared.entries()
    facts = {Path(it.path).stat().st_uid: Path(it.path) for it in entries}
    assert facts.keys() == {NOBODY, 1234, 0}
    assert {Path(it.path).stat().st_gid for it in entries} == {2345}
    assert {Path(it.path).stat().st_mode & 0o777 for it in entries} == {0o640}
    tries = "import os, sys\nos.unlink(sys.argv[1])"
    for owner in (0, 1234):
        argv = ["/usr/bin/python3", "-c", tries, facts[owner]]
        done = subprocess.run(
            argv,
            check=False,
            capture_output=True,
            user=NOBODY,
            group=2345,
            extra_groups=[],
        )
        assert b"Operation not permitted" in done.stderr
    # The owner of the spool reads and removes what others put there.
    reads = "import os, sys\nopen(sys.argv[1]).read()\nos.unlink(sys.argv[1])"
    for path in facts.values():
        subprocess.run(
            ["/usr/bin/python3", "-c", reads, path],
            check=True,
            user=1234,
            group=2345,
            extra_groups=[],
        )


def test_where_no_relay_runs_the_hook_starts_the_drain_and_hands_the_lock_over(
    installed: InstalledHook,
) -> None:
    told = drains(installed)
    done = installed(SAMPLE)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    facts = json.loads(told.read_text())
    lock = (installed.spool.root / "lock").stat()
    assert facts["lock"] == [lock.st_dev, lock.st_ino]
    assert facts["in"] == ""
    assert len(installed.entries()) == 1


def test_a_drain_inherits_the_lock_and_nothing_else(installed: InstalledHook) -> None:
    """FastNetMon may be root, and the drain is another user's process."""
    told = drains(installed)
    secret = os.memfd_create("secret", 0)
    try:
        done = installed(
            SAMPLE, env={"SECRET": "x", "FNM_BUS_SENSOR": "x"}, pass_fds=(secret,)
        )
    finally:
        os.close(secret)
    assert done.returncode == 0
    facts = json.loads(told.read_text())
    environment = {"FNM_BUS_LOCK_FD", "FNM_BUS_SPOOL__DIRECTORY", "PATH"}
    environment |= {"FNM_BUS_SPOOL__FALLBACK"}
    assert set(facts["environment"]) - {"LC_CTYPE"} == environment
    assert facts["descriptors"][:3] == [0, 1, 2]
    assert len(facts["descriptors"]) == 4
    assert facts["session"]


def test_a_drain_is_told_the_hook_s_spools(installed: InstalledHook) -> None:
    told = drains(installed)
    assert installed(SAMPLE).returncode == 0
    spools = [str(installed.spool.root), str(installed.fallback.root)]
    assert json.loads(told.read_text())["spools"] == spools


def test_a_failed_drain_is_reported_without_what_steers_a_terminal(
    installed: InstalledHook,
) -> None:
    prints = "import sys; sys.exit('no broker \\x1b[2J\\nanswers')"
    installed.install((sys.executable, "-IS", "-c", prints))
    done = installed(SAMPLE)
    assert done.returncode == 0
    line = b"fnm-bus hook: cannot drain the spool: status 1: no broker \\x1b[2J answers"
    assert done.stderr == line + b"\n"


def test_a_drain_that_its_owner_stopped_does_not_stop_the_call(
    installed: InstalledHook,
) -> None:
    pid = installed.directory / "pid"
    stops = (
        "import os, signal, sys; print(os.getpid(), file=open(sys.argv[1], 'w'));"
        " os.kill(os.getpid(), signal.SIGSTOP)"
    )
    installed.install((sys.executable, "-IS", "-c", stops, str(pid)))
    text = installed.path.read_text()
    installed.path.write_text(text.replace("DRAIN_TIMEOUT = 60", "DRAIN_TIMEOUT = 2"))
    try:
        done = installed(SAMPLE)
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)
    assert done.returncode == 0
    assert b"has not ended within 2 s" in done.stderr


@pytest.mark.parametrize("status", [75, 78])
def test_how_the_drain_ends_is_not_what_became_of_the_document(
    installed: InstalledHook, status: int
) -> None:
    told = drains(installed, status)
    assert installed(SAMPLE).returncode == 0
    assert told.exists()
    assert len(installed.entries()) == 1


def test_where_a_relay_runs_the_hook_leaves_the_rest_to_it(
    installed: InstalledHook,
) -> None:
    told = drains(installed)
    lock = installed.spool.lock()
    assert lock is not None
    with lock:
        assert installed(SAMPLE).returncode == 0
    assert not told.exists()


def test_a_lock_that_its_owner_leased_is_not_waited_for(
    installed: InstalledHook,
) -> None:
    told = drains(installed)
    with leased(installed.spool.root / "lock"):
        assert installed(SAMPLE, timeout=10).returncode == 0
    assert not told.exists()
    assert len(installed.entries()) == 1


def test_after_a_failed_drain_calls_do_not_even_start_one(
    installed: InstalledHook,
) -> None:
    told = drains(installed)
    for _ in range(6):
        Backoff(installed.spool.root).record_failure()
    assert installed(SAMPLE).returncode == 0
    assert not told.exists()


def test_a_full_spool_is_drained_and_the_status_still_says_where_this_one_is(
    installed: InstalledHook,
) -> None:
    told = drains(installed)
    installed.spool.refuse(AdmissionLevel.ALL)
    assert installed(SAMPLE).returncode == 75
    assert told.exists()
    assert len(installed.entries(installed.fallback)) == 1


def test_a_drain_that_cannot_be_started_does_not_make_a_stored_one_fail(
    installed: InstalledHook,
) -> None:
    installed.install(("/nowhere/python",))
    done = installed(SAMPLE)
    assert done.returncode == 0
    assert b"cannot drain the spool" in done.stderr
    assert len(installed.entries()) == 1


@needs_root
def test_root_drains_with_the_rights_of_the_spool_s_owner_only(
    shared: InstalledHook,
) -> None:
    told = shared.directory / "told"
    shared.directory.chmod(0o777)
    argv = ("/usr/bin/python3", "-IS", "-c", DRAINED, str(told), "0")
    shared.install(argv)
    assert shared(SAMPLE).returncode == 0
    assert json.loads(told.read_text())["ids"] == [1234, 2345, [2345]]


@needs_root
def test_a_user_who_may_only_add_never_drains(shared: InstalledHook) -> None:
    told = shared.directory / "told"
    shared.directory.chmod(0o777)
    shared.install(("/usr/bin/python3", "-IS", "-c", DRAINED, str(told), "0"))
    text = shared.path.read_text().split("\n", 1)[1]
    shared.path.write_text(f"#!/usr/bin/python3 -IS\n{text}")
    assert shared(SAMPLE, **as_user(NOBODY, 2345)).returncode == 0
    assert not told.exists()
    assert len(shared.entries()) == 1
