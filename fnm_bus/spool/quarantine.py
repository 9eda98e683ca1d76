"""Quarantine: notifications that cannot be understood, kept with the reason.

    quarantine/NAME          the entry's bytes, unchanged
    quarantine/NAME.json     the reason, and what a person wants to know
    quarantine/untold/NAME   exists until the dead letter is published

Everything is on disk before the entry leaves the spool. A file NAME without its JSON
is never seen: the JSON is written first.
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
from fnm_bus.spool.entry import Entry, read, read_file
from fnm_bus.spool.entry_name import is_entry_name
from fnm_bus.spool.spool import Spool

_REASON: Final = 17 * 1024 * 1024
"""Bytes of a reason that are read: more than the arguments of a call can become."""
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC

_CHUNK: Final = 1 << 20


class QuarantinedEntry(NamedTuple):
    """One notification in the quarantine.

    Attributes:
        entry: as it was in the spool.
        reason: why it is here: `reason`, and `field`, `wanted`, `got` where one field
            is to blame.
        failed_at: when it was put here (UTC).
    """

    entry: Entry
    reason: Mapping[str, str]
    failed_at: datetime


class Quarantine:
    """The quarantine of a spool.

    Args:
        root: the spool's directory.
        max_files: notifications it may hold.
        max_bytes: their size together, reasons not counted.
    """

    def __init__(self, root: Path, max_files: int, max_bytes: int) -> None:
        self._root = root / "quarantine"
        self._untold = self._root / "untold"
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._usage = (-1, 0, 0)

    def put(
        self, entry: Entry, reason: Mapping[str, str], *, told: bool = False
    ) -> None:
        """Keep *entry* and why it is here; done when on disk. May be repeated.

        Args:
            entry: from the spool; its file's bytes are copied.
            reason: see `Letter`; further facts, such as `sensor` and `event_id`, are
                kept too.
            told: whether no dead letter is to be published.

        Raises:
            SpoolFull: a limit is reached; the entry is not here.
            SpoolError: it cannot be written; the entry is not here.
        """
        path = self._root / entry.name
        files, size = self._measure()
        new = not path.exists()
        if new and (files >= self._max_files or size + entry.size > self._max_bytes):
            raise SpoolFull(
                f"{self._root}: {files} notifications of {size} bytes; at most"
                f" {self._max_files} and {self._max_bytes}: `fnm-bus quarantine"
                " release` or `delete` some"
            )
        facts = {
            **reason,
            "at": datetime.now(UTC).isoformat(),
            "stored_at": entry.stored_at.isoformat(),
            "arguments": entry.arguments,
        }
        try:
            if not told:
                (self._untold / entry.name).touch(mode=0o600)
                atomic_file.sync(self._untold)
            atomic_file.replace(self._json(entry.name), _dumped(facts), mode=0o600)
            self._copy(entry, path)
            changed_at = self._root.stat().st_mtime_ns
        except OSError as exc:
            raise SpoolError(f"{path}: {exc}") from exc
        if new:  # so that a thousand in a row are not counted a thousand times
            self._usage = (changed_at, files + 1, size + entry.size)

    def list(self) -> tuple[str, ...]:
        """Return the names of all that is here, oldest call first within one boot.

        Raises:
            SpoolError: the quarantine cannot be read.
        """
        return tuple(sorted(filter(is_entry_name, _names(self._root))))

    def count(self) -> int:
        """Return how many notifications are here.

        Raises:
            SpoolError: the quarantine cannot be read.
        """
        return self._measure()[0]

    def untold(self) -> tuple[str, ...]:
        """Return the names whose dead letter is not published yet.

        Raises:
            SpoolError: the quarantine cannot be read.
        """
        return tuple(
            name
            for name in sorted(filter(is_entry_name, _names(self._untold)))
            if (self._root / name).exists()  # else it comes again from the spool
        )

    def told(self, name: str) -> None:
        """Note that the dead letter of *name* is published.

        After a loss of power it may be forgotten: the letter is published again.

        Raises:
            SpoolError: it cannot be noted.
        """
        try:
            (self._untold / name).unlink(missing_ok=True)
        except OSError as exc:
            raise SpoolError(f"{self._untold / name}: {exc}") from exc

    def read(self, name: str) -> QuarantinedEntry:
        """Return one notification, and why it is here.

        Raises:
            FileNotFoundError: it is not here.
            SpoolError: it cannot be read.
        """
        self._path(name)
        entry = read(str(self._root), name)
        facts = self.show(name)
        reason = {key: value for key, value in facts.items() if isinstance(value, str)}
        try:
            failed_at = datetime.fromisoformat(reason.pop("at"))
        except (KeyError, ValueError) as exc:
            raise SpoolError(f"{self._json(name)}: no time in `at`") from exc
        return QuarantinedEntry(entry, reason, failed_at)

    def show(self, name: str) -> dict[str, object]:
        """Return what is known of a notification: the reason, `at`, `arguments`, ….

        Raises:
            FileNotFoundError: it is not here.
            SpoolError: it cannot be read.
        """
        self._path(name)
        try:
            data, _ = read_file(str(self._json(name)), _REASON)
            facts = json.loads(data)
        except ValueError as exc:
            raise SpoolError(f"{self._json(name)}: {exc}") from exc
        if not isinstance(facts, dict):
            raise SpoolError(f"{self._json(name)}: holds no JSON object")
        return facts

    def release(self, name: str, spool: Spool) -> None:
        """Move a notification back to the spool, to be tried again.

        It keeps its name, so its `event_id`, and its file's time.

        Raises:
            FileNotFoundError: it is not here.
            SpoolError: it cannot be moved.
        """
        here, target = self._path(name), spool.path(name)
        if not here.exists():
            raise FileNotFoundError(here)
        # Before the entry: as soon as that is in the spool, a relay may put it here
        # again, with a reason and a dead letter of its own.
        reason, aside = self._json(name), self._root / f".{name}.released"
        try:
            self.told(name)
            if reason.exists():
                reason.rename(aside)
            try:
                here.rename(target)
            except OSError:
                if aside.exists():
                    aside.rename(reason)
                raise
            atomic_file.sync(target.parent)
            aside.unlink(missing_ok=True)
        except FileNotFoundError:
            raise
        except OSError as exc:
            raise SpoolError(f"{target}: {exc}") from exc

    def delete(self, name: str) -> None:
        """Remove a notification for good, as a person decides.

        Raises:
            FileNotFoundError: it is not here.
            SpoolError: it cannot be removed.
        """
        try:
            self._path(name).unlink()
            self.told(name)
            self._json(name).unlink(missing_ok=True)
        except FileNotFoundError:
            raise
        except OSError as exc:
            raise SpoolError(f"{self._root / name}: {exc}") from exc

    def _path(self, name: str) -> Path:
        if not is_entry_name(name):  # never a way out of the directory
            raise FileNotFoundError(f"{self._root}: holds no {name!r:.80}")
        return self._root / name

    def _json(self, name: str) -> Path:
        return self._root / f"{name}.json"

    def _copy(self, entry: Entry, path: Path) -> None:
        """Copy the entry's file, with its time; it may be larger than memory."""
        temporary = self._root / f".{entry.name}"
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        source = os.open(entry.path, flags)
        try:
            facts = os.fstat(source)
            times = (facts.st_atime_ns, facts.st_mtime_ns)
            with (
                open(source, "rb", closefd=False) as old,
                open(os.open(temporary, _NEW, 0o640), "wb") as new,  # noqa: PTH123 - a descriptor
            ):
                # As much as was measured against the limits: a file may grow for ever.
                left = entry.size
                while left and (chunk := old.read(min(left, _CHUNK))):
                    new.write(chunk)
                    left -= len(chunk)
                new.flush()
                os.utime(new.fileno(), ns=times)
                os.fsync(new.fileno())
            temporary.rename(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(source)
        atomic_file.sync(self._root)

    def _sizes(self) -> Iterator[int]:
        with os.scandir(self._root) as items:
            for item in items:
                if is_entry_name(item.name):
                    # What is released or deleted in this moment takes no room.
                    with suppress(FileNotFoundError):
                        yield item.stat(follow_symlinks=False).st_size

    def _measure(self) -> tuple[int, int]:
        """Return files and bytes, counted anew only when the directory changed."""
        try:
            changed_at = self._root.stat().st_mtime_ns
            if self._usage[0] != changed_at:
                sizes = list(self._sizes())
                self._usage = (changed_at, len(sizes), sum(sizes))
        except OSError as exc:
            raise SpoolError(f"{self._root}: {exc}") from exc
        return self._usage[1:]


def _names(directory: Path) -> list[str]:
    try:
        return [path.name for path in directory.iterdir()]
    except OSError as exc:
        raise SpoolError(f"{directory}: {exc}") from exc


def _dumped(facts: Mapping[str, object]) -> bytes:
    return json.dumps(facts, indent=1, ensure_ascii=True).encode() + b"\n"
