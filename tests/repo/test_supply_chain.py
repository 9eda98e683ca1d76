"""Where things come from is the machine's matter; the project names no place."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
BUILD_FILES = (
    *("Makefile", "pyproject.toml", "docker-compose.yml", ".env.example", ".ci/run"),
    *("requirements", "docker", "packaging", ".github"),
)
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def tracked(*paths: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *paths],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = YAML(typ="safe", pure=True).load(workflow.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def test_no_file_of_the_build_names_a_host() -> None:
    """A host has a dot in its name; those of the stack's own network have none."""
    url = re.compile(r"\w+://(?:[\w.-]+@)?([\w-]+(?:\.[\w-]+)+)")
    named = {
        (str(path.relative_to(ROOT)), host)
        for path in tracked(*BUILD_FILES)
        for host in url.findall(path.read_text(errors="replace"))
        if host != "127.0.0.1"
    }
    assert named == set()


def test_no_image_names_a_registry() -> None:
    texts = [(ROOT / "docker-compose.yml").read_text()]
    texts.append((ROOT / "docker/Dockerfile").read_text())
    names = re.findall(r"^ARG \w+_IMAGE=(\S+)", texts[1], re.MULTILINE)
    names += re.findall(r"_IMAGE:-([^}]+)\}", texts[0])
    assert len(names) == 7
    for name in names:
        first, slash, _ = name.partition("/")
        assert not slash or not {".", ":"} & set(first), name


def test_every_base_image_can_be_pinned() -> None:
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    stages = set(re.findall(r" AS (\S+)$", dockerfile, re.MULTILINE))
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert {base for base in bases if base not in stages} == {
        "${PYTHON_IMAGE}",
        "${DEBIAN_IMAGE}",
    }


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_only_calls_make(workflow: Path) -> None:
    for step in steps(workflow):
        if "run" in step:
            assert re.fullmatch(r"make [\w =-]+", step["run"]), step
        else:
            assert step["uses"].startswith("actions/checkout@"), step


def test_targets_that_workflows_call_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    called = {
        word
        for workflow in WORKFLOWS
        for step in steps(workflow)
        for word in step.get("run", "").split()[1:]
        if "=" not in word
    }
    assert called
    assert [
        call for call in called if not re.search(rf"^{call}:", makefile, re.MULTILINE)
    ] == []
