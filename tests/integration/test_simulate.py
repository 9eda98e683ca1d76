"""`fnm-bus simulate` stores nothing in a real spool without --yes-publish."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fnm_bus.demo import marker
from fnm_bus.setup import install_hook
from fnm_bus.spool.spool import Spool

Simulate = Callable[..., subprocess.CompletedProcess[bytes]]
OPTIONS = ("--hosts", "2", "--updates", "1", "--seed", "3", "--rate", "100")


@pytest.fixture
def spools(tmp_path: Path) -> tuple[Spool, Spool]:
    """The configured spool and fallback spool."""
    made = Spool(tmp_path / "spool"), Spool(tmp_path / "fallback")
    for spool in made:
        spool.make(os.getuid(), os.getgid())
    return made


@pytest.fixture
def simulate(tmp_path: Path) -> Simulate:
    """Run `simulate` with a configuration of its own."""
    file = tmp_path / "fnm-bus.toml"
    file.write_text(
        f'[spool]\ndirectory = "{tmp_path}/spool"\nfallback = "{tmp_path}/fallback"\n'
        '[kafka]\n"bootstrap.servers" = "127.0.0.1:1"\n'
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "fnm_bus", "simulate", *OPTIONS, *arguments],
            env={**os.environ, "FNM_BUS_CONFIG": str(file)},
            capture_output=True,
            timeout=60,
            check=False,
        )

    return run


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


def test_a_missing_spool_ends_with_75(simulate: Simulate) -> None:
    done = simulate("--yes-publish")
    assert done.returncode == 75
    assert b"calls failed" in done.stderr
