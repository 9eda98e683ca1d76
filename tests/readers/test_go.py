"""Go: hamba/avro with its registry client, and franz-go."""

import base64
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support import fetch, recipes
from support.reader_topics import ReaderTopics


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built with the modules of its first line."""
    directory = tmp_path_factory.mktemp("go")
    recipes.write("reader.go", directory)
    fetched = fetch.go_modules(*recipes.packages("reader.go"))
    for name in ("go.mod", "go.sum"):
        shutil.copy(fetched / name, directory)
    environment = {**os.environ, "GOFLAGS": "-mod=mod"}
    subprocess.run(
        ["go", "build", "-o", "reader", "."],
        cwd=directory,
        env=environment,
        check=True,
        timeout=600,
    )
    return directory / "reader"


def test_go_reads_every_framed_record(
    reader_topics: ReaderTopics, reader: Path
) -> None:
    sent = reader_topics.framed()
    command = [reader, *reader_topics.arguments(sent)]
    recipes.assert_equal(recipes.lines_of(command, len(sent)), sent, base64.b64decode)
