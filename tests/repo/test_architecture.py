"""The folders: as docs/architecture.md lists them, and small enough to read."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text()
PACKAGES = sorted(
    path.parent.relative_to(ROOT)
    for top in ("fnm_bus", "consumers")
    for path in (ROOT / top).rglob("__init__.py")
)
NAMES = {Path(name).stem for name in re.findall(r"`([\w./]+)`", TEXT)}


# Each file of a `cli` is one command; docs/reference/cli.md lists them.
LISTED = [package for package in PACKAGES if package.name != "cli"]


@pytest.mark.parametrize("package", LISTED, ids=str)
def test_every_module_is_in_the_document(package: Path) -> None:
    modules = {path.stem for path in (ROOT / package).glob("[!_]*.py")}
    assert modules <= NAMES, modules - NAMES


@pytest.mark.parametrize("package", PACKAGES, ids=str)
def test_a_folder_has_at_most_16_files(package: Path) -> None:
    files = list((ROOT / package).glob("*.py"))
    assert len(files) <= 16 or package.name == "cli", [path.name for path in files]


def test_the_top_of_the_package_is_small() -> None:
    top = ROOT / "fnm_bus"
    assert (
        len([path for path in top.iterdir() if (path / "__init__.py").exists()]) <= 12
    )
    assert len(list(top.glob("*.py"))) <= 6


def test_every_path_in_the_document_exists() -> None:
    paths = re.findall(r"`((?:fnm_bus|consumers)/[\w/.]+)`", TEXT)
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).exists()] == []
