"""`make sbom` lists the packages of the image: the lock, and fnm-bus."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker

from fnm_bus import __version__

ROOT = Path(__file__).parents[2]


def pinned() -> set[tuple[str, str]]:
    """Return name and version of each package that the image's lock installs here."""
    lock = (ROOT / "requirements/image.txt").read_text()
    lines = re.findall(r"^(\S+)==(\S+?)(?: ; (.+?))? \\$", lock, re.MULTILINE)
    return {
        (name, version)
        for name, version, marker in lines
        if not marker or Marker(marker).evaluate()
    }


@pytest.fixture(scope="module")
def sbom() -> Any:
    home = Path(sys.executable).parent
    # The environment of the tests takes the place of the Makefile's.
    command = ["make", "-o", ".venv/.ready", "sbom", f"BIN={home}"]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        [*command, f"PYTHON={sys.executable}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((ROOT / "dist/fnm-bus.cdx.json").read_text())


@pytest.mark.timeout(600)
def test_the_sbom_lists_the_locked_versions_and_fnm_bus(sbom: Any) -> None:
    assert sbom["bomFormat"] == "CycloneDX"
    listed = {
        (re.sub(r"[-_.]+", "-", component["name"]).lower(), component["version"])
        for component in sbom["components"]
    }
    assert listed == {*pinned(), ("fnm-bus", __version__)}


def test_the_sbom_names_licences_and_dependencies(sbom: Any) -> None:
    with_license = [
        component for component in sbom["components"] if component.get("licenses")
    ]
    assert len(with_license) > len(sbom["components"]) / 2
    [own] = [
        dependency
        for dependency in sbom["dependencies"]
        if dependency["ref"].startswith("fnm-bus==")
    ]
    assert any(ref.startswith("fastavro==") for ref in own["dependsOn"])
