"""The Python hook and its interpreter."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.installed_hook import SAMPLE, InstalledHook

STARTED = {0, 75}
"""Statuses of a hook that has run."""


def documented_statuses() -> set[int]:
    text = (Path(__file__).parents[3] / "docs/fastnetmon.md").read_text()
    table = text.partition("## Exit status of the hook")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE)
    return {int(status) for cell in cells for status in cell.split(",")}


def test_nothing_beside_the_hook_is_imported(
    installed: InstalledHook, tmp_path: Path
) -> None:
    """Not from the directory of the hook, nor from that in which it is started."""
    for module in ("posix", "sys", "os", "fcntl", "select", "time"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit(99)\n")
    assert installed(SAMPLE, cwd=tmp_path).returncode == 0
    python = Path(sys.executable).resolve()
    argv = [python, "-X", "importtime", "-IS", installed.path]
    done = subprocess.run(argv, input=SAMPLE, check=True, capture_output=True)
    bare = subprocess.run(
        [python, "-X", "importtime", "-IS", "-c", "pass"],
        check=True,
        capture_output=True,
    )
    assert done.stderr.count(b"\n") <= bare.stderr.count(b"\n")


@pytest.mark.parametrize("mebibytes", [1, 4, 7, 8, 9, 10, 11, 12, 13, 14, 16, 24])
def test_a_python_that_cannot_start_ends_with_a_documented_status(
    installed: InstalledHook, mebibytes: int
) -> None:
    installed.use("/usr/bin/python3")
    limit = f'ulimit -v {mebibytes * 1024}; "$0"; exit $?'
    argv = ["sh", "-c", limit, installed.path]
    done = subprocess.run(
        argv, input=SAMPLE, capture_output=True, check=False, env={}, timeout=60
    )
    assert done.returncode in documented_statuses()
    assert (done.returncode == 0) == (len(installed.entries()) == 1)


@pytest.mark.parametrize(("how", "status"), [("missing", 127), ("mode", 126)])
def test_a_hook_that_cannot_be_executed_ends_with_a_documented_status(
    installed: InstalledHook, how: str, status: int
) -> None:
    if how == "missing":
        installed.use("/nowhere/python3")
    else:
        installed.path.chmod(0o644)
    argv = ["sh", "-c", '"$0"', installed.path]
    done = subprocess.run(argv, input=SAMPLE, capture_output=True, check=False)
    assert done.returncode == status
    assert status in documented_statuses() - STARTED
