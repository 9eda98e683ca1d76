"""Order: from the name of an entry to `sequence`, across reboots.

Ticks count from the boot, so an entry's place is that of its boot plus its ticks. A
boot is given its place, the *base*, when its first entry is seen, and keeps it for
good: the same entry has the same `sequence` whenever it is published. Bases are about
the Unix time of the boot, but always above everything that was given out before, so
clocks may jump as they like.

    sequence = (base + ticks) << 23 | pid

Within one tick (10 ms) pids grow, until the kernel starts again with small ones. Where
both kinds are in one tick, the small ones are lifted by 2^22, the largest pid there is.
"""

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from fnm_bus import durable
from fnm_bus.errors import SpoolError

PID_BITS: Final = 23
"""Bits below the ticks: pids are at most 2^22 (proc(5)), and may be lifted by 2^22."""
_LIFT: Final = 1 << 22
_GAP: Final = 1 << 14
"""Pids of one tick further apart than this were not handed out in one go."""
_LATEST: Final = 1 << 39
"""A base that leaves room for 170 years: the year 2144, for clocks that are mad."""
_AHEAD: Final = 6_000
"""Ticks (a minute) that are reserved on disk at a time, before they are used."""
_TICKS_KEPT: Final = 8_192
_WRAPS_KEPT: Final = 1_000

_NAME: Final = re.compile(r"[0-9a-f]{32}-[0-9]{12}-[0-9]{7}-[0-9a-f]{8}")
_BOOT: Final = slice(0, 32)
_TICK: Final = slice(0, 45)  # boot id and ticks
_TICKS: Final = slice(33, 45)
_PID: Final = slice(46, 53)
_NO_BOOT_ID: Final = "0" * 20
"""Such a boot id was made without /proc and ends with the boot's Unix time in ticks."""


class Boot(NamedTuple):
    """What is remembered of one boot of the kernel.

    Attributes:
        base: its place: ticks that are added to those of its entries.
        high: no entry's base + ticks is above it.
    """

    base: int
    high: int


class Wrap(NamedTuple):
    """One tick in which the pids started again from small ones.

    Attributes:
        split: pids below it were handed out later than the others.
        lifted: whether those below are lifted; else those above are lowered, because
            some below had been published before the others came.
    """

    split: int
    lifted: bool


def is_name(text: str) -> bool:
    """Return whether *text* can be an entry's name."""
    return _NAME.fullmatch(text) is not None


def pid_of(name: str) -> int:
    """Return the pid in an entry's name."""
    return int(name[_PID])


def ticks_of(name: str) -> int:
    """Return the start of the call in an entry's name, in ticks since the boot."""
    return int(name[_TICKS])


def boot_of(name: str) -> str:
    """Return the boot id in an entry's name."""
    return name[_BOOT]


