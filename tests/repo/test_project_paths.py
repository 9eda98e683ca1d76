"""Files that the project's settings name exist: a renamed one is not left behind."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TOOLS = PROJECT["tool"]
BUILD = TOOLS["hatch"]["build"]["targets"]
PATHS = {
    "ruff": [
        *TOOLS["ruff"]["extend-exclude"],
        *TOOLS["ruff"]["lint"]["per-file-ignores"],
    ],
    "mypy": TOOLS["mypy"]["packages"],
    "mutmut": [
        *TOOLS["mutmut"]["source_paths"],
        *TOOLS["mutmut"]["only_mutate"],
        *TOOLS["mutmut"]["also_copy"],
        *TOOLS["mutmut"]["pytest_add_cli_args_test_selection"],
    ],
    "pytest": [
        *TOOLS["pytest"]["ini_options"]["testpaths"],
        *TOOLS["pytest"]["ini_options"]["pythonpath"],
    ],
    "hatch": [
        *(path.lstrip("/") for path in BUILD["sdist"]["include"]),
        *BUILD["wheel"]["packages"],
        *BUILD["wheel"]["force-include"],
        BUILD["wheel"]["hooks"]["custom"]["path"],
    ],
}


@pytest.mark.parametrize(
    ("tool", "pattern"),
    [(tool, pattern) for tool, patterns in PATHS.items() for pattern in patterns],
)
def test_a_path_in_the_settings_of_a_tool_exists(tool: str, pattern: str) -> None:
    del tool
    assert any(ROOT.glob(pattern.removesuffix("/**")))


def test_programs_in_the_makefile_exist() -> None:
    text = (ROOT / "Makefile").read_text()
    programs = re.findall(r"\b(?:benchmarks|docs|docker|schemas)/[\w.-]+", text)
    assert len(programs) > 3
    assert [path for path in programs if not (ROOT / path).exists()] == []
