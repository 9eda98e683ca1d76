"""The API processes of ExaBGP start from any directory."""

import subprocess
from pathlib import Path

import pytest

from consumers.enforcers.exabgp.conf_files import api_commands


def test_api_processes_never_import_from_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "consumers"
    trap.mkdir()
    (trap / "__init__.py").write_text("raise SystemExit(99)")
    monkeypatch.chdir(tmp_path)
    for command in api_commands(None):
        helped = subprocess.run(
            [*command, "--help"], capture_output=True, text=True, check=False
        )
        assert helped.returncode == 0, helped.stderr
        assert "exabgp [OPTIONS]" in helped.stdout
