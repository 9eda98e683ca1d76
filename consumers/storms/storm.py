"""One group's storm, from its first mitigation until none is active."""

from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from math import inf, isinf
from typing import Final

from consumers.storms.group import GroupRef
from consumers.storms.update import (
    CONTINUES,
    ENDED,
    RENEWED,
    STARTED,
    ChangeId,
    Position,
    StormMember,
    StormUpdate,
)

OPEN_LEASE: Final = 900.0
"""Seconds until the reported end of a lease without an end, and of a pause."""
RENEWAL_INTERVAL: Final = 60.0
"""Seconds between renewals, as Prometheus repeats its alerts every minute."""


class Storm:
    """One group's storm.

    Attributes:
        members: key → mitigation.
        first: the first mitigation; fixed by the first update.
        reported: whether the first update was made.
    """

    def __init__(self, group: GroupRef, now: float) -> None:
        self.group = group
        self.members: dict[str, StormMember] = {}
        self.first: ChangeId | None = None
        self.reported = False
        self._active = 0
        self._opened_at = self._changed_at = now
        self._last_update = self._last_renewal = -inf
        self._reported_end = -inf
        self._first_change: ChangeId | None = None
        self._started: set[str] = set()
        self._changed: set[str] = set()
        self._positions: list[Position] = []
        self._dropped: Counter[tuple[str, str]] = Counter()

    def put(self, member: StormMember) -> None:
        """Add a member, or replace it, without news."""
        key = member.mitigation.key
        before = self.members.get(key)
        was_active = before is not None and not before.ended_because
        self._active += (not member.ended_because) - was_active
        self.members[key] = member
        if not self.reported:
            self.first = min(self.first or member.change, member.change)

    def recall(self, members: Iterable[StormMember], last_update: float) -> None:
        """Take over members that were reported before a restart."""
        for member in members:
            self.put(member)
        self.reported, self._last_update = True, last_update

    def change(
        self, member: StormMember, state: str, now: float, position: Position | None
    ) -> None:
        """Add or replace a member; the next update reports it."""
        key = member.mitigation.key
        before = self.members.get(key)
        if before is None or before.ended_because:
            self._started.add(key)
        self.put(member)
        if not self._changed or not self._active:
            self._changed_at = now
        self._changed.add(key)
        change = member.change._replace(state=state)
        self._first_change = min(self._first_change or change, change)
        if position is not None:
            self._positions.append(position)

    def due_at(self, wait: float, interval: float) -> float:
        """Return the time of the next update; `inf` when nothing changed."""
        if not self.reported:
            return self._opened_at + wait
        if not self._active:
            return self._changed_at + wait
        if not self._changed:
            return inf
        return max(self._last_update + interval, self._changed_at + wait)

    def update(self, now: float, repetition: int, *, paused: bool) -> StormUpdate:
        """Return the changes since the last update."""
        active = CONTINUES if self._active else ENDED
        status = active if self.reported else STARTED
        update = self._snapshot(status, now, repetition, paused=paused)._replace(
            first_change=self._first_change or ChangeId(),
            started=frozenset(self._started),
            changed=frozenset(self._changed),
            positions=tuple(self._positions),
        )
        self.reported, self._last_update, self._first_change = True, now, None
        self._started, self._changed, self._positions = set(), set(), []
        return update

    def renewal(
        self, now: float, repetition: int, *, paused: bool
    ) -> StormUpdate | None:
        """Return an update for receivers that forget a storm at its reported end.

        It is due after RENEWAL_INTERVAL, and at half of a short lease that was renewed.
        """
        if not self.reported or not self._active:
            return None
        is_half_over = now >= (self._last_renewal + self._reported_end) / 2
        if now < self._last_renewal + RENEWAL_INTERVAL and not (
            is_half_over and self._end(now) > self._reported_end
        ):
            return None
        return self._snapshot(RENEWED, now, repetition, paused=paused)

    def drop_ended(self, maximum: int) -> list[str]:
        """Keep *maximum* ended members and the number of others; return those keys."""
        ended = [key for key, member in self.members.items() if member.ended_because]
        dropped = ended[: max(0, len(ended) - maximum)]
        for key in dropped:
            member = self.members.pop(key)
            self._dropped[member.mitigation.kind, member.ended_because] += 1
        return dropped

    def _snapshot(
        self, status: str, now: float, repetition: int, *, paused: bool
    ) -> StormUpdate:
        self._last_renewal, self._reported_end = now, self._end(now)
        return StormUpdate(
            status=status,
            group=self.group,
            first=self.first or ChangeId(),
            ends_at=self._reported_end,
            members=tuple(sorted(self.members.values(), key=lambda m: m.change)),
            repetition=repetition,
            dropped=dict(self._dropped),
            paused=paused,
        )

    def _end(self, now: float) -> float:
        ends = (m.ends_at for m in self.members.values() if not m.ended_because)
        end = max(ends, default=now)
        return now + OPEN_LEASE if isinf(end) else end


def connected(members: Iterable[StormMember], wait: timedelta) -> list[StormMember]:
    """Return active members, and ended ones that overlap the same storm."""
    members = list(members)
    chosen = [member for member in members if not member.ended_because]
    if not chosen:
        return []
    since = min(member.mitigation.created_at for member in chosen)
    ended = (member for member in members if member.ended_because)
    for member in sorted(ended, key=lambda m: m.ended_at, reverse=True):
        if member.ended_at < since - wait:
            break
        chosen.append(member)
        since = min(since, member.mitigation.created_at)
    return chosen
