"""Order: from the name of an entry to `sequence`, across reboots.

Ticks count from the boot, so an entry's place is that of its boot plus its ticks. A
boot is given its place, the *base*, when its first entry is seen, and keeps it for
good: the same entry has the same `sequence` whenever it is published. Bases are about
the time of the boot, in ticks since 2025 began, but always above everything that was
given out before, so clocks may jump as they like.

    sequence = (base + ticks) << 14 | pid modulo 2^14

Ticks beyond the uptime count as the uptime, so such an entry is published as a call of
now. FastNetMon has another uptime than the reader where it runs in a time namespace
(time_namespaces(7)), or in a container that was restored from a checkpoint.

This is below 2^53, the largest integer that JavaScript and jq read exactly.
"""

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from fnm_bus import atomic_file
from fnm_bus.errors import SpoolError
from fnm_bus.hook.python_hook import TICKS_PER_SECOND, uptime_ticks

PID_BITS: Final = 14
"""Bits below the ticks: the low bits of the pid. Pids of one tick (10 ms) are so close
that these order them, but where they pass a multiple of 2^14."""
_PIDS: Final = (1 << PID_BITS) - 1
_ORIGIN: Final = 1_735_689_600 * 100
"""2025-01-01 00:00:00 UTC, as Unix time in ticks."""
_LAST: Final = (1 << 39) - 1
"""The largest place of a call: the year 2199."""
_LATEST: Final = 1 << 38
"""The largest base from a clock, the year 2112: it leaves room for all that follows."""
_EARLIEST: Final = 1 << 32
"""The smallest base from a clock, May 2026: it leaves room for boots that were before,
where a machine starts with a clock of long ago."""
_BOOTS: Final = 4_096
"""Boots that are kept in the file, the latest ones; entries of another one get a new
place after a restart."""
_AHEAD: Final = 6_000
"""Ticks (a minute) that are reserved on disk at a time, before they are used."""

_NAME: Final = re.compile(
    # No machine is up for more than 31 years: such a name was made by hand, and would
    # use up the room above it.
    r"(?:0{20}[0-9]{12}-[0-9]{12}|[0-9a-f]{32}-0[0-9]{11})-[0-9]{7}-[0-9a-f]{8}"
)
_HIDDEN: Final = re.compile("0{20}[0-9]{12}")
"""A boot id that was made without /proc: it ends with the boot's Unix time in ticks."""
_BOOT: Final = slice(0, 32)
_TICKS: Final = slice(33, 45)
_PID: Final = slice(46, 53)


class BootEpoch(NamedTuple):
    """What is remembered of one boot of the kernel.

    Attributes:
        base: its place: ticks that are added to those of its entries.
        high: no entry's base + ticks is above it.
    """

    base: int
    high: int


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


