"""The reference pages match the code."""

import subprocess
import sys
from pathlib import Path

import pytest

from fnm_bus.config import load


@pytest.fixture(autouse=True)
def no_system_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(load, "FILE", tmp_path / "etc.toml")


def test_the_reference_is_as_the_code_is() -> None:
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
