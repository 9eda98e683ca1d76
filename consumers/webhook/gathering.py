"""Gathering: the mitigations of one group, from the first until nothing stands."""

from collections import Counter
from datetime import datetime, timedelta
from math import inf
from typing import Final, Generic, TypeVar

from consumers.webhook.bulletin import (
    CONTINUES,
    OVER,
    STARTED,
    Bulletin,
    Change,
    Group,
    Member,
)
from fnm_bus.event import EPOCH

T = TypeVar("T")

_KEPT: Final = 10_000
"""Mitigations that a storm remembers after it told of their end; others it counts."""


class Gathering(Generic[T]):
    """One group's storm.

    Args:
        group: whose storm it is.
        now: when the first change came.

    Attributes:
        group: as given.
        first: its first mitigation; fixed when it was told of.
        members: key → mitigation.
        fresh: keys of those that started since the last bulletin.
        told: whether the first bulletin was made.
        last: when the last one was.
        tokens: what came with the changes since then.
    """

    def __init__(self, group: Group, now: float) -> None:
        self.group = group
        self.opened = now
        self.told = False
        self.last = -inf
        self.stirred = now
        self.members: dict[str, Member] = {}
        self.standing = 0
        self.first: Change | None = None
        self.mark: Change | None = None
        self.fresh: set[str] = set()
        self.changed: set[str] = set()
        self.gone: Counter[tuple[str, str]] = Counter()
        self.tokens: list[T] = []

    def put(self, member: Member) -> None:
        """Take a member in place of what it was."""
        before = self.members.get(member.mitigation.key)
        self.standing += (not member.over) - (before is not None and not before.over)
        self.members[member.mitigation.key] = member
        if not self.told:
            it = member.mitigation
            found = Change(it.created_at, it.key, "")
            self.first = min(self.first or found, found)

    def stir(self, member: Member, state: str, now: float) -> None:
        """Take a member that changed."""
        it = member.mitigation
        self.put(member)
        if not self.changed or not self.standing:
            self.stirred = now
        self.changed.add(it.key)
        mark = Change(it.created_at, it.key, state)
        self.mark = min(self.mark or mark, mark)

    def due_at(self, wait: float, interval: float) -> float:
        """Return when there is something to tell; `inf` when nothing changed."""
        if not self.told:
            return self.opened + wait
        if not self.standing:
            return self.stirred + wait
        if not self.changed:
            return inf
        return max(self.last + interval, self.stirred + wait)

    def tell(self, now: float, again: int, *, paused: bool = False) -> Bulletin[T]:
        """Return what changed since the last bulletin, and gather for the next one."""
        status = STARTED if not self.told else CONTINUES if self.standing else OVER
        nothing = Change(EPOCH, "", "")
        bulletin = Bulletin(
            status=status,
            group=self.group,
            first=self.first or nothing,
            again=again,
            mark=self.mark or nothing,
            members=tuple(sorted(self.members.values(), key=creation)),
            fresh=frozenset(self.fresh),
            changed=frozenset(self.changed),
            gone=dict(self.gone),
            tokens=tuple(self.tokens),
            paused=paused,
        )
        self.told, self.last, self.mark = True, now, None
        self.fresh, self.changed, self.tokens = set(), set(), []
        return bulletin

    def fold(self, most: int | None = None) -> list[str]:
        """Count ended members that exceed *most*; return the keys that are dropped."""
        most = _KEPT if most is None else most
        over = [key for key, member in self.members.items() if member.over]
        old = over[: max(0, len(over) - most)]
        for key in old:
            member = self.members.pop(key)
            self.gone[member.mitigation.kind, member.over] += 1
        return old


def chain(members: list[Member], wait: timedelta) -> list[Member]:
    """Return what stands, and what ended while what stands now had begun."""
    found = [it for it in members if not it.over]
    if not found:
        return []
    since = min(it.mitigation.created_at for it in found)
    for it in sorted((it for it in members if it.over), key=_ended, reverse=True):
        if it.over_at < since - wait:
            break
        found.append(it)
        since = min(since, it.mitigation.created_at)
    return found


def creation(member: Member) -> Change:
    """Return what sorts members: time of creation, then key."""
    return Change(member.mitigation.created_at, member.mitigation.key, "")


def _ended(member: Member) -> datetime:
    return member.over_at
