"""The spool: notifications on disk that Kafka has not confirmed; the reader's side.

`python_hook` is the writer's side and describes the directory and the files.
"""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from fnm_bus import atomic_file
from fnm_bus.errors import SpoolError
from fnm_bus.hook import python_hook
from fnm_bus.spool import cleanup, entry, layout, lock
from fnm_bus.spool.cleanup import ForeignFile, OrphanedFile
from fnm_bus.spool.entry import Entry, utc
from fnm_bus.spool.entry_name import is_entry_name
from fnm_bus.spool.limits import AdmissionLevel, SpoolUsage
from fnm_bus.spool.lock import Lock
from fnm_bus.spool.sequence import BootEpochs

__all__ = [
    "AdmissionLevel",
    "Entry",
    "ForeignFile",
    "Lock",
    "OrphanedFile",
    "Spool",
    "SpoolUsage",
]

_MARKER: Final = 4096
"""Bytes of the marker `full` that are read, as the hook reads."""
_ROUNDS: Final = 100
_SETTLED: Final = 50_000_000
"""Nanoseconds; the clock of files ticks every 1 to 10 ms."""


class _Bucket(NamedTuple):
    """What was in one directory.

    Attributes:
        changed_at: its modification time (ns) before it was read.
        settled: whether a later change must give it another time: the clock of files
            is coarse, so a change at once may go unnoticed.
        names: of entries.
    """

    changed_at: int
    settled: bool
    names: list[str]


