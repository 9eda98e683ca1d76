"""The pinned installs: complete, hashed, and without the address of any registry."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ("runtime", "image", "build", "dev")


def text(lock: str) -> str:
    return (ROOT / "requirements" / f"{lock}.txt").read_text()


def plain(requirement: str) -> str:
    """Return the name of a requirement, as the Python packaging rules compare it."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def pinned(lock: str) -> dict[tuple[str, str], frozenset[str]]:
    """Return the hashes of each version and its condition."""
    requirements = {}
    for block in re.split(r"\n(?=\S)", text(lock).strip()):
        head, *rest = block.split("\n")
        requirement, _, condition = head.rstrip(" \\").partition(" ; ")
        lines = [line.strip(" \\") for line in rest if "--hash=" in line]
        requirements[requirement, condition] = frozenset(lines)
    return requirements


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_has_a_version_and_hashes(lock: str) -> None:
    for (requirement, _), hashes in pinned(lock).items():
        assert re.fullmatch(r"[a-z0-9-]+==[0-9a-zA-Z.!+-]+", requirement), requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", h) for h in hashes)


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("foreign", ["://", " @ ", "--index", "--find", "--extra", "/"])
def test_a_lock_names_no_address_and_no_place(lock: str, foreign: str) -> None:
    lines = [
        line for line in text(lock).split("\n") if not line.strip().startswith("#")
    ]
    assert not [line for line in lines if foreign in line]


@pytest.mark.parametrize("lock", ["runtime", "image", "build"])
def test_the_locks_have_the_same_versions(lock: str) -> None:
    developed = pinned("dev")
    names = {plain(requirement) for requirement, _ in developed}
    for (requirement, condition), hashes in pinned(lock).items():
        assert plain(requirement) in names
        assert developed[requirement, condition] == hashes


def declared_by() -> dict[str, list[str]]:
    """Return the requirements of each lock."""
    metadata, groups = project()["project"], project()["dependency-groups"]
    named = [
        requirement for requirement in groups["dev"] if isinstance(requirement, str)
    ]
    assert {"include-group": "build"} in groups["dev"]
    return {
        "runtime": metadata["dependencies"],
        "image": metadata["dependencies"] + metadata["optional-dependencies"]["exabgp"],
        "build": groups["build"],
        "dev": metadata["dependencies"] + named + groups["build"],
    }


@pytest.mark.parametrize(("lock", "declared"), declared_by().items())
def test_every_declared_dependency_is_pinned(lock: str, declared: list[str]) -> None:
    names = {plain(requirement) for requirement, _ in pinned(lock)}
    assert {plain(requirement) for requirement in declared} <= names


@pytest.mark.parametrize("name", ["exabgp", "fastavro", "jiter"])
def test_packages_with_parsed_texts_have_an_upper_bound(name: str) -> None:
    declared = [
        *project()["project"]["dependencies"],
        *project()["project"]["optional-dependencies"]["exabgp"],
        *project()["dependency-groups"]["dev"],
    ]
    texts = [
        requirement
        for requirement in declared
        if isinstance(requirement, str) and plain(requirement) == name
    ]
    [version] = [
        text.partition("==")[2] for text, _ in pinned("dev") if plain(text) == name
    ]
    major, minor = version.split(".")[:2]
    assert texts
    assert {text.partition(",<")[2] for text in texts} == {f"{major}.{int(minor) + 1}"}