class Epochs:
    """The places of all boots that were seen, kept in a file.

    Args:
        path: the file, `state/epochs.json` of the spool.
        boot: id of the boot that runs now (`fnm_bus.hook.boot_id`).

    Attributes:
        trouble: why the file could not be written the last time, or "". Draining goes
            on, since it makes room: what was not written is kept in memory, and tried
            again with the next entries.
    """

    def __init__(self, path: Path, boot: str) -> None:
        self.trouble = ""
        self._path = path
        self._boot = boot
        self._boots: dict[str, Boot] | None = None
        self._wraps: dict[str, Wrap] = {}
        self._pids: dict[str, tuple[int, int]] = {}
        self._unsaved = False

    def sort(self, names: list[str], stored_at: Callable[[str], float]) -> None:
        """Sort *names* as FastNetMon started the calls; remember what is new in them.

        Args:
            names: names of entries.
            stored_at: the Unix time in seconds at which an entry was stored.

        Raises:
            SpoolError: the file with the places cannot be read.
        """
        names.sort()
        several = self._learn(names, stored_at)
        wrapped = self._find_wraps(names)
        if self._unsaved:
            self._save()
        if several:
            names.sort(key=self.order)
            return
        for tick in wrapped:
            part = slice(bisect_left(names, tick), bisect_left(names, tick + "~"))
            names[part] = sorted(names[part], key=self.order)

    def order(self, name: str) -> int:
        """Return the place of an entry among all, its `sequence`.

        Raises:
            SpoolError: its boot was never seen by `sort`.
        """
        boot, ticks, pid = name[_BOOT], int(name[_TICKS]), int(name[_PID])
        if wrap := self._wraps.get(name[_TICK]):
            if wrap.lifted and pid < wrap.split:
                pid += _LIFT
            elif not wrap.lifted and pid >= wrap.split:
                pid -= _LIFT
        return ((self._base(boot) + ticks) << PID_BITS) + pid

    def _base(self, boot: str) -> int:
        if boot.startswith(_NO_BOOT_ID) and boot[20:].isdecimal():
            return min(int(boot[20:]), _LATEST)
        known = self._load().get(boot)
        if known is None:
            raise SpoolError(f"boot {boot} has no place yet: scan the spool first")
        return known.base

    def _learn(self, names: Sequence[str], stored_at: Callable[[str], float]) -> bool:
        """Give new boots in the sorted *names* a place; return whether there are more.

        More than one boot, that is: then the names do not sort by themselves.
        """
        boots = self._load()
        new: list[tuple[bool, int, str, int]] = []
        count = start = 0
        while start < len(names):
            boot, count = names[start][_BOOT], count + 1
            start = bisect_left(names, boot + "~", start)
            last = names[start - 1]
            ticks = int(last[_TICKS])
            if boot.startswith(_NO_BOOT_ID):
                continue
            if boot not in boots:
                estimate = int(stored_at(last) * 100) - ticks
                estimate = min(max(estimate, 0), _LATEST)
                new.append((boot == self._boot, estimate, boot, ticks))
            elif boots[boot].base + ticks > boots[boot].high:
                base = boots[boot].base
                boots[boot] = Boot(base, base + ticks + _AHEAD)
                self._unsaved = True
        for current, estimate, boot, ticks in sorted(new):
            now = None if current else boots.get(self._boot)
            boots[boot] = _placed(boots, now, estimate, ticks)
            self._unsaved = True
        return count > 1

    def _find_wraps(self, names: Sequence[str]) -> set[str]:
        """Find ticks in which pids began again; return those that *names* are in."""
        ticks = [name[_TICK] for name in names]
        pids = [int(name[_PID]) for name in names]
        wrapped = {
            tick
            for (tick, pid), (other, after) in pairwise(zip(ticks, pids, strict=True))
            if after - pid > _GAP and tick == other
        }
        recent = names[-_TICKS_KEPT:]
        for name in recent:
            low, high = self._pids.get(name[_TICK], (0, 1 << PID_BITS))
            if not low - _GAP <= int(name[_PID]) <= high + _GAP:
                wrapped.add(name[_TICK])
        for tick in wrapped.difference(self._wraps):
            start, end = bisect_left(names, tick), bisect_left(names, tick + "~")
            self._decide(tick, [int(name[_PID]) for name in names[start:end]])
        for name in recent:
            tick, pid = name[_TICK], int(name[_PID])
            low, high = self._pids.pop(tick, (pid, pid))
            self._pids[tick] = (min(low, pid), max(high, pid))
        while len(self._pids) > _TICKS_KEPT:
            del self._pids[next(iter(self._pids))]
        return self._wraps.keys() & ticks if self._wraps else set()

    def _decide(self, tick: str, pids: Sequence[int]) -> None:
        """Note how the calls of *tick* are told apart, for good."""
        # What was given out keeps its sequence, so the split is not among those.
        low, high = self._pids.get(tick, (1 << PID_BITS, 0))
        gaps = [
            (other - one, other)
            for one, other in pairwise(sorted({*self._pids.get(tick, ()), *pids}))
            if other - one > _GAP and (other <= low or one >= high)
        ]
        if not gaps:
            return
        split = max(gaps)[1]
        self._wraps[tick] = Wrap(split, lifted=high == 0 or high >= split)
        if len(self._wraps) > _WRAPS_KEPT:
            del self._wraps[next(iter(self._wraps))]
        self._unsaved = True

    def _load(self) -> dict[str, Boot]:
        if self._boots is None:
            try:
                state = json.loads(self._path.read_bytes())
                boots = {key: Boot(*map(int, it)) for key, it in state["boots"].items()}
                wraps = {
                    key: Wrap(int(split), bool(lifted))
                    for key, (split, lifted) in state["wraps"].items()
                }
            except FileNotFoundError:
                boots, wraps = {}, {}
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
                raise SpoolError(
                    f"{self._path}: {exc}; without it events may seem older than they"
                    " are: bring it back from a backup, or remove it to start anew"
                ) from exc
            self._boots, self._wraps = boots, wraps
        return self._boots

    def _save(self) -> None:
        state = {"boots": self._load(), "wraps": self._wraps}
        try:
            durable.replace(self._path, json.dumps(state).encode(), mode=0o600)
        except OSError as exc:
            self.trouble = f"{self._path}: {exc}"
        else:
            self.trouble, self._unsaved = "", False


def sequence(name: str, epochs: Epochs) -> int:
    """Return the `sequence` of an entry: it orders the calls of one sensor.

    Raises:
        SpoolError: the entry's boot was never seen by `Epochs.sort`.
    """
    return epochs.order(name)


def _placed(
    boots: Mapping[str, Boot], now: Boot | None, estimate: int, ticks: int
) -> Boot:
    """Return the place of a new boot: above all others, but below *now*.

    *now* is the running boot when the new one is another: that is over, so nothing
    of it may seem newer than what happens now.
    """
    others = [boot.high for boot in boots.values() if boot is not now]
    base = max([estimate, *(high + 1 for high in others)])
    if now is not None:
        base = min(base, now.base - 1 - ticks)
    return Boot(base, base + ticks + (_AHEAD if now is None else 0))
