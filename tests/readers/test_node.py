"""Node: avsc, kafkajs and its registry client."""

from pathlib import Path
from typing import Any

import pytest
from support import fetch, recipes
from support.reader_topics import ReaderTopics


@pytest.fixture(scope="module")
def modules() -> Path:
    """The directory `node_modules` with the program's packages."""
    return fetch.node_modules(*recipes.packages("reader.mjs")) / "node_modules"


def test_node_reads_every_framed_record(
    reader_topics: ReaderTopics, modules: Path, tmp_path: Path
) -> None:
    program = recipes.write("reader.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(modules)
    sent = reader_topics.framed()
    command = ["node", program, *reader_topics.arguments(sent)]
    records = recipes.lines_of(command, len(sent))
    recipes.assert_equal(records, sent, buffer_bytes)


def buffer_bytes(value: Any) -> bytes:
    """Return a Buffer that Node printed as JSON."""
    return bytes(value["data"])
