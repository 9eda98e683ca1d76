"""The marker tells a demo's spool from every other spool."""

import os
from pathlib import Path

import pytest

from fnm_bus.demo import marker
from fnm_bus.errors import ConfigError, SpoolError

BROKER = "127.0.0.1:4711"


def test_a_marked_spool_names_the_demos_broker(tmp_path: Path) -> None:
    marker.write_marker(tmp_path, BROKER)
    assert marker.read_marker(tmp_path) == BROKER
    marker.require_broker(tmp_path, BROKER)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        '{"bootstrap": 7}',
        '{"bootstrap": ""}',
        '{"bootstrap": null}',
        "\xff",
        f'{{"bootstrap": "{"x" * 5000}"}}',
    ],
)
def test_other_files_are_not_markers(tmp_path: Path, text: str) -> None:
    (tmp_path / marker.NAME).write_text(text, encoding="latin-1")
    assert marker.read_marker(tmp_path) is None
    with pytest.raises(ConfigError, match="not made by a demo"):
        marker.require_broker(tmp_path, BROKER)


def test_a_pipe_instead_of_a_marker_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / marker.NAME)
    assert marker.read_marker(tmp_path) is None


def test_a_spool_without_a_marker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not made by a demo"):
        marker.require_broker(tmp_path / "missing", BROKER)


@pytest.mark.parametrize("bootstrap", ["kafka:9092", "", None, f"{BROKER},kafka:9092"])
def test_another_broker_than_the_demos_is_refused(
    tmp_path: Path, bootstrap: str | None
) -> None:
    marker.write_marker(tmp_path, BROKER)
    with pytest.raises(ConfigError, match=r"bootstrap\.servers"):
        marker.require_broker(tmp_path, bootstrap)


def test_an_unwritable_marker_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match=marker.NAME):
        marker.write_marker(tmp_path / "missing", BROKER)
