"""Group changes of mitigations into storms, and decide when each is reported.

As in Alertmanager, the first change of a group waits `wait` for others. While the storm
continues, changes are reported every `interval` at the earliest. The storm has ended
when no mitigation was active for `wait`. Times are seconds of the caller's clock, which
must be monotonic.
"""

from collections import Counter, deque
from collections.abc import Iterable
from datetime import timedelta
from math import inf
from typing import Final

from consumers.mitigation.states import PAUSE, PROPOSED, WANTED
from consumers.storms.group import GroupRef, group_of
from consumers.storms.storm import OPEN_LEASE, RENEWAL_INTERVAL, Storm, connected
from consumers.storms.update import (
    ENDED,
    PAUSED,
    RESUMED,
    SILENT,
    ChangeId,
    Position,
    StormMember,
    StormUpdate,
    end_code,
)
from fnm_bus.event import Mitigation

_ACTIVE: Final = frozenset({PROPOSED, WANTED})
_MAX_REPETITIONS: Final = 1000
_MAX_MITIGATIONS: Final = 50_000
"""Mitigations of all storms; further ones are skipped and counted."""
_MAX_ENDED: Final = 10_000
"""Ended mitigations that a storm keeps; of further ones it keeps the number."""
_MAX_ENDED_WHEN_FULL: Final = 10
"""The same when the bound of all mitigations is reached."""
_MAX_UPDATES: Final = 100
"""Updates that one call of `due` returns."""


