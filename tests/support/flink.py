"""Flink SQL in one process, by a small program in Java."""

import shutil
import subprocess
from pathlib import Path

from support import fetch
from support.fetch import Unavailable

PROGRAM = Path(__file__).parents[1] / "readers" / "FlinkSql.java"
_SECONDS = 900
_OPEN = ("--add-opens=java.base/java.util=ALL-UNNAMED",)


def answers(directory: Path, text: str) -> list[list[list[str]]]:
    """Return the rows of each query in a text; other statements have no rows.

    Raises:
        Unavailable: a Java compiler is missing, or Flink cannot be fetched.
    """
    jars = f"{fetch.flink()}/*"
    java, compiler = shutil.which("java"), shutil.which("javac")
    if java is None or compiler is None:
        raise Unavailable("a Java development kit (java, javac) is not installed")
    classes = directory / "classes"
    subprocess.run(
        [compiler, "-cp", jars, "-d", str(classes), str(PROGRAM)], check=True
    )
    file = directory / "statements.sql"
    file.write_text(text)
    done = subprocess.run(
        [java, "-Xmx1g", *_OPEN, "-cp", f"{classes}:{jars}", "FlinkSql", str(file)],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    parts = done.stdout.split("==\n")[1:]
    return [[line.split("\t") for line in part.splitlines()] for part in parts]
