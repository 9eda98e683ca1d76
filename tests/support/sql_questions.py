"""The files of examples/sql, and the engines that answer them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from support import fetch

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "sql"
ENGINE = ROOT / "tests" / "readers" / "sql_engine.py"
_SECONDS = 600
_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T](\d\d:\d\d:\d\d)(\.\d+)?Z?")


class Question(NamedTuple):
    """A statement of examples/sql; the name is empty if the statement asks nothing."""

    name: str
    statement: str


def questions(engine: str) -> list[Question]:
    """Return the statements of an engine's file, in order."""
    found = []
    for text in statements((EXAMPLES / f"{engine}.sql").read_text()):
        names = re.findall(r"(?m)^-- (\w+)(?::.*)?$", text)
        found.append(Question(names[-1] if names else "", text))
    return found


def statements(text: str) -> list[str]:
    """Return the statements of a text; each one ends with a semicolon and a line."""
    return [part.strip() for part in re.split(r";\n", text) if without_comments(part)]


def without_comments(statement: str) -> str:
    return re.sub(r"(?m)^--.*\n?", "", statement).strip()


def execute(engine: str, texts: list[str], directory: Path) -> list[list[list[str]]]:
    """Return the rows of each statement, executed in a directory.

    Raises:
        Unavailable: the engines cannot be installed.
    """
    done = subprocess.run(
        [sys.executable, str(ENGINE), engine],
        input=json.dumps([without_comments(text) for text in texts]),
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(fetch.sql_engines()), "TZ": "UTC"},
        text=True,
        capture_output=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def comparable(rows: list[list[str]]) -> list[tuple[str, ...]]:
    """Return rows with every time as hours, minutes and seconds."""
    return [tuple(_TIME.sub(r"\1", value) for value in row) for row in rows]
