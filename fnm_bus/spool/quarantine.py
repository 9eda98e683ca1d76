"""Quarantine: entries that cannot become events, kept with the reason.

    quarantine/NAME               the entry's bytes, unchanged
    quarantine/NAME.json          the reason and further details
    quarantine/unpublished/NAME   exists until the entry's dead letter is published
    quarantine/foreign            files of the spool that are not entries

All of it is on disk before the entry leaves the spool. The JSON file is written first,
so that an entry always has one.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from fnm_bus import atomic_file
from fnm_bus.errors import SpoolError, SpoolFull
from fnm_bus.spool.entry import Entry, read_entry, read_file
from fnm_bus.spool.entry_name import is_entry_name
from fnm_bus.spool.spool import Spool

_MAX_DETAILS: Final = 17 * 1024 * 1024
"""Bytes of a JSON file that are read: more than the arguments of a call can become."""
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC

_CHUNK: Final = 1 << 20


class QuarantinedEntry(NamedTuple):
    """One entry in the quarantine.

    Attributes:
        entry: the entry as it was in the spool.
        reason: `reason`, and `field`, `expected` and `actual` if one field is invalid.
        failed_at: when it was quarantined (UTC).
    """

    entry: Entry
    reason: Mapping[str, str]
    failed_at: datetime


class Quarantine:
    """The quarantine of a spool.

    Args:
        root: the spool's directory.
        max_files: largest number of entries.
        max_bytes: their largest total size, without the JSON files.
    """

    def __init__(self, root: Path, max_files: int, max_bytes: int) -> None:
        self._root = root / "quarantine"
        self._unpublished = self._root / "unpublished"
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._usage = (-1, 0, 0)

    def put(
        self, entry: Entry, reason: Mapping[str, str], *, published: bool = False
    ) -> None:
        """Store a copy of *entry* with the reason; may be repeated.

        Args:
            entry: from the spool; its file's bytes are copied.
            reason: see `QuarantinedEntry`; further details, such as `sensor` and
                `event_id`, are stored too.
            published: whether the entry needs no dead letter.

        Raises:
            SpoolFull: a limit is reached; the entry is not stored.
            SpoolError: it cannot be written; the entry is not stored.
        """
        path = self._root / entry.name
        files, size = self._measure()
        is_new = not path.exists()
        if is_new and (files >= self._max_files or size + entry.size > self._max_bytes):
            raise SpoolFull(
                f"{self._root}: {files} entries of {size} bytes; the limits are"
                f" {self._max_files} and {self._max_bytes}: `fnm-bus quarantine"
                " release` or `delete` some"
            )
        details = {
            **reason,
            "at": datetime.now(UTC).isoformat(),
            "stored_at": entry.stored_at.isoformat(),
            "arguments": entry.arguments,
        }
        try:
            if not published:
                (self._unpublished / entry.name).touch(mode=0o600)
                atomic_file.sync(self._unpublished)
            text = json.dumps(details, indent=1, ensure_ascii=True) + "\n"
            atomic_file.replace(self._details(entry.name), text.encode(), mode=0o600)
            self._copy(entry, path)
            changed_at = self._root.stat().st_mtime_ns
        except OSError as exc:
            raise SpoolError(f"{path}: {exc}") from exc
        if is_new:  # so that `_measure` does not read the directory for each entry
            self._usage = (changed_at, files + 1, size + entry.size)

    def names(self) -> tuple[str, ...]:
        """Return the names of all entries, sorted by the calls' start within a boot.

        Raises:
            SpoolError: the quarantine cannot be read.
        """
        return tuple(_entry_names(self._root))

    def count(self) -> int:
        """Return the number of entries.

        Raises:
            SpoolError: the quarantine cannot be read.
        """
        return self._measure()[0]

    def unpublished(self) -> tuple[str, ...]:
        """Return the names of the entries whose dead letter is not published yet.

        Raises:
            SpoolError: the quarantine cannot be read.
        """
        # A name without a file is of an entry that is still in the spool.
        return tuple(
            name
            for name in _entry_names(self._unpublished)
            if (self._root / name).exists()
        )

    def mark_published(self, name: str) -> None:
        """Record that the dead letter of *name* is published.

        A power loss may undo this; the dead letter is then published again.

        Raises:
            SpoolError: it cannot be recorded.
        """
        try:
            (self._unpublished / name).unlink(missing_ok=True)
        except OSError as exc:
            raise SpoolError(f"{self._unpublished / name}: {exc}") from exc

    def read(self, name: str) -> QuarantinedEntry:
        """Return an entry with its reason.

        Raises:
            FileNotFoundError: the entry is not in the quarantine.
            SpoolError: it cannot be read.
        """
        self._path(name)
        entry = read_entry(str(self._root), name)
        reason = {
            key: value
            for key, value in self.details(name).items()
            if isinstance(value, str)
        }
        try:
            failed_at = datetime.fromisoformat(reason.pop("at"))
        except (KeyError, ValueError) as exc:
            raise SpoolError(f"{self._details(name)}: `at` is not a time") from exc
        return QuarantinedEntry(entry, reason, failed_at)

    def details(self, name: str) -> dict[str, object]:
        """Return an entry's JSON file: the reason, `at`, `stored_at`, `arguments`.

        Raises:
            FileNotFoundError: the entry is not in the quarantine.
            SpoolError: the file cannot be read.
        """
        self._path(name)
        path = self._details(name)
        try:
            data, _ = read_file(str(path), _MAX_DETAILS)
            details = json.loads(data)
        except ValueError as exc:
            raise SpoolError(f"{path}: {exc}") from exc
        if not isinstance(details, dict):
            raise SpoolError(f"{path}: not a JSON object")
        return details

    def release(self, name: str, spool: Spool) -> None:
        """Move an entry back to the spool, where the relay tries it again.

        It keeps its name, and so its `event_id`, and the time of its file.

        Raises:
            FileNotFoundError: the entry is not in the quarantine.
            SpoolError: it cannot be moved.
        """
        path, target = self._path(name), spool.path(name)
        if not path.exists():
            raise FileNotFoundError(path)
        # The JSON file moves first: as soon as the entry is in the spool, a relay may
        # quarantine it again, with a new reason and a new dead letter.
        details, backup = self._details(name), self._root / f".{name}.released"
        try:
            self.mark_published(name)
            if details.exists():
                details.rename(backup)
            try:
                path.rename(target)
            except OSError:
                if backup.exists():
                    backup.rename(details)
                raise
            atomic_file.sync(target.parent)
            backup.unlink(missing_ok=True)
        except FileNotFoundError:
            raise
        except OSError as exc:
            raise SpoolError(f"{target}: {exc}") from exc

    def delete(self, name: str) -> None:
        """Delete an entry permanently.

        Raises:
            FileNotFoundError: the entry is not in the quarantine.
            SpoolError: it cannot be deleted.
        """
        try:
            self._path(name).unlink()
            self.mark_published(name)
            self._details(name).unlink(missing_ok=True)
        except FileNotFoundError:
            raise
        except OSError as exc:
            raise SpoolError(f"{self._root / name}: {exc}") from exc

    def _path(self, name: str) -> Path:
        if not is_entry_name(name):  # never a path outside the directory
            raise FileNotFoundError(f"{self._root}: holds no {name!r:.80}")
        return self._root / name

    def _details(self, name: str) -> Path:
        return self._root / f"{name}.json"

    def _copy(self, entry: Entry, path: Path) -> None:
        """Copy the entry's file with its time; the file may be larger than memory."""
        temporary = self._root / f".{entry.name}"
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(entry.path, flags)
        try:
            status = os.fstat(fd)
            times = (status.st_atime_ns, status.st_mtime_ns)
            with (
                open(fd, "rb", closefd=False) as source,
                open(os.open(temporary, _NEW, 0o640), "wb") as target,  # noqa: PTH123 - a descriptor
            ):
                # The size that the limits were checked with: the file may be growing.
                bytes_left = entry.size
                while bytes_left and (chunk := source.read(min(bytes_left, _CHUNK))):
                    target.write(chunk)
                    bytes_left -= len(chunk)
                target.flush()
                os.utime(target.fileno(), ns=times)
                os.fsync(target.fileno())
            temporary.rename(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        atomic_file.sync(self._root)

    def _sizes(self) -> Iterator[int]:
        with os.scandir(self._root) as files:
            for file in files:
                if is_entry_name(file.name):
                    # A file that is released or deleted meanwhile does not count.
                    with suppress(FileNotFoundError):
                        yield file.stat(follow_symlinks=False).st_size

    def _measure(self) -> tuple[int, int]:
        """Return the number of entries and their size, cached while nothing changes."""
        try:
            changed_at = self._root.stat().st_mtime_ns
            if self._usage[0] != changed_at:
                sizes = list(self._sizes())
                self._usage = (changed_at, len(sizes), sum(sizes))
        except OSError as exc:
            raise SpoolError(f"{self._root}: {exc}") from exc
        return self._usage[1:]


def _entry_names(directory: Path) -> list[str]:
    try:
        return sorted(
            path.name for path in directory.iterdir() if is_entry_name(path.name)
        )
    except OSError as exc:
        raise SpoolError(f"{directory}: {exc}") from exc
