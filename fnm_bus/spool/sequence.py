"""From the name of an entry to its `sequence`, across reboots.

Ticks count from the boot. Each boot therefore gets a base when its first entry is
listed, and keeps it: an entry has the same `sequence` whenever it is published. A base
is the time of the boot in ticks since 2025 began, but always above every earlier
sequence, so that clocks may jump.

    sequence = (base + ticks) << 14 | pid modulo 2^14

The pid orders calls of the same tick. Ticks beyond the uptime count as the uptime. They
occur where FastNetMon runs in a time namespace (time_namespaces(7)), or in a container
that was restored from a checkpoint.

The result is below 2^53, the largest integer that JavaScript and jq read exactly.
"""

import json
from bisect import bisect_left
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from fnm_bus import atomic_file
from fnm_bus.errors import SpoolError
from fnm_bus.hook.python_hook import TICKS_PER_SECOND, uptime_ticks
from fnm_bus.spool.entry_name import boot_of, clock_of, pid_of, ticks_of

PID_BITS: Final = 14
"""Bits of the pid below the ticks of a sequence."""
_PID_MASK: Final = (1 << PID_BITS) - 1
_ORIGIN: Final = 1_735_689_600 * TICKS_PER_SECOND
"""2025-01-01 00:00:00 UTC, as Unix time in ticks."""
_MAX_TICK: Final = (1 << 39) - 1
"""The latest tick of a sequence: the year 2199."""
_MAX_BASE: Final = 1 << 38
"""The largest base from a clock, the year 2112: leaves room for all later boots."""
_MIN_BASE: Final = 1 << 32
"""The smallest base from a clock, May 2026: leaves room for earlier boots if a machine
starts with a clock of the past."""
_MAX_BOOTS: Final = 4_096
"""Latest boots in the file; entries of other boots get a new base after a restart."""
_RESERVED: Final = 6_000
"""Ticks (a minute) that are reserved on disk at a time, before they are used."""


class BootEpoch(NamedTuple):
    """The ticks that belong to one boot of the kernel.

    Attributes:
        base: is added to the ticks of the boot's entries.
        high: largest base + ticks of the boot's entries.
    """

    base: int
    high: int


