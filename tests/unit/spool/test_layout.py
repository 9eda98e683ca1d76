"""Set-up of a spool: modes, owners, planted links."""

import os
import stat
from pathlib import Path

import pytest
from support.spool_box import Box, name

from fnm_bus.errors import SpoolError
from fnm_bus.spool import layout


def test_the_directories_have_the_documented_modes(box: Box) -> None:
    assert layout.find_faults(box.root, os.geteuid(), os.getegid()) == []
    modes = {
        path: stat.S_IMODE((box.root / path).stat().st_mode)
        for path in ("incoming/tmp", "incoming/new/f", "quarantine", "lock")
    }
    assert modes == {
        "incoming/tmp": 0o3770,
        "incoming/new/f": 0o3770,
        "quarantine": 0o700,
        "lock": 0o600,
    }


def test_a_second_set_up_repairs_modes_and_keeps_files(box: Box) -> None:
    box.store(name(5))
    lock = (box.root / "lock").stat().st_ino
    (box.root / "incoming/tmp").chmod(0o777)
    (box.root / "state").chmod(0o755)
    assert len(layout.find_faults(box.root, os.geteuid(), os.getegid())) == 2
    box.spool.make(os.geteuid(), os.getegid())
    assert layout.find_faults(box.root, os.geteuid(), os.getegid()) == []
    assert (box.root / "lock").stat().st_ino == lock
    assert box.spool.scan() == [name(5)]


@pytest.mark.parametrize("place", ["incoming", "incoming/new/0", "lock", "."])
def test_set_up_does_not_follow_a_link(box: Box, tmp_path: Path, place: str) -> None:
    other = tmp_path / "other"
    (box.root / place).rename(tmp_path / "moved")
    if place == "lock":
        other.write_bytes(b"")
    else:
        other.mkdir()
    other.chmod(0o700)
    (box.root if place == "." else box.root / place).symlink_to(other)
    with pytest.raises(SpoolError):
        box.spool.make(os.geteuid(), os.getegid())
    assert stat.S_IMODE(other.stat().st_mode) == 0o700
    assert layout.find_faults(box.root, os.geteuid(), os.getegid())


@pytest.mark.parametrize("exchanged", ["incoming", "incoming/new"])
def test_set_up_does_not_follow_a_link_planted_meanwhile(
    box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanged: str
) -> None:
    """The spool's owner can plant a link between two system calls of root."""
    elsewhere, right = tmp_path / "elsewhere", os.fchmod
    for directory in ("tmp", "new/0", "0"):
        (elsewhere / directory).mkdir(parents=True)
    place = box.root / exchanged
    inode = place.stat().st_ino

    def exchanges(fd: int, mode: int) -> None:
        right(fd, mode)
        if os.fstat(fd).st_ino == inode and not place.is_symlink():
            place.rename(tmp_path / "moved")
            place.symlink_to(elsewhere)

    monkeypatch.setattr(os, "fchmod", exchanges)
    before = {path: path.stat().st_mode for path in elsewhere.rglob("*")}
    with pytest.raises(SpoolError):
        box.spool.make(os.geteuid(), os.getegid())
    assert {path: path.stat().st_mode for path in elsewhere.rglob("*")} == before


@pytest.mark.parametrize("umask", [0, 0o077])
def test_every_user_can_pass_new_parents_and_only_root_can_write_there(
    tmp_path: Path, umask: int
) -> None:
    """A hardened machine's root has umask 077: the relay could not reach the spool."""
    root = tmp_path / "fnm-bus" / "host" / "spool"
    before = os.umask(umask)
    try:
        layout.make(root, os.geteuid(), os.getegid())
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    modes = [
        stat.S_IMODE(path.stat().st_mode) for path in (root.parent.parent, root.parent)
    ]
    assert modes == [0o755, 0o755]
    assert layout.find_faults(root, os.geteuid(), os.getegid()) == []


def test_set_up_refuses_a_lock_with_two_links(box: Box, tmp_path: Path) -> None:
    """The spool's owner would become the owner of the other file."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"")
    precious.chmod(0o644)
    (box.root / "lock").unlink()
    (box.root / "lock").hardlink_to(precious)
    with pytest.raises(SpoolError, match="one name; remove it"):
        box.spool.make(os.geteuid(), os.getegid())
    assert stat.S_IMODE(precious.stat().st_mode) == 0o644


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_set_up_refuses_a_lock_of_another_user(box: Box) -> None:
    """The spool's owner can move a file of root there from another directory."""
    box.spool.make(1234, 2345)
    lock = box.root / "lock"
    lock.unlink()
    lock.write_text("root:secret")
    lock.chmod(0o640)
    with pytest.raises(SpoolError, match=r"lock: belongs to 0, not to 1234.*remove it"):
        box.spool.make(1234, 2345)
    facts = lock.stat()
    assert (facts.st_uid, stat.S_IMODE(facts.st_mode)) == (0, 0o640)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_set_up_with_another_owner_changes_the_lock_s_owner(box: Box) -> None:
    for owner in (1234, 1235, 0):
        box.spool.make(owner, 2345)
        assert layout.find_faults(box.root, owner, 2345) == []
