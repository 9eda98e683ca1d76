"""Flink SQL and Spark SQL in one process each, by a small program in Java."""

import shutil
import subprocess
from pathlib import Path

from support import fetch
from support.fetch import Unavailable

PROGRAMS = Path(__file__).parents[1] / "readers"
_SECONDS = 900
_OPENED = (
    *("java.lang", "java.lang.invoke", "java.net", "java.nio", "java.util"),
    *("java.util.concurrent", "sun.nio.ch", "sun.util.calendar"),
)
"""Packages of Java that both engines reach by reflection."""

Answers = list[list[list[str]]]


def flink(directory: Path, text: str) -> Answers:
    """Return the rows of each query in a text; other statements have no rows.

    Raises:
        Unavailable: a Java compiler is missing, or Flink cannot be fetched.
    """
    return _answers(fetch.flink(), "FlinkSql", directory, text)


def spark(directory: Path, text: str) -> Answers:
    """Return the rows of each query in a text; other statements have no rows.

    Raises:
        Unavailable: a Java compiler is missing, or Spark cannot be fetched.
    """
    return _answers(fetch.spark(), "SparkSql", directory, text)


def _answers(jars: Path, program: str, directory: Path, text: str) -> Answers:
    java, compiler = shutil.which("java"), shutil.which("javac")
    if java is None or compiler is None:
        raise Unavailable("a Java development kit (java, javac) is not installed")
    classes = directory / "classes"
    source = PROGRAMS / f"{program}.java"
    subprocess.run(
        [compiler, "-cp", f"{jars}/*", "-d", str(classes), str(source)], check=True
    )
    file = directory / "statements.sql"
    file.write_text(text)
    options = [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in _OPENED]
    path = f"{classes}:{jars}/*"
    done = subprocess.run(
        [java, "-Xmx1500m", *options, "-cp", path, program, str(file)],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    parts = done.stdout.split("==\n")[1:]
    return [[line.split("\t") for line in part.splitlines()] for part in parts]
