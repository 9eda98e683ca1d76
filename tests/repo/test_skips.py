"""A skipped test fails a run with CI=true, in one process and in several."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PLANTED = """\
import pytest

def test_passes():
    print("\\udcff")  # a file name that is not UTF-8

def test_skips():
    pytest.skip("planted")

@pytest.mark.xfail
def test_fails_as_expected():
    raise AssertionError
"""
WHOLE_FILE = 'import pytest\npytest.skip("planted", allow_module_level=True)\n'


def run(directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    shutil.copy(TESTS / "conftest.py", directory)
    (directory / "test_planted.py").write_text(PLANTED)
    (directory / "test_whole_file.py").write_text(WHOLE_FILE)
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            directory,
            *arguments,
        ],
        cwd=directory,
        env={**os.environ, "CI": "true", "PYTHONPATH": f"{TESTS.parent}:{TESTS}"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("workers", ["0", "2"])
def test_skips_fail_the_run_in_ci(tmp_path: Path, workers: str) -> None:
    ended = run(tmp_path, "-n", workers)
    assert ended.returncode == pytest.ExitCode.TESTS_FAILED, ended.stdout
    _, listed = ended.stdout.split("skipped, which CI=true does not allow")
    assert "test_planted.py::test_skips\ntest_whole_file.py\n" in listed
    assert "1 passed, 2 skipped, 1 xfailed" in listed
