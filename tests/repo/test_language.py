"""The language of docs/style.md: words that no sentence and no name contains."""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
REFUSED = re.compile(
    r"\b(says?|said|tells?|told|hears?|heard|anew|once more|likewise|whatever|whoever"
    r"|mends?|mended|of which|of whom|but for|so many|(is|are|was|were) (gone|away)"
    r"|stands?(?! by)|stood|is content|lapsed?|lapses)\b",
    re.IGNORECASE,
)
NOUN_CLAUSE = re.compile(r"\bwhat\b(?![^.]*\?)", re.IGNORECASE)
CLAUSES_PER_THOUSAND = 0.5
"""Noun clauses with "what" in 1,000 words; akvorado's documentation has 0.16."""
NAMES = {"it", "of", "found", "known", "what", "why", "one", "all_", "there", "who"}
"""Pronouns and function words that name nothing."""
NOT_PROSE = re.compile(r"```.*?```|`[^`\n]*`|\]\([^)]*\)|<!--.*?-->", re.DOTALL)
PACKAGES = sorted(
    path.parent.relative_to(ROOT).as_posix()
    for top in ("fnm_bus", "consumers")
    for path in (ROOT / top).rglob("__init__.py")
    if path.parent.parent in {ROOT, ROOT / top}
)


class Sentence(NamedTuple):
    """A text that a person reads.

    Attributes:
        place: file and line.
        text: without code.
    """

    place: str
    text: str


def tracked(*patterns: str) -> list[Path]:
    """Return the repository's files."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [ROOT / name for name in listed.stdout.splitlines()]


def sources(package: str) -> list[Path]:
    """Return a package's Python files, for a top package those beside its folders."""
    directory = ROOT / package
    files = directory.glob("*.py") if "/" not in package else directory.rglob("*.py")
    return sorted(files)


def sentences(source: str, name: str) -> Iterator[Sentence]:
    """Yield docstrings, comments and messages of a Python file.

    A literal without a space is a key or a name, and no message.
    """
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        place = f"{name}:{token.start[0]}"
        if token.type == tokenize.COMMENT:
            yield Sentence(place, token.string)
        elif token.type == tokenize.STRING and " " in token.string:
            yield Sentence(place, NOT_PROSE.sub(" ", token.string))


def refused(texts: Iterator[Sentence]) -> list[str]:
    """Return each word that the dictionary refuses, with its place."""
    return [
        f"{place}: {match[0]!r}: {text[max(0, match.start() - 40) : match.end() + 40]}"
        for place, text in texts
        for match in REFUSED.finditer(text)
    ]


def bad_names(source: str, name: str) -> list[str]:
    """Return each variable, parameter, field and function with a pronoun's name."""
    return [
        f"{name}:{line}: {word}"
        for line, word in _bound_names(ast.parse(source))
        if word in NAMES
    ]


def _bound_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=word, ctx=ast.Store()) | ast.arg(arg=word):
                yield node.lineno, word
            case ast.FunctionDef(name=word) | ast.AsyncFunctionDef(name=word):
                yield node.lineno, word
            case ast.MatchAs(name=str(word)) | ast.MatchStar(name=str(word)):
                yield node.lineno, word


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_no_pronoun_as_a_name(package: str) -> None:
    names = [
        line
        for path in sources(package)
        for line in bad_names(path.read_text(), str(path.relative_to(ROOT)))
    ]
    assert not names, "\n".join(names)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_uses_the_words_of_the_dictionary(package: str) -> None:
    words = [
        line
        for path in sources(package)
        for line in refused(sentences(path.read_text(), str(path.relative_to(ROOT))))
    ]
    assert not words, "\n".join(words)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_uses_nouns_for_things(package: str) -> None:
    texts = [
        sentence.text
        for path in sources(package)
        for sentence in sentences(path.read_text(), path.name)
    ]
    assert clauses_per_thousand(texts) <= CLAUSES_PER_THOUSAND


def documents() -> list[Path]:
    """Return the documents, without the dictionary itself."""
    return [p for p in tracked("*.md") if p.name != "style.md"]


@pytest.mark.parametrize("path", documents(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_document_uses_the_words_of_the_dictionary(path: Path) -> None:
    text = NOT_PROSE.sub(" ", path.read_text())
    lines = (
        Sentence(f"{path.name}:{number}", line)
        for number, line in enumerate(text.splitlines(), 1)
    )
    assert not refused(lines)


def test_documents_use_nouns_for_things() -> None:
    texts = [NOT_PROSE.sub(" ", path.read_text()) for path in documents()]
    assert clauses_per_thousand(texts) <= CLAUSES_PER_THOUSAND


def clauses_per_thousand(texts: list[str]) -> float:
    """Return the number of noun clauses with "what" in 1,000 words."""
    words = sum(len(text.split()) for text in texts)
    clauses = sum(len(NOUN_CLAUSE.findall(text)) for text in texts)
    return 1000 * clauses / max(words, 1000)


@pytest.mark.parametrize(
    "sentence", ["the relay says no", "What stands is blocked.", "sent anew"]
)
def test_a_refused_word_is_noticed(sentence: str) -> None:
    assert refused(iter([Sentence("here", sentence)]))


@pytest.mark.parametrize(
    "source",
    ["it = 1", "def f(of): ...", "[one for one in range(3)]", "def why(): ..."],
)
def test_a_pronoun_is_noticed(source: str) -> None:
    assert bad_names(source, "here")