class StormGrouper:
    """All storms.

    Args:
        wait: seconds in which changes gather, and of quiet until a storm has ended.
        interval: seconds between two updates of a storm that continues.
        grace: seconds after a lease in which the mitigator may still write its end.

    Attributes:
        skipped: number of records that exceeded the bound.

    A pause masks: mitigations stay in their storms, and it ends no storm.
    """

    def __init__(self, wait: float, interval: float, grace: float = 30.0) -> None:
        self._wait = wait
        self._interval = interval
        self._grace = grace
        self._storms: dict[GroupRef, Storm] = {}
        self._storm_of: dict[str, Storm] = {}
        self._repetitions: Counter[ChangeId] = Counter()
        self._pause: Mitigation | None = None
        self._pause_renewed_at = -inf
        self._pause_changes: deque[tuple[Mitigation, Position]] = deque()
        self._next_expiry = inf
        self.skipped = 0

    def recall(self, members: Iterable[StormMember], now: float) -> None:
        """Take over the latest record of each key that was reported before a restart.

        An ended mitigation belongs to a storm if it ended while the storm continued.
        """
        groups: dict[GroupRef, list[StormMember]] = {}
        for member in members:
            if member.mitigation.kind != PAUSE:
                groups.setdefault(group_of(member.mitigation), []).append(member)
            elif not member.ended_because:
                self._pause = member.mitigation
        for group, candidates in groups.items():
            recalled = connected(candidates, timedelta(seconds=self._wait))
            if not recalled:
                continue
            storm = self._storms[group] = Storm(group, now)
            storm.recall(recalled, now - self._interval)
            for member in recalled:
                self._storm_of[member.mitigation.key] = storm
                self._next_expiry = min(self._next_expiry, member.ends_at)

    def apply(
        self, record: Mitigation, now: float, ends_at: float, position: Position
    ) -> bool:
        """Apply one record; return whether an update will report it.

        Args:
            record: the record.
            now: the current time.
            ends_at: end of its lease; `inf` without one.
            position: returned with the update that reports the record.
        """
        if record.kind == PAUSE:
            return self._apply_pause(record, position)
        storm = self._storm_of.get(record.key)
        if storm is None:
            if record.state not in _ACTIVE:
                return False
            if len(self._storm_of) >= _MAX_MITIGATIONS:
                self.skipped += 1
                return False
            group = group_of(record)
            storm = self._storms.setdefault(group, Storm(group, now))
            self._storm_of[record.key] = storm
        before = storm.members.get(record.key)
        is_active = before is not None and not before.ended_because
        if record.state in _ACTIVE:
            member = StormMember(record, ends_at, cause=record.cause)
            self._next_expiry = min(self._next_expiry, ends_at)
            if before is not None and is_active and _is_renewal(before, record):
                storm.put(member)
                return False
        elif before is None or not is_active:
            return False
        else:
            member = before._replace(
                ended_because=end_code(record),
                ended_at=record.changed_at,
                cause=record.cause,
            )
        storm.change(member, record.state, now, position)
        return True

    def due(self, now: float) -> list[StormUpdate]:
        """Return the updates that are due, in order and in portions.

        While more is due, `next_due` returns a time in the past.
        """
        if now >= self._next_expiry + self._grace:
            self._expire(now)
        updates: list[StormUpdate] = []
        while self._pause_changes and len(updates) < _MAX_UPDATES:
            updates.append(self._pause_update(*self._pause_changes.popleft(), now))
        for storm in tuple(self._storms.values()):
            # A storm whose end is due after its start needs two updates.
            while (
                len(updates) < _MAX_UPDATES
                and storm.due_at(self._wait, self._interval) <= now
            ):
                count = self._repetitions[storm.first or ChangeId()]
                updates.append(storm.update(now, count, paused=self._is_paused))
                if updates[-1].status == ENDED:
                    self._forget(storm)
                    break
                self._unlink(storm.drop_ended(_MAX_ENDED))
        if len(self._storm_of) >= _MAX_MITIGATIONS:
            for storm in self._storms.values():
                self._unlink(storm.drop_ended(_MAX_ENDED_WHEN_FULL))
        return updates

    def renewals(self, now: float) -> list[StormUpdate]:
        """Return the renewals that are due: storms, and the pause."""
        updates = []
        if self._pause and now - self._pause_renewed_at >= RENEWAL_INTERVAL:
            updates.append(self._pause_update(self._pause, None, now))
        for storm in self._storms.values():
            count = self._repetitions[storm.first or ChangeId()]
            update = storm.renewal(now, count, paused=self._is_paused)
            if update is not None:
                updates.append(update)
        return updates

    def next_due(self) -> float:
        """Return the time when `due` has to be called; `inf` when nothing waits."""
        if self._pause_changes:
            return -inf
        times = (s.due_at(self._wait, self._interval) for s in self._storms.values())
        return min(self._next_expiry + self._grace, *times, inf)

    @property
    def _is_paused(self) -> bool:
        return self._pause is not None

    def _expire(self, now: float) -> None:
        self._next_expiry = inf
        for storm in self._storms.values():
            for member in tuple(storm.members.values()):
                if member.ended_because:
                    continue
                if member.ends_at + self._grace > now:
                    self._next_expiry = min(self._next_expiry, member.ends_at)
                    continue
                expired = member._replace(
                    ended_because=SILENT,
                    ended_at=member.mitigation.expires_at,
                    cause="",
                )
                storm.change(expired, SILENT, now, None)

    def _apply_pause(self, record: Mitigation, position: Position) -> bool:
        pauses = record.state == WANTED
        if pauses == self._is_paused:
            return False
        self._pause = record if pauses else None
        self._pause_changes.append((record, position))
        return True

    def _pause_update(
        self, pause: Mitigation, position: Position | None, now: float
    ) -> StormUpdate:
        pauses = pause.state == WANTED
        self._pause_renewed_at = now
        change = ChangeId(pause.changed_at, pause.key, pause.state)
        active = (
            member
            for storm in self._storms.values()
            for member in storm.members.values()
            if not member.ended_because
        )
        return StormUpdate(
            status=PAUSED if pauses else RESUMED,
            group=GroupRef(),
            first=change,
            ends_at=now + OPEN_LEASE if pauses else now,
            members=tuple(sorted(active, key=lambda member: member.change)),
            first_change=change,
            positions=() if position is None else (position,),
            paused=pauses,
            pause=pause,
        )

    def _unlink(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._storm_of.pop(key, None)

    def _forget(self, storm: Storm) -> None:
        del self._storms[storm.group]
        self._unlink(storm.members)
        if len(self._repetitions) >= _MAX_REPETITIONS:
            self._repetitions.clear()
        self._repetitions[storm.first or ChangeId()] += 1


def _is_renewal(member: StormMember, record: Mitigation) -> bool:
    """Return whether a record of an active mitigation only renews its lease."""
    before = member.mitigation
    waits = record.pending is not None and record.pending != before.pending
    return not waits and (before.state, before.dry_run) == (
        record.state,
        record.dry_run,
    )
