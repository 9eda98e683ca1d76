"""Entries: their bytes, and oversized ones."""

import hashlib
import os

import pytest
from support.spool_box import Box, name

from fnm_bus.spool import entry as entries


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"fnm-bus 1 ",
        b"fnm-bus 1 2\0ban\0{}",
        b"fnm-bus 1 x\0{}",
        b"fnm-bus 1 99999999999999\0{}",
        b"fnm-bus 1 9999\0" + b"\0" * 10_000,
        b"fnm-bus 2 0\0{}",
        b"\0",
    ],
)
def test_bytes_of_another_program_are_a_document(data: bytes) -> None:
    assert entries.decode_entry(data) == ((), data)


def test_a_truncated_oversized_document_exceeds_the_parser_s_limit(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "_MAX_READ", 1_000)
    box.store(name(5), b"x" * 5_000)
    entry = box.spool.read(name(5))
    assert 900 < len(entry.document) <= 1_000
    assert entry.size > 5_000


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("length", [1_000, 1_001, 2_000, 5_000])
def test_size_and_digest_cover_the_whole_oversized_document(
    box: Box, monkeypatch: pytest.MonkeyPatch, length: int, *, packed: bool
) -> None:
    monkeypatch.setattr(entries, "_MAX_READ", 900)
    monkeypatch.setattr(entries, "_CHUNK", 1_000)
    document = os.urandom(length)
    if packed:
        box.store(name(5), document)
    else:
        box.spool.path(name(5)).write_bytes(document)
    whole = box.spool.read(name(5)).oversized
    assert whole is not None
    digest = hashlib.sha256(document).hexdigest()
    assert whole == (length, f"sha256:{digest}")


def test_a_file_larger_than_any_entry_is_not_hashed(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a file may be sparse and have terabytes."""
    monkeypatch.setattr(entries, "_MAX_READ", 900)
    with box.spool.path(name(5)).open("wb") as file:
        file.truncate(1 << 40)
    assert box.spool.read(name(5)).oversized == (1 << 40, "")
