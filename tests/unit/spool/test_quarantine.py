"""The quarantine: it loses no entry and stays within its limits."""

import os
from pathlib import Path

import pytest

from fnm_bus import atomic_file
from fnm_bus.errors import SpoolError, SpoolFull
from fnm_bus.hook import python_hook
from fnm_bus.spool.quarantine import Quarantine
from fnm_bus.spool.spool import Entry, Spool

BOOT = "b" * 32
REASON = {"field": "/ip", "wanted": "an address", "got": "7", "reason": "/ip: 7"}


def name(ticks: int) -> str:
    return f"{BOOT}-{ticks:012d}-0000007-0000000a"


class Box:
    """A spool with its hook and its quarantine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spool = Spool(root)
        self.spool.make(os.geteuid(), os.getegid())
        self.quarantine = Quarantine(root, 3, 1_000)

    def entry(self, ticks: int, document: bytes = b'{"ip": 7}') -> Entry:
        python_hook.store_entry(
            str(self.root),
            name(ticks),
            python_hook.encode_entry(["ban", "é"], document),
        )
        return self.spool.read(name(ticks))

    def put(self, ticks: int) -> Entry:
        entry = self.entry(ticks)
        self.quarantine.put(entry, REASON)
        self.spool.remove(entry.name)
        return entry


def left_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "spool")


def test_an_entry_is_read_with_its_reason(box: Box) -> None:
    entry = box.put(5)
    letter = box.quarantine.read(entry.name)
    assert letter.entry._replace(path=entry.path) == entry
    assert letter.reason.items() >= REASON.items()
    assert letter.failed_at.utcoffset() is not None
    assert box.quarantine.details(entry.name)["arguments"] == ["ban", "é"]


def test_the_bytes_of_a_foreign_entry_stay_unchanged(box: Box) -> None:
    path = box.spool.path(name(5))
    path.write_bytes(b"\0\xff nonsense" * 20)
    os.utime(path, ns=(10**18, 10**18 + 7))
    box.quarantine.put(box.spool.read(name(5)), REASON)
    copy = box.root / "quarantine" / name(5)
    assert copy.read_bytes() == path.read_bytes()
    assert copy.stat().st_mtime_ns == 10**18 + 7


def test_a_released_entry_is_unchanged(box: Box) -> None:
    entry = box.put(5)
    box.quarantine.release(entry.name, box.spool)
    assert box.spool.scan() == [entry.name]
    assert box.spool.read(entry.name) == entry
    assert box.quarantine.names() == ()
    assert box.quarantine.unpublished() == ()
    assert left_in(box.root / "quarantine") == {"foreign", "unpublished"}


def test_names_are_in_the_order_of_the_calls(box: Box) -> None:
    for ticks in (7, 5, 6):
        box.put(ticks)
    assert box.quarantine.names() == (name(5), name(6), name(7))
    assert box.quarantine.count() == 3


def test_an_entry_is_unpublished_until_its_dead_letter_is_published(box: Box) -> None:
    box.put(5)
    box.quarantine.put(box.entry(6), REASON, published=True)
    assert box.quarantine.unpublished() == (name(5),)
    box.quarantine.mark_published(name(5))
    box.quarantine.mark_published(name(5))
    assert box.quarantine.unpublished() == ()
    assert box.quarantine.names() == (name(5), name(6))


def test_an_entry_that_failed_to_arrive_needs_no_dead_letter(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = box.entry(5)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(atomic_file, "replace", full)
        with pytest.raises(SpoolError, match="No space"):
            box.quarantine.put(entry, REASON)
    assert box.quarantine.unpublished() == ()
    assert box.spool.scan() == [entry.name]
    box.quarantine.put(entry, REASON)
    assert box.quarantine.unpublished() == (entry.name,)


def test_an_entry_may_be_put_twice(box: Box) -> None:
    entry = box.entry(5)
    box.quarantine.put(entry, REASON)
    box.quarantine.put(entry, {"reason": "another"})
    assert box.quarantine.count() == 1
    assert box.quarantine.read(entry.name).reason["reason"] == "another"


def test_at_the_limit_of_files_put_raises(box: Box) -> None:
    for ticks in range(3):
        box.put(ticks)
    entry = box.entry(5)
    with pytest.raises(SpoolFull, match="limits are 3 and 1000"):
        box.quarantine.put(entry, REASON)
    assert box.quarantine.names() == (name(0), name(1), name(2))
    assert box.spool.scan() == [entry.name]


def test_at_the_limit_of_bytes_put_raises(box: Box) -> None:
    box.quarantine.put(box.entry(5, b"x" * 900), REASON)
    with pytest.raises(SpoolFull, match="1000"):
        box.quarantine.put(box.entry(6, b"x" * 100), REASON)
    assert box.quarantine.names() == (name(5),)


def test_a_release_by_another_process_makes_room(box: Box) -> None:
    for ticks in range(3):
        box.put(ticks)
    assert box.quarantine.count() == 3
    Quarantine(box.root, 3, 1_000).release(name(1), box.spool)
    box.quarantine.put(box.entry(5), REASON)
    assert box.quarantine.count() == 3


def test_a_deleted_entry_leaves_no_file(box: Box) -> None:
    box.put(5)
    box.quarantine.delete(name(5))
    assert box.quarantine.names() == ()
    assert left_in(box.root / "quarantine") == {"foreign", "unpublished"}


@pytest.mark.parametrize("wrong", ["../lock", "", name(9), "odd", f"{name(5)}.json"])
def test_an_unknown_name_is_not_found(box: Box, wrong: str) -> None:
    box.put(5)
    for act in (
        box.quarantine.read,
        box.quarantine.details,
        box.quarantine.delete,
        lambda name: box.quarantine.release(name, box.spool),
    ):
        with pytest.raises(FileNotFoundError):
            act(wrong)
    assert (box.root / "lock").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"at": "yesterday"}'])
def test_an_entry_with_a_damaged_reason_can_be_released(box: Box, text: str) -> None:
    box.put(5)
    (box.root / "quarantine" / f"{name(5)}.json").write_text(text)
    with pytest.raises(SpoolError, match=r"\.json"):
        box.quarantine.read(name(5))
    box.quarantine.release(name(5), box.spool)
    assert box.spool.scan() == [name(5)]


def test_a_link_instead_of_an_entry_is_not_copied(box: Box, tmp_path: Path) -> None:
    entry = box.entry(5)
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    Path(entry.path).unlink()
    Path(entry.path).symlink_to(secret)
    with pytest.raises(SpoolError):
        box.quarantine.put(entry, REASON)
    assert box.quarantine.names() == ()


def test_of_a_growing_file_the_measured_size_is_copied(box: Box) -> None:
    entry = box.entry(5, b"x" * 100)
    with box.spool.path(entry.name).open("ab") as file:
        file.write(b"y" * 10_000)
    box.quarantine.put(entry, REASON)
    assert (box.root / "quarantine" / entry.name).stat().st_size == entry.size


def test_an_entry_quarantined_during_its_release_keeps_the_new_reason(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay may read the entry before the release has finished."""
    entry = box.put(5)
    sync = atomic_file.sync

    def relay(directory: Path) -> None:
        if directory == box.spool.path(entry.name).parent:
            monkeypatch.setattr(atomic_file, "sync", sync)
            box.quarantine.put(box.spool.read(entry.name), {"reason": "again"})
            box.spool.remove(entry.name)
        sync(directory)

    monkeypatch.setattr(atomic_file, "sync", relay)
    box.quarantine.release(entry.name, box.spool)
    assert box.quarantine.read(entry.name).reason["reason"] == "again"
    assert box.quarantine.unpublished() == (entry.name,)


def test_an_entry_keeps_its_reason_after_a_failed_release(box: Box) -> None:
    entry = box.put(5)
    directory = box.spool.path(entry.name).parent
    directory.rmdir()
    directory.write_text("no directory")
    with pytest.raises(SpoolError):
        box.quarantine.release(entry.name, box.spool)
    assert box.quarantine.read(entry.name).reason.items() >= REASON.items()