class Spool:
    """A spool's directory. Nothing is read or made before a method is called.

    Args:
        root: the directory.
        epochs: orders entries across reboots; without it `scan` sorts by name, which
            is enough to look at them.
    """

    def __init__(self, root: Path | str, epochs: BootEpochs | None = None) -> None:
        self.root = Path(root)
        self._epochs = epochs
        self._new = f"{self.root}/incoming/new"
        self._unreadable = ""

    def make(self, owner: int, group: int) -> None:
        """Make the directories and the lock, with their rights; may be repeated.

        Raises:
            SpoolError: something cannot be made, or is there and is something else.
        """
        layout.make(self.root, owner, group)

    def path(self, name: str) -> Path:
        """Return where the entry *name* is, or would be."""
        return Path(self._new, name[-1], name)

    def buckets(self) -> list[Path]:
        """Return the directories in which entries appear, to watch them."""
        return [Path(self._new, digit) for digit in layout.DIGITS]

    def scan(self) -> list[str]:
        """Return the names of the entries, as FastNetMon started the calls.

        For every name returned, each call that was started before it and had finished
        before it is returned too. One look cannot promise that: while it reads the
        second directory a call may finish in the first, and then another one in the
        third. So it looks twice, and returns what comes before the first of the names
        that only the second look found. The rest comes with the next scan.

        A directory that cannot be read holds up no entry of another one: it is left
        out, and `check` raises its error.

        Raises:
            SpoolError: no directory of the spool can be read, or the order of the
                entries is unknown.
        """
        seen = self._look({})
        for _ in range(_ROUNDS):
            now = self._look(seen)
            late = {
                name
                for digit, bucket in now.items()
                if bucket is not (old := seen.get(digit))
                for name in set(bucket.names).difference(old.names if old else ())
            }
            names = [name for bucket in now.values() for name in bucket.names]
            self._sort(names)
            end = next((at for at, it in enumerate(names) if it in late), len(names))
            # 0 only if a call finished that is older than all the others.
            if end or not names:
                return names[:end]
            seen = now
        return []

    def check(self) -> None:
        """Do nothing if the last `scan` or `size` could read every directory.

        Raises:
            SpoolError: one of them could not be read.
        """
        if self._unreadable:
            raise SpoolError(self._unreadable)

    def read(self, name: str) -> Entry:
        """Return the entry *name*.

        Raises:
            FileNotFoundError: it is gone.
            SpoolError: it cannot be read, or is no regular file.
        """
        return entry.read(f"{self._new}/{name[-1]}", name)

    def remove(self, name: str) -> None:
        """Remove an entry; nothing when it is gone.

        The directory is not synced: after a loss of power the entry may be there
        again, and is published once more with the same `event_id`.

        Raises:
            SpoolError: it cannot be removed.
        """
        try:
            os.unlink(f"{self._new}/{name[-1]}/{name}")  # noqa: PTH108 - thousands a second
        except FileNotFoundError:
            return
        except OSError as exc:
            raise SpoolError(f"{self.path(name)}: {exc}") from exc

    def forget_temporary(self, name: str) -> None:
        """Remove what lies in `tmp` under the name of an entry, if that can be done."""
        python_hook.unlink_quietly(f"{self.root}/incoming/tmp/{name}")

    def size(self) -> SpoolUsage:
        """Return how much waits in the directories that can be read.

        Raises:
            SpoolError: none of them can be read.
        """
        files = size = 0
        oldest = float("inf")

        def add(digit: str) -> None:
            nonlocal files, size, oldest
            with os.scandir(f"{self._new}/{digit}") as items:
                for item in items:
                    if not is_entry_name(item.name):
                        continue
                    try:
                        facts = item.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    files += 1
                    size += facts.st_size
                    oldest = min(oldest, facts.st_mtime)

        self._each(add)
        return SpoolUsage(files, size, utc(int(oldest * 10**9)) if files else None)

    def clean(self) -> list[OrphanedFile]:
        """Remove what dead hooks left in `tmp`, and only what is certainly theirs.

        Raises:
            SpoolError: the spool cannot be read.
        """
        return cleanup.clean(self.root)

    def odd(self) -> list[ForeignFile]:
        """Return what is in the spool and is no entry: links, pipes, foreign files.

        Raises:
            SpoolError: the spool cannot be read.
        """
        return cleanup.odd(self.root)

    def set_aside(self, odd: ForeignFile) -> Path:
        """Move what is no entry to `quarantine/odd`, unread; return where it is now.

        Raises:
            SpoolError: it cannot be moved; it stays, and does no harm.
        """
        return cleanup.set_aside(self.root, odd)

    def refuse(self, what: AdmissionLevel) -> None:
        """Tell all hooks what this spool refuses from now on.

        Raises:
            SpoolError: the marker cannot be written or removed.
        """
        path = self.root / "full"
        try:
            if what is AdmissionLevel.NOTHING:
                path.unlink(missing_ok=True)
            else:
                atomic_file.replace(path, f"{what}\n".encode())
        except OSError as exc:
            raise SpoolError(f"{path}: {exc}") from exc

    def refusal(self) -> AdmissionLevel:
        """Return what this spool refuses now.

        Raises:
            SpoolError: the marker is there and cannot be read.
        """
        try:
            data, _ = entry.read_file(f"{self.root}/full", _MARKER)
        except FileNotFoundError:
            return AdmissionLevel.NOTHING
        word = data.strip()
        if not word:
            return AdmissionLevel.NOTHING
        # Whatever else it says, hooks take it for this.
        return AdmissionLevel.ALL if word == b"all" else AdmissionLevel.STATUS

    def lock(self) -> Lock | None:
        """Return the lock, held by this process, or None when another one holds it.

        Raises:
            SpoolError: the spool is not set up, or is not this user's.
        """
        return lock.take(self.root / "lock")

    def locked(self) -> bool:
        """Return whether somebody drains this spool now.

        Raises:
            SpoolError: the spool is not set up, or is not this user's.
        """
        return lock.held(self.root / "lock")

    def become_owner(self) -> None:
        """Give root's rights up for those of the spool's owner; nothing if not root.

        Raises:
            SpoolError: the spool is not set up, or the rights cannot be given up.
        """
        try:
            owner = self.root.stat()  # he could put another's file in the lock's place
            python_hook.become_owner(owner.st_uid, owner.st_gid)
        except OSError as exc:
            raise SpoolError(f"{self.root}: cannot become its owner: {exc}") from exc

    def _look(self, before: Mapping[str, _Bucket]) -> dict[str, _Bucket]:
        found: dict[str, _Bucket] = {}

        def look(digit: str) -> None:
            found[digit] = self._bucket(digit, before)

        self._each(look)
        return found

    def _each(self, work: Callable[[str], None]) -> None:
        """Do *work* in each directory of entries; remember one's error for `check`.

        Raises:
            SpoolError: it failed in all of them.
        """
        failed: list[OSError] = []
        for digit in layout.DIGITS:
            try:
                work(digit)
            except OSError as exc:
                failed.append(exc)
        self._unreadable = f"{self.root}: {failed[0]}" if failed else ""
        if len(failed) == len(layout.DIGITS):
            self.check()

    def _bucket(self, digit: str, before: Mapping[str, _Bucket]) -> _Bucket:
        path = f"{self._new}/{digit}"
        changed_at = os.stat(path).st_mtime_ns  # noqa: PTH116 - strings are quicker
        old = before.get(digit)
        if old is not None and old.settled and old.changed_at == changed_at:
            return old
        settled = time.time_ns() - changed_at > _SETTLED
        names = os.listdir(path)  # noqa: PTH208 - as above
        return _Bucket(
            changed_at,
            settled,
            [name for name in names if name[-1] == digit and is_entry_name(name)],
        )

    def _sort(self, names: list[str]) -> None:
        if self._epochs is None:
            names.sort()
        else:
            self._epochs.sort(names, self._stored_at)

    def _stored_at(self, name: str) -> float:
        try:
            return self.path(name).lstat().st_mtime
        except OSError:
            # It went meanwhile, or cannot be looked at. The time is for the place of
            # its boot, which the clock of now gives as well.
            return time.time()