class BootEpochs:
    """The epochs of all boots, kept in a file.

    Args:
        path: the file, `state/epochs.json` of the spool.
        boot: id of the running boot (`fnm_bus.hook.python_hook.boot_id`).
        now: returns the ticks since that boot.

    Attributes:
        write_error: error of the last write of the file, or "". The epochs stay in
            memory, and the next `sort` writes them again: draining goes on, since it
            frees disk space.
    """

    def __init__(
        self, path: Path, boot: str, now: Callable[[], int] = uptime_ticks
    ) -> None:
        self.write_error = ""
        self._path = path
        self._boot = boot
        self._now = now
        self._epochs: dict[str, BootEpoch] | None = None
        self._unsaved = False

    def sort(self, names: list[str], stored_at: Callable[[str], float]) -> None:
        """Sort *names* in the order of the calls; give new boots an epoch.

        Args:
            names: names of entries.
            stored_at: the Unix time in seconds at which an entry was stored.

        Raises:
            SpoolError: the file cannot be read.
        """
        names.sort()
        several_boots = self._update(names, stored_at)
        if self._unsaved:
            self._save()
        if several_boots:
            # Names of one boot sort by ticks and then by the whole pid.
            names.sort(key=lambda name: (self._tick(name), name))

    def sequence(self, name: str) -> int:
        """Return the `sequence` of an entry: it orders the calls of one sensor.

        Raises:
            SpoolError: `sort` has not given the entry's boot an epoch.
        """
        return self._tick(name) << PID_BITS | pid_of(name) & _PID_MASK

    def _tick(self, name: str) -> int:
        """Return the start of a call in ticks since 2025 began."""
        boot = boot_of(name)
        tick = self._base(boot) + self._ticks(name)
        if epoch := self._load().get(boot):
            # The uptime may have passed it since the names were sorted.
            tick = min(tick, epoch.high)
        if tick < 0:  # without /proc, by a clock that begins at 1970
            tick = (tick + _ORIGIN) % _MIN_BASE
        return min(tick, _MAX_TICK)

    def _ticks(self, name: str) -> int:
        """Return the start of a call in ticks since its boot, at most the uptime.

        The result keeps the order of names, also between calls: the uptime only grows.
        """
        ticks = ticks_of(name)
        return min(ticks, self._now()) if boot_of(name) == self._boot else ticks

    def _ceiling(self, boot: str, epoch: BootEpoch) -> int:
        """Return the largest tick of a boot's calls.

        Ticks of an earlier boot cannot be compared with its uptime. Without a ceiling a
        few names made by hand would push all later calls to the last tick, where they
        have no order.
        """
        return _MAX_TICK if boot == self._boot else max(*epoch, _MAX_BASE)

    def _base(self, boot: str) -> int:
        clock = clock_of(boot)
        if clock is not None:
            return clock - _ORIGIN
        epoch = self._load().get(boot)
        if epoch is None:
            raise SpoolError(f"boot {boot} has no epoch yet: scan the spool first")
        return epoch.base

    def _update(self, names: Sequence[str], stored_at: Callable[[str], float]) -> bool:
        """Update the epochs; return whether the sorted *names* are of several boots.

        Names of several boots are not in the order of the calls.
        """
        epochs = self._load()
        new: list[tuple[bool, int, str, int]] = []
        count = start = 0
        while start < len(names):
            boot, count = boot_of(names[start]), count + 1
            start = bisect_left(names, boot + "~", start)
            last = names[start - 1]
            ticks = self._ticks(last)
            if clock_of(boot) is not None:
                continue
            if boot not in epochs:
                estimate = int(stored_at(last) * TICKS_PER_SECOND) - ticks - _ORIGIN
                new.append((boot == self._boot, estimate, boot, ticks))
                continue
            epoch = epochs[boot]
            ceiling = self._ceiling(boot, epoch)
            if min(epoch.base + ticks, ceiling) > epoch.high:
                high = min(epoch.base + ticks + _RESERVED, ceiling)
                epochs[boot] = epoch._replace(high=high)
                self._unsaved = True
        # Computed once instead of for each new boot: any member of the spool's group
        # can make names of as many boots as the spool has room for.
        earlier = (epoch.high for boot, epoch in epochs.items() if boot != self._boot)
        highest = max(earlier, default=-1) if new else -1
        for is_running, estimate, boot, ticks in sorted(new):
            running = None if is_running else epochs.get(self._boot)
            base, high = _new_epoch(highest, running, estimate, ticks)
            ceiling = self._ceiling(boot, BootEpoch(base, base))
            epochs[boot] = BootEpoch(base, min(high, ceiling))
            highest = max(highest, epochs[boot].high)
            self._unsaved = True
        return count > 1

    def _load(self) -> dict[str, BootEpoch]:
        if self._epochs is None:
            try:
                content = json.loads(self._path.read_bytes())
                epochs = {
                    boot: BootEpoch(*map(int, values))
                    for boot, values in content["boots"].items()
                }
            except FileNotFoundError:
                epochs = {}
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
                raise SpoolError(
                    f"{self._path}: {exc}; restore it from a backup, or remove it:"
                    " without it new events may get smaller sequences than earlier ones"
                ) from exc
            self._epochs = epochs
        return self._epochs

    def _save(self) -> None:
        epochs = self._load()
        latest = sorted(
            epochs, key=lambda boot: (boot == self._boot, epochs[boot].high)
        )
        content = {"boots": {boot: epochs[boot] for boot in latest[-_MAX_BOOTS:]}}
        try:
            atomic_file.replace(self._path, json.dumps(content).encode(), mode=0o600)
        except OSError as exc:
            self.write_error = f"{self._path}: {exc}"
        else:
            self.write_error, self._unsaved = "", False


def _new_epoch(
    highest: int, running: BootEpoch | None, estimate: int, ticks: int
) -> BootEpoch:
    """Return the epoch of a new boot.

    Args:
        highest: largest tick of the calls of all other boots; the epoch begins above.
        running: epoch of the running boot if the new one is an earlier boot, whose
            epoch ends below it.
        estimate: time of the new boot by the clock, in ticks since 2025 began.
        ticks: start of the boot's latest call, in ticks since the boot.
    """
    base = max(min(max(estimate, _MIN_BASE), _MAX_BASE), highest + 1)
    if running is not None:
        base = max(min(base, running.base - 1 - ticks), 0)
    return BootEpoch(base, base + ticks + (_RESERVED if running is None else 0))


def sequence_at(moment: datetime) -> int:
    """Return the sequence of a call at *moment*, for a correct clock."""
    ticks = round(moment.timestamp() * TICKS_PER_SECOND) - _ORIGIN
    return max(ticks, 0) << PID_BITS
