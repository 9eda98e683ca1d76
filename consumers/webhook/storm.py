"""Storm: which changes of mitigations are told together, and when.

Alertmanager's way: the first change of a group waits `wait` for company; while it goes
on a group is told of again after `interval` at the earliest, and only of news; it is
over when nothing has stood for `wait`. No clock is read and nothing is sent here:
times are seconds of the caller's clock, which should be one that does not jump.
"""

from collections import Counter
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
from consumers.webhook.gathering import Gathering, chain
from fnm_bus.event import EPOCH, Mitigation

T = TypeVar("T")

_LIVE: Final = frozenset({PROPOSED, WANTED})
_AGAIN: Final = 1000


class Storms(Generic[T]):
    """All groups.

    Args:
        wait: seconds in which changes gather, and of quiet after which it is over.
        interval: seconds between two bulletins of a storm that goes on.
        grace: seconds after a lease in which the mitigator may still tell of its end.
    """

    def __init__(self, wait: float, interval: float, grace: float = 30.0) -> None:
        self._wait = wait
        self._interval = interval
        self._grace = grace
        self._storms: dict[Group, Gathering[T]] = {}
        self._of: dict[str, Gathering[T]] = {}
        self._again: Counter[Change] = Counter()
        self._paused = False
        self._ready: list[Bulletin[T]] = []
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
            group = group_of(it)
            storm = self._storms.setdefault(group, Gathering[T](group, now))
            self._of[it.key] = storm
        return self._put(storm, it, now, ends, token)

    def due(self, now: float) -> list[Bulletin[T]]:
        """Return what is to be told by *now*, in order."""
        if now >= self._lease_at + self._grace:
            self._run_out(now)
        found, self._ready = self._ready, []
        for storm in tuple(self._storms.values()):
            while storm.due_at(self._wait, self._interval) <= now:
                first = storm.first or Change(EPOCH, "", "")
                found.append(storm.tell(now, self._again[first]))
                if found[-1].status == OVER:
                    self._forget(storm, first)
                    break
                for key in storm.fold():
                    self._of.pop(key, None)
        return found

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
            why = why_over(before.mitigation, it)
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
        first = Change(it.changed_at, it.key, it.state)
        status = PAUSED if paused else RESUMED
        self._ready.append(
            Bulletin(
                status=status,
                group=Group("all", ""),
                first=first,
                again=0,
                mark=first,
                members=(Member(it, cause=it.cause),),
                fresh=frozenset(),
                changed=frozenset({it.key}),
                gone={},
                tokens=(token,),
            )
        )
        return True

    def _forget(self, storm: Gathering[T], first: Change) -> None:
        del self._storms[storm.group]
        for key in storm.members:
            self._of.pop(key, None)
        if len(self._again) >= _AGAIN:
            self._again.clear()
        self._again[first] += 1


def _same(before: Mitigation, after: Mitigation) -> bool:
    """Return whether a record only renews."""
    return (before.state, before.dry_run) == (after.state, after.dry_run)
