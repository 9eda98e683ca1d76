"""The spool: notifications on disk that Kafka has not confirmed; the read side.

`python_hook` is the write side and describes the directories and files.
"""

import os
import time
from pathlib import Path
from typing import Final

from fnm_bus import atomic_file
from fnm_bus.errors import SpoolError
from fnm_bus.hook import python_hook
from fnm_bus.spool import cleanup, entry, layout, lock
from fnm_bus.spool.cleanup import ForeignFile, OrphanedFile
from fnm_bus.spool.entry import Entry, utc_time
from fnm_bus.spool.entry_directories import EntryDirectories
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

_MAX_MARKER: Final = 4096
"""Bytes of the file `full` that are read; the hook reads the same number."""
_MAX_ROUNDS: Final = 100


class Spool:
    """A spool's directory. The constructor does not read or create anything.

    Args:
        root: the directory.
        epochs: order entries across reboots; without them `scan` sorts by name, which
            is enough to list them.
    """

    def __init__(self, root: Path | str, epochs: BootEpochs | None = None) -> None:
        self.root = Path(root)
        self._epochs = epochs
        self._directories = EntryDirectories(self.root)

    def make(self, owner: int, group: int) -> None:
        """Create the directories and the lock with their modes; may be repeated.

        Raises:
            SpoolError: one of them cannot be created, or is another file type.
        """
        layout.make(self.root, owner, group)

    def path(self, name: str) -> Path:
        """Return the path of the entry *name*, which may not exist."""
        return Path(self._directories.directory_of(name), name)

    def buckets(self) -> list[Path]:
        """Return the directories of entries, for a `Watch`."""
        return self._directories.paths()

    def scan(self) -> list[str]:
        """Return the names of the entries in the order in which their calls started.

        With each name, the result has the name of each call that had finished before
        this one started. One listing cannot guarantee that: while it reads the second
        directory, a call may finish in the first, and then a later call in the third.
        Therefore `scan` lists twice, and returns the names before the first one that
        only the second listing has. The next `scan` returns the rest.

        An unreadable directory does not delay the entries of the others: it is skipped,
        and `check_readable` raises its error.

        Raises:
            SpoolError: no directory of the spool can be read, or the order of the
                entries is unknown.
        """
        previous = self._directories.read({})
        for _ in range(_MAX_ROUNDS):
            listings = self._directories.read(previous)
            late = {
                name
                for digit, listing in listings.items()
                if listing is not (old := previous.get(digit))
                for name in set(listing.names).difference(old.names if old else ())
            }
            names = [name for listing in listings.values() for name in listing.names]
            self._sort(names)
            end = next(
                (index for index, name in enumerate(names) if name in late), len(names)
            )
            # 0 only if a call finished that is older than all others.
            if end or not names:
                return names[:end]
            previous = listings
        return []

    def check_readable(self) -> None:
        """Report the unreadable directories of the last `scan` or `usage`.

        Raises:
            SpoolError: a directory could not be read.
        """
        self._directories.check_readable()

    def read(self, name: str) -> Entry:
        """Return the entry *name*.

        Raises:
            FileNotFoundError: the entry does not exist.
            SpoolError: it cannot be read, or is not a regular file.
        """
        return entry.read_entry(self._directories.directory_of(name), name)

    def remove(self, name: str) -> None:
        """Remove an entry; do nothing if it does not exist.

        The directory is not synced: after a power loss the entry may reappear, and is
        then published again with the same `event_id`.

        Raises:
            SpoolError: it cannot be removed.
        """
        try:
            directory = self._directories.directory_of(name)
            os.unlink(f"{directory}/{name}")  # noqa: PTH108 - thousands a second
        except FileNotFoundError:
            return
        except OSError as exc:
            raise SpoolError(f"{self.path(name)}: {exc}") from exc

    def usage(self) -> SpoolUsage:
        """Return the number and size of the entries in the readable directories.

        Raises:
            SpoolError: no directory can be read.
        """
        files = size = 0
        oldest = float("inf")

        def add(_digit: str, path: str) -> None:
            nonlocal files, size, oldest
            with os.scandir(path) as entries:
                for item in entries:
                    if not is_entry_name(item.name):
                        continue
                    try:
                        status = item.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    files += 1
                    size += status.st_size
                    oldest = min(oldest, status.st_mtime)

        self._directories.for_each(add)
        return SpoolUsage(files, size, utc_time(int(oldest * 10**9)) if files else None)

    def remove_orphans(self) -> list[OrphanedFile]:
        """Remove the temporary files of hooks that no longer run; return them.

        Raises:
            SpoolError: the spool cannot be read.
        """
        return cleanup.remove_orphans(self.root)

    def foreign_files(self) -> list[ForeignFile]:
        """Return the files that are not entries, such as links and pipes.

        Raises:
            SpoolError: the spool cannot be read.
        """
        return cleanup.list_foreign_files(self.root)

    def quarantine_foreign(self, foreign: ForeignFile) -> Path:
        """Move a foreign file to `quarantine/foreign`, unread; return its new path.

        Raises:
            SpoolError: it cannot be moved.
        """
        return cleanup.quarantine_foreign(self.root, foreign)

    def refuse(self, level: AdmissionLevel) -> None:
        """Make all hooks refuse the notifications of *level* from now on.

        Raises:
            SpoolError: the file `full` cannot be written or removed.
        """
        path = self.root / "full"
        try:
            if level is AdmissionLevel.NOTHING:
                path.unlink(missing_ok=True)
            else:
                atomic_file.replace(path, f"{level}\n".encode())
        except OSError as exc:
            raise SpoolError(f"{path}: {exc}") from exc

    def refusal(self) -> AdmissionLevel:
        """Return the notifications that the hooks refuse now.

        Raises:
            SpoolError: the file `full` exists and cannot be read.
        """
        try:
            data, _ = entry.read_file(f"{self.root}/full", _MAX_MARKER)
        except FileNotFoundError:
            return AdmissionLevel.NOTHING
        word = data.strip()
        if not word:
            return AdmissionLevel.NOTHING
        # Hooks treat any other word as `status`.
        return AdmissionLevel.ALL if word == b"all" else AdmissionLevel.STATUS

    def lock(self) -> Lock | None:
        """Take the spool's lock; return None if another process holds it.

        Raises:
            SpoolError: the spool is not set up, or belongs to another user.
        """
        return lock.take(self.root / "lock")

    def is_locked(self) -> bool:
        """Return whether a process drains this spool now.

        Raises:
            SpoolError: the spool is not set up, or belongs to another user.
        """
        return lock.is_held(self.root / "lock")

    def become_owner(self) -> None:
        """Change from root to the spool's owner; do nothing for other users.

        Raises:
            SpoolError: the spool is not set up, or the user cannot be changed.
        """
        try:
            # Not the lock's owner: the spool's owner could replace that file.
            status = self.root.stat()
            python_hook.become_owner(status.st_uid, status.st_gid)
        except OSError as exc:
            raise SpoolError(f"{self.root}: cannot become its owner: {exc}") from exc

    def _sort(self, names: list[str]) -> None:
        if self._epochs is None:
            names.sort()
        else:
            self._epochs.sort(names, self._stored_at)

    def _stored_at(self, name: str) -> float:
        try:
            return self.path(name).lstat().st_mtime
        except OSError:
            # The entry was removed, or is unreadable. The time determines the epoch of
            # its boot, for which the current time is good enough.
            return time.time()