class BootEpochs:
    """The places of all boots that were seen, kept in a file.

    Args:
        path: the file, `state/epochs.json` of the spool.
        boot: id of the boot that runs now (`fnm_bus.hook.python_hook.boot_id`).
        now: returns the ticks since that boot.

    Attributes:
        trouble: why the file could not be written the last time, or "". Draining goes
            on, since it makes room: what was not written is kept in memory, and tried
            again with the next entries.
    """

    def __init__(
        self, path: Path, boot: str, now: Callable[[], int] = uptime_ticks
    ) -> None:
        self.trouble = ""
        self._path = path
        self._boot = boot
        self._now = now
        self._boots: dict[str, BootEpoch] | None = None
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
        if self._unsaved:
            self._save()
        if several:
            # Of one boot, names are in the order of ticks and whole pids.
            names.sort(key=lambda name: (self._place(name), name))

    def order(self, name: str) -> int:
        """Return the place of an entry among all, its `sequence`.

        Raises:
            SpoolError: its boot was never seen by `sort`.
        """
        return self._place(name) << PID_BITS | pid_of(name) & _PIDS

    def _place(self, name: str) -> int:
        """Return when a call started, in ticks."""
        boot = name[_BOOT]
        place = self._base(boot) + self._ticks(name)
        if known := self._load().get(boot):
            # Now may have passed it since the names were sorted.
            place = min(place, known.high)
        if place < 0:  # without /proc, by a clock that begins at 1970
            place = (place + _ORIGIN) % _EARLIEST
        return min(place, _LAST)

    def _ticks(self, name: str) -> int:
        """Return the start of a call, in ticks since its boot: never later than now.

        Ticks are in the order of names all the same, also of names that are asked for
        one after another: now only grows.
        """
        ticks = ticks_of(name)
        return min(ticks, self._now()) if name[_BOOT] == self._boot else ticks

    def _ceiling(self, boot: str, known: BootEpoch) -> int:
        """Return the greatest place of a call of a boot.

        Ticks of a boot that is over cannot be compared with its uptime any more.
        Without a ceiling, a few names made by hand would push all that follows to the
        last place there is, where nothing has an order.
        """
        return _LAST if boot == self._boot else max(*known, _LATEST)

    def _base(self, boot: str) -> int:
        if _HIDDEN.fullmatch(boot):
            return int(boot[20:]) - _ORIGIN
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
            ticks = self._ticks(last)
            if _HIDDEN.fullmatch(boot):
                continue
            if boot not in boots:
                estimate = int(stored_at(last) * 100) - ticks - _ORIGIN
                new.append((boot == self._boot, estimate, boot, ticks))
                continue
            known = boots[boot]
            ceiling = self._ceiling(boot, known)
            if min(known.base + ticks, ceiling) > known.high:
                high = min(known.base + ticks + _AHEAD, ceiling)
                boots[boot] = known._replace(high=high)
                self._unsaved = True
        # Once, and not for each new boot: any member of the spool's group can make
        # names of as many boots as the spool has room for.
        over = (it.high for boot, it in boots.items() if boot != self._boot)
        highest = max(over, default=-1) if new else -1
        for current, estimate, boot, ticks in sorted(new):
            now = None if current else boots.get(self._boot)
            base, high = _placed(highest, now, estimate, ticks)
            ceiling = self._ceiling(boot, BootEpoch(base, base))
            boots[boot] = BootEpoch(base, min(high, ceiling))
            highest = max(highest, boots[boot].high)
            self._unsaved = True
        return count > 1

    def _load(self) -> dict[str, BootEpoch]:
        if self._boots is None:
            try:
                state = json.loads(self._path.read_bytes())
                boots = {
                    key: BootEpoch(*map(int, it)) for key, it in state["boots"].items()
                }
            except FileNotFoundError:
                boots = {}
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
                raise SpoolError(
                    f"{self._path}: {exc}; without it events may seem older than they"
                    " are: bring it back from a backup, or remove it to start anew"
                ) from exc
            self._boots = boots
        return self._boots

    def _save(self) -> None:
        boots = self._load()
        latest = sorted(boots, key=lambda boot: (boot == self._boot, boots[boot].high))
        state = {"boots": {boot: boots[boot] for boot in latest[-_BOOTS:]}}
        try:
            atomic_file.replace(self._path, json.dumps(state).encode(), mode=0o600)
        except OSError as exc:
            self.trouble = f"{self._path}: {exc}"
        else:
            self.trouble, self._unsaved = "", False


def sequence(name: str, epochs: BootEpochs) -> int:
    """Return the `sequence` of an entry: it orders the calls of one sensor.

    Raises:
        SpoolError: the entry's boot was never seen by `Epochs.sort`.
    """
    return epochs.order(name)


def _placed(
    highest: int, now: BootEpoch | None, estimate: int, ticks: int
) -> BootEpoch:
    """Return the place of a new boot: above *highest*, but below *now*.

    *now* is the running boot when the new one is another: that is over, so nothing
    of it may seem newer than what happens now. *highest* is the greatest place that
    calls of all other boots have.
    """
    base = max(min(max(estimate, _EARLIEST), _LATEST), highest + 1)
    if now is not None:
        base = max(min(base, now.base - 1 - ticks), 0)
    return BootEpoch(base, base + ticks + (_AHEAD if now is None else 0))


def sequence_at(moment: datetime) -> int:
    """Return the sequence of a call at *moment*, on a clock that is right."""
    ticks = round(moment.timestamp() * TICKS_PER_SECOND) - _ORIGIN
    return max(ticks, 0) << PID_BITS
