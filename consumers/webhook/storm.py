"""Storm: which changes of mitigations are told together, and when.

Alertmanager's way: the first change of a group waits `wait` for company; while it goes
on a group is told of again after `interval` at the earliest, and only of news; it is
over when nothing has stood for `wait`. No clock is read and nothing is sent here:
times are seconds of the caller's clock, which should be one that does not jump.
"""

from collections import Counter, deque
from collections.abc import Iterable
from datetime import timedelta
from math import inf
from typing import Final, Generic, TypeVar

from consumers.mitigation.states import PAUSE, PROPOSED, WANTED
from consumers.webhook.bulletin import (
    OVER,
    PAUSED,
    RESUMED,
    SILENT,
    Bulletin,
    Change,
    Group,
    Member,
    group_of,
    why_over,
)
from consumers.webhook.gathering import Gathering, chain, creation
from fnm_bus.event import EPOCH, Mitigation

T = TypeVar("T")

_LIVE: Final = frozenset({PROPOSED, WANTED})
_AGAIN: Final = 1000
_MAX_MITIGATIONS: Final = 50_000
"""Mitigations of all storms; further ones are left out and counted."""
_KEPT_WHEN_FULL: Final = 10
"""Ended mitigations of one storm that are kept by name when that many are reached."""
_MAX_BULLETINS: Final = 100
"""Bulletins that one call of `due` returns."""


class Storms(Generic[T]):
    """All groups.

    Args:
        wait: seconds in which changes gather, and of quiet after which it is over.
        interval: seconds between two bulletins of a storm that goes on.
        grace: seconds after a lease in which the mitigator may still tell of its end.

    Attributes:
        left_out: records of mitigations that exceeded the bound.

    A pause masks: mitigations stay in their storms, and no storm ends because of it.
    """

    def __init__(self, wait: float, interval: float, grace: float = 30.0) -> None:
        self._wait = wait
        self._interval = interval
        self._grace = grace
        self._storms: dict[Group, Gathering[T]] = {}
        self._of: dict[str, Gathering[T]] = {}
        self._again: Counter[Change] = Counter()
        self._paused = False
        self._ready: deque[tuple[Mitigation, T]] = deque()
        self.left_out = 0
        self._lease_at = inf

    def remember(self, told: Iterable[Member], now: float) -> None:
        """Take over what was told of before a restart: the latest record of each key.

        What ended belongs to a storm if it ended while the storm went on.
        """
        groups: dict[Group, list[Member]] = {}
        for it in told:
            if it.mitigation.kind == PAUSE:
                self._paused = not it.over
            else:
                groups.setdefault(group_of(it.mitigation), []).append(it)
        for group, members in groups.items():
            found = chain(members, timedelta(seconds=self._wait))
            if not found:
                continue
            storm = self._storms[group] = Gathering[T](group, now)
            for it in found:
                storm.put(it)
                self._of[it.mitigation.key] = storm
                self._lease_at = min(self._lease_at, it.ends)
            storm.told, storm.last = True, now - self._interval

    def take(self, it: Mitigation, now: float, ends: float, token: T) -> bool:
        """Take one record; return whether it is news.

        Args:
            it: what the record says.
            now: when it was taken.
            ends: when its lease runs out; `inf` when it has none.
            token: kept, and handed back with the bulletin that tells of the news.
        """
        if it.kind == PAUSE:
            return self._button(it, token)
        storm = self._of.get(it.key)
        if storm is None and it.state not in _LIVE:
            return False
        if storm is None:
            if len(self._of) >= _MAX_MITIGATIONS:
                self.left_out += 1
                return False
            group = group_of(it)
            storm = self._storms.setdefault(group, Gathering[T](group, now))
            self._of[it.key] = storm
        return self._put(storm, it, now, ends, token)

    def due(self, now: float) -> list[Bulletin[T]]:
        """Return what is to be reported by *now*, in order, in portions.

        `next` returns a time that has passed while more is due.
        """
        if now >= self._lease_at + self._grace:
            self._run_out(now)
        bulletins: list[Bulletin[T]] = []
        while self._ready and len(bulletins) < _MAX_BULLETINS:
            bulletins.append(self._report_pause(*self._ready.popleft()))
        for storm in tuple(self._storms.values()):
            # A storm whose end is due after its start needs two.
            while (
                len(bulletins) < _MAX_BULLETINS
                and storm.due_at(self._wait, self._interval) <= now
            ):
                first = storm.first or Change(EPOCH, "", "")
                again = self._again[first]
                bulletins.append(storm.tell(now, again, paused=self._paused))
                if bulletins[-1].status == OVER:
                    self._forget(storm, first)
                    break
                self._drop(storm.fold())
        if len(self._of) >= _MAX_MITIGATIONS:
            for storm in self._storms.values():
                self._drop(storm.fold(_KEPT_WHEN_FULL))
        return bulletins

    def next(self) -> float:
        """Return when `due` has something to do next; `inf` when nothing waits."""
        times = (it.due_at(self._wait, self._interval) for it in self._storms.values())
        return min(-inf if self._ready else inf, self._lease_at + self._grace, *times)

    def _put(
        self, storm: Gathering[T], it: Mitigation, now: float, ends: float, token: T
    ) -> bool:
        before = storm.members.get(it.key)
        if it.state in _LIVE:
            member = Member(it, ends, cause=it.cause)
            self._lease_at = min(self._lease_at, ends)
            if before is None or before.over:
                storm.fresh.add(it.key)
            elif _same(before.mitigation, it):
                storm.put(member)
                return False
        elif before is None or before.over:
            return False
        else:
            why = why_over(it)
            member = before._replace(over=why, over_at=it.changed_at, cause=it.cause)
        storm.stir(member, it.state, now)
        storm.tokens.append(token)
        return True

    def _run_out(self, now: float) -> None:
        self._lease_at = inf
        for storm in self._storms.values():
            for it in tuple(storm.members.values()):
                if it.over:
                    continue
                if it.ends + self._grace > now:
                    self._lease_at = min(self._lease_at, it.ends)
                    continue
                at = it.mitigation.expires_at
                storm.stir(it._replace(over=SILENT, over_at=at, cause=""), SILENT, now)

    def _button(self, it: Mitigation, token: T) -> bool:
        paused = it.state == WANTED
        if paused == self._paused:
            return False
        self._paused = paused
        self._ready.append((it, token))
        return True

    def _report_pause(self, pause: Mitigation, token: T) -> Bulletin[T]:
        """Return the bulletin of a pause or resume, with what it concerns."""
        paused = pause.state == WANTED
        first = Change(pause.changed_at, pause.key, pause.state)
        active = (
            member
            for storm in self._storms.values()
            for member in storm.members.values()
            if not member.over
        )
        return Bulletin(
            status=PAUSED if paused else RESUMED,
            group=Group("all", ""),
            first=first,
            again=0,
            mark=first,
            members=tuple(sorted(active, key=creation)),
            fresh=frozenset(),
            changed=frozenset(),
            gone={},
            tokens=(token,),
            paused=paused,
            pause=pause,
        )

    def _drop(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._of.pop(key, None)

    def _forget(self, storm: Gathering[T], first: Change) -> None:
        del self._storms[storm.group]
        for key in storm.members:
            self._of.pop(key, None)
        if len(self._again) >= _AGAIN:
            self._again.clear()
        self._again[first] += 1


def _same(before: Mitigation, after: Mitigation) -> bool:
    """Return whether a record only renews."""
    waits = after.pending is not None and after.pending != before.pending
    return not waits and (before.state, before.dry_run) == (after.state, after.dry_run)
