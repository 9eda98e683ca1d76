"""`fnm-bus simulate` stores nothing in a real spool without --yes-publish."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.relay_processes import RelayProcesses

from fnm_bus.demo import marker
from fnm_bus.setup import install_hook
from fnm_bus.spool.spool import Spool

Simulate = Callable[..., subprocess.CompletedProcess[bytes]]
OPTIONS = ("--hosts", "2", "--updates", "1", "--seed", "3", "--rate", "100")


@pytest.fixture
def unreachable(tmp_path: Path) -> RelayProcesses:
    """A spool and a fallback spool, with a configuration without a broker."""
    return RelayProcesses(tmp_path, "127.0.0.1:1")


@pytest.fixture
def spools(unreachable: RelayProcesses) -> tuple[Spool, Spool]:
    return unreachable.spool, unreachable.fallback


@pytest.fixture
def simulate(unreachable: RelayProcesses) -> Simulate:
    return lambda *arguments: unreachable.run("simulate", *OPTIONS, *arguments)


def documents(spool: Spool) -> list[bytes]:
    return [spool.read(name).document for name in spool.scan()]


def test_a_spool_that_no_demo_made_is_refused(
    simulate: Simulate, spools: tuple[Spool, Spool]
) -> None:
    done = simulate()
    assert done.returncode == 78
    assert b"--yes-publish" in done.stderr
    assert b"Traceback" not in done.stderr
    assert [documents(spool) for spool in spools] == [[], []]


def test_a_hook_whose_spool_no_demo_made_is_refused(
    simulate: Simulate, spools: tuple[Spool, Spool], tmp_path: Path
) -> None:
    hook, roots = tmp_path / "hook", [spool.root for spool in spools]
    install_hook.install(hook, *roots, install_hook.best_python())
    done = simulate("--hook", str(hook))
    assert done.returncode == 78
    assert b"--yes-publish" in done.stderr
    assert [documents(spool) for spool in spools] == [[], []]


def test_a_demos_spool_with_another_fallback_spool_is_refused(
    simulate: Simulate, spools: tuple[Spool, Spool]
) -> None:
    marker.write_marker(spools[0].root, "127.0.0.1:1")
    assert simulate().returncode == 78
    assert [documents(spool) for spool in spools] == [[], []]


def test_a_file_that_is_not_a_hook_is_not_started(
    simulate: Simulate, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    done = simulate("--hook", str(program), "--yes-publish")
    assert done.returncode == 78
    assert b"--hook" in done.stderr
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("with_hook", [False, True])
def test_a_demo_s_spool_stores_the_attack_in_order(
    simulate: Simulate, spools: tuple[Spool, Spool], tmp_path: Path, *, with_hook: bool
) -> None:
    for spool in spools:
        marker.write_marker(spool.root, "127.0.0.1:1")
    hook, roots = tmp_path / "hook", [spool.root for spool in spools]
    install_hook.install(hook, *roots, install_hook.best_python())
    done = simulate(*(("--hook", str(hook)) if with_hook else ()))
    assert done.returncode == 0, done.stderr
    printed = simulate("--print").stdout.splitlines(keepends=True)
    assert documents(spools[0]) == printed


def test_yes_publish_uses_any_spool(
    simulate: Simulate, spools: tuple[Spool, Spool]
) -> None:
    done = simulate("--yes-publish")
    assert done.returncode == 0, done.stderr
    assert len(documents(spools[0])) == len(simulate("--print").stdout.splitlines())


def test_print_stores_nothing(simulate: Simulate, spools: tuple[Spool, Spool]) -> None:
    done = simulate("--print")
    assert (done.returncode, done.stderr) == (0, b"")
    assert [documents(spool) for spool in spools] == [[], []]


def test_a_missing_spool_exits_75(
    simulate: Simulate, spools: tuple[Spool, Spool]
) -> None:
    for spool in spools:
        shutil.rmtree(spool.root)
    done = simulate("--yes-publish")
    assert done.returncode == 75
    assert b"calls failed" in done.stderr
