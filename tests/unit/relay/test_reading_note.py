"""The note with the names of the entries being read."""

from pathlib import Path

import pytest

from fnm_bus.errors import SpoolError
from fnm_bus.relay.reading_note import ReadingNote

NAMES = [f"{'a' * 32}-{n:012d}-0000100-0000000a" for n in range(5)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "reading"


def test_a_missing_note_suspects_no_entry(path: Path) -> None:
    assert ReadingNote(path).read() == frozenset()


def test_the_next_process_reads_the_note(path: Path) -> None:
    ReadingNote(path).write(NAMES)
    assert ReadingNote(path).read() == set(NAMES)


def test_a_shorter_note_hides_the_rest_of_a_longer_one(path: Path) -> None:
    note = ReadingNote(path)
    note.write(NAMES)
    note.write(NAMES[:2])
    assert ReadingNote(path).read() == set(NAMES[:2])
    note.write([])
    assert ReadingNote(path).read() == frozenset()


def test_invalid_names_in_the_note_are_ignored(path: Path) -> None:
    path.write_bytes(b"\xff\0\n../../etc/passwd\n" + NAMES[0].encode() + b"\nhalf-")
    assert ReadingNote(path).read() == {NAMES[0]}


def test_an_unwritable_note_is_a_spool_error(path: Path) -> None:
    path.mkdir()
    with pytest.raises(SpoolError, match="reading"):
        ReadingNote(path).write(NAMES)
    with pytest.raises(SpoolError, match="remove it"):
        ReadingNote(path).read()


def test_a_closed_note_can_be_written_again(path: Path) -> None:
    note = ReadingNote(path)
    note.write(NAMES)
    note.close()
    note.write(NAMES[:1])
    assert note.read() == {NAMES[0]}
