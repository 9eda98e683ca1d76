import errno
import os
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from fastavro import reader

from fnm_bus.avro import schema
from fnm_bus.avro.archive import Archive
from fnm_bus.avro.examples import example_records
from fnm_bus.errors import ArchiveError
from fnm_bus.event import AnyRecord

HOST = "fastnetmon.HostEvent"
BAN = example_records(HOST)["ban"]


def stored(path: Path, full_name: str = HOST) -> list[AnyRecord]:
    with path.open("rb") as file:
        return [
            msgspec.convert(datum, type=schema.STRUCTS[full_name])
            for datum in reader(file)
        ]


@pytest.mark.parametrize("full_name", schema.RECORDS)
def test_an_archive_returns_every_record_of_every_type(
    tmp_path: Path, full_name: str
) -> None:
    path = tmp_path / "records.avro"
    records = list(example_records(full_name).values())

    with Archive(path, full_name) as archive:
        for record in records:
            archive.add(record)

    assert stored(path, full_name) == records


def test_an_archive_without_records_is_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "records.avro"

    with Archive(path, HOST):
        pass

    assert stored(path) == []


def test_a_growing_file_has_the_flushed_records(tmp_path: Path) -> None:
    path = tmp_path / "records.avro"

    with Archive(path, HOST) as archive:
        assert stored(path) == []
        archive.add(BAN)
        archive.flush()
        archive.add(BAN)
        assert stored(path) == [BAN]

    assert stored(path) == [BAN, BAN]


def test_every_size_that_a_reader_can_see_ends_with_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records.avro"
    counts = []
    write = os.write

    def write_and_read(file: int, data: Any) -> int:
        size = write(file, data)
        counts.append(len(stored(path)))
        return size

    monkeypatch.setattr(os, "write", write_and_read)
    with Archive(path, HOST) as archive:
        for _ in range(300):
            archive.add(BAN)

    assert counts[0] == 0
    assert counts[-1] == 300
    assert len(counts) > 3


def test_a_full_disk_leaves_complete_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records.avro"
    write = os.write
    archive = Archive(path, HOST)
    with archive:
        archive.add(BAN)
        archive.flush()

        def fill_disk(file: int, data: Any) -> int:
            if len(data) < 20:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(file, data[:-10])

        archive.add(BAN)
        monkeypatch.setattr(os, "write", fill_disk)
        with pytest.raises(ArchiveError, match="No space left"):
            archive.flush()
        assert stored(path) == [BAN]
        monkeypatch.undo()

    assert stored(path) == [BAN, BAN]


def test_an_interrupt_loses_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records.avro"
    write = os.write

    def interrupt(file: int, data: Any) -> int:
        write(file, data[:10])
        monkeypatch.undo()
        raise KeyboardInterrupt

    def add_until_interrupt() -> None:
        with Archive(path, HOST) as archive:
            archive.add(BAN)
            monkeypatch.setattr(os, "write", interrupt)
            archive.flush()

    with pytest.raises(KeyboardInterrupt):
        add_until_interrupt()

    assert stored(path) == [BAN]


def test_a_disk_without_space_for_the_header_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records.avro"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, "write", Mock(side_effect=full))
    files = len(list(Path("/proc/self/fd").iterdir()))

    with pytest.raises(ArchiveError, match="No space left"), Archive(path, HOST):
        pass

    assert not path.exists()
    assert len(list(Path("/proc/self/fd").iterdir())) == files


def test_an_existing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "records.avro"
    path.write_bytes(b"other")

    with pytest.raises(ArchiveError, match="exists"), Archive(path, HOST):
        pass

    assert path.read_bytes() == b"other"
