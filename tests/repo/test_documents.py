"""Commands, files, links, targets of make and tests that documents name exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import fault_of

from fnm_bus import __version__

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = sorted(
    path
    for path in (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("*/README.md"),
        *ROOT.glob("examples/**/*.md"),
    )
    if path.name != "CHANGELOG.md" and path.parent.name != "reference"  # generated
)
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
PROGRAM = r"(?:fnm-bus|fnm-bus-consumer)"

TARGETS = sorted(set(re.findall(r"(?:^    |`)make ([a-z-]+)", README, re.MULTILINE)))

each_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: str(page.relative_to(ROOT))
)


def code_lines(text: str) -> Iterator[str]:
    """Yield the lines of code blocks, fenced and indented."""
    fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.strip()


def commands(text: str) -> Iterator[str]:
    """Yield the command lines of our programs in code blocks and in prose."""
    for line in code_lines(text):
        # First on its line, or behind a prompt, variable, pipe, path or container.
        match = re.search(
            rf"(?:^|^\$ |^\w+=\S* |\| |/bin/|exec \w+ )({PROGRAM} [a-z-].*)$", line
        )
        if match and "…" not in match[1]:
            yield match[1]
    yield from re.findall(rf"`({PROGRAM} [a-z-][^`…]*)`", text)


def slug(heading: str) -> str:
    """Return the anchor that a Markdown heading gets."""
    words = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return words.replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {
        slug(line.lstrip("#"))
        for line in page.read_text("utf-8").splitlines()
        if line.startswith("#")
    }


@each_page
def test_commands_that_a_page_names_exist(page: Path) -> None:
    faults = (fault_of(line) for line in commands(page.read_text("utf-8")))
    # A group of commands is named in prose by its own name.
    wrong = [
        fault
        for fault in faults
        if fault and "a further command is missing" not in fault
    ]
    assert wrong == []


@each_page
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@each_page
def test_pip_runs_in_a_virtual_environment_without_an_index(page: Path) -> None:
    """fnm-bus is on no index, and Debian refuses to change its own Python."""
    text = page.read_text("utf-8")
    assert re.findall(r"(?<!/bin/)\bpip install", text) == []
    arguments = re.findall(r"/bin/pip install ((?:-\S+ )*\"?fnm-bus\S*(?: @)?)", text)
    assert [argument for argument in arguments if not argument.endswith(" @")] == []


@pytest.mark.parametrize("target", TARGETS)
def test_targets_of_make_in_the_readme_exist(target: str) -> None:
    assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


def test_files_in_examples_of_the_readme_exist() -> None:
    folders = "|".join(path.name for path in ROOT.iterdir() if path.is_dir())
    code = [*code_lines(README), *re.findall(r"`([^`\n]+)`", README)]
    text = "\n".join(code)
    files = re.findall(rf"(?<![\w/.-])(?:{folders})/[\w./-]+", text)
    built = f"dist/fnm_bus-{__version__}-py3-none-any.whl"
    assert "schemas/avro/examples/notifications/01-ban.json" in files
    assert [
        file for file in files if file != built and not (ROOT / file).exists()
    ] == []


def test_every_named_test_exists() -> None:
    files = [*(ROOT / "tests").rglob("test_*.py")]
    names = {path.name for path in files}
    for path in files:
        names |= set(re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE))
    named = {
        name
        for page in PAGES
        for name in re.findall(r"\btest_\w+(?:\.py)?", page.read_text("utf-8"))
    }
    assert len(named) > 40
    assert named <= names, named - names
