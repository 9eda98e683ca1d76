"""The fields of a notice, counted from a bulletin; docs/reference/notice.md has all."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from consumers.mitigation.states import PROPOSED
from consumers.webhook.bulletin import (
    CONTINUES,
    OVER,
    PAUSED,
    RESUMED,
    WHY,
    Bulletin,
    Member,
)
from fnm_bus.event import EPOCH, Mitigation

VERSION: Final = 1
_PREFIXES: Final = 10
_LARGEST: Final = 3
_CAUSES: Final = 5
_NAMES: Final = 100
_LISTED: Final = 1000


class Whose(msgspec.Struct, frozen=True, kw_only=True):
    """Whose storm it is: kind is hostgroup, customer or all."""

    kind: str
    name: str | None


class Attack(msgspec.Struct, frozen=True, kw_only=True):
    """One attack, in packets/s and bit/s."""

    target: str
    sensor: str
    attack_uuid: str | None
    pps: int | None
    bits: int | None


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """The mitigator's sentence, and of how many mitigations it is said."""

    cause: str
    count: int


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One mitigation; `why` is why it ended, or null while it stands."""

    key: str
    kind: str
    state: str
    prefix: str
    customer: str | None
    dry_run: bool
    started_at: datetime
    expires_at: datetime | None
    ended_at: datetime | None
    why: str | None
    cause: str


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One notice, version 1; docs/reference/notice.md describes every field."""

    version: int = VERSION
    key: str = ""
    storm: str = ""
    status: str
    group: Whose
    at: datetime
    title: str = ""
    text: str = ""
    since: datetime
    until: datetime | None
    ended_at: datetime | None
    seconds: int
    total: int
    standing: int
    proposed: int
    started: int
    ended: int
    changed: int
    dry_run: int
    kinds: Mapping[str, int]
    ends: Mapping[str, int]
    causes: tuple[Cause, ...]
    largest: tuple[Attack, ...]
    prefixes: tuple[str, ...]
    more_prefixes: int
    rules: tuple[str, ...]
    sensors: tuple[str, ...]
    mitigations: tuple[Item, ...]
    more_mitigations: int


def counted(bulletin: Bulletin[Any], at: datetime) -> Notice:
    """Return the notice of a bulletin made at *at*, without keys and texts."""
    status, members = bulletin.status, bulletin.members
    button = status in {PAUSED, RESUMED}
    standing = [it for it in members if not it.over]
    news = [it for it in members if it.mitigation.key in bulletin.changed]
    told = news if status == CONTINUES else members
    gone = sum(bulletin.gone.values())
    over_at = max((it.over_at for it in members), default=EPOCH)
    ended_at = over_at if status == OVER else None
    since = bulletin.first.started_at
    prefixes = _prefixes(told)
    over_before = 0 if status == CONTINUES else gone
    return Notice(
        status=status,
        group=Whose(kind=bulletin.group.kind, name=bulletin.group.name or None),
        at=at,
        since=since,
        until=_time(max((it.mitigation.expires_at for it in standing), default=EPOCH)),
        ended_at=ended_at,
        seconds=max(0, round(((ended_at or at) - since).total_seconds())),
        total=0 if button else len(members) + gone,
        standing=0 if button else len(standing),
        proposed=sum(it.mitigation.state == PROPOSED for it in standing),
        started=len(bulletin.fresh),
        ended=sum(bool(it.over) for it in news),
        changed=sum(
            not it.over and it.mitigation.key not in bulletin.fresh for it in news
        ),
        dry_run=sum(it.mitigation.dry_run for it in members),
        kinds={} if button else _kinds(bulletin),
        ends=_ends(bulletin, news),
        causes=_causes(news),
        largest=_largest(told),
        prefixes=prefixes[:_PREFIXES],
        more_prefixes=max(0, len(prefixes) - _PREFIXES) + over_before,
        rules=_names(one.rule for it in told for one in it.mitigation.reasons),
        sensors=_names(one.sensor for it in told for one in it.mitigation.reasons),
        mitigations=() if button else tuple(_item(it) for it in told[:_LISTED]),
        more_mitigations=max(0, len(told) - _LISTED) + over_before,
    )


def prefix_of(mitigation: Mitigation) -> str:
    """Return the network that is meant, or "any" where a flow names none."""
    if mitigation.flow is None:
        return mitigation.prefix or "any"
    return mitigation.flow.destination_prefix or mitigation.flow.source_prefix or "any"


def _kinds(bulletin: Bulletin[Any]) -> Mapping[str, int]:
    found = Counter(it.mitigation.kind for it in bulletin.members)
    for (kind, _why), count in bulletin.gone.items():
        found[kind] += count
    return dict(sorted(found.items()))


def _ends(bulletin: Bulletin[Any], news: Iterable[Member]) -> Mapping[str, int]:
    """Return why → how many: of the storm when it is over, else of the news."""
    whole = bulletin.status == OVER
    found = Counter(it.over for it in (bulletin.members if whole else news) if it.over)
    for (_kind, why), count in bulletin.gone.items() if whole else ():
        found[why] += count
    return {why: found[why] for why in WHY if found[why]}


def _causes(news: Iterable[Member]) -> tuple[Cause, ...]:
    found = Counter(it.cause for it in news if it.cause).most_common(_CAUSES)
    return tuple(Cause(cause=cause, count=count) for cause, count in found)


def _attacks(member: Member) -> list[Attack]:
    return [
        Attack(
            target=it.target,
            sensor=it.sensor,
            attack_uuid=it.attack,
            pps=it.pps,
            bits=it.bits,
        )
        for it in member.mitigation.reasons
        if it.pps or it.bits
    ]


def _size(attack: Attack) -> tuple[int, int]:
    return attack.bits or 0, attack.pps or 0


def _largest(members: Iterable[Member]) -> tuple[Attack, ...]:
    found: dict[tuple[str, str], Attack] = {}
    for it in (one for member in members for one in _attacks(member)):
        place = it.target, it.sensor
        if place not in found or _size(found[place]) < _size(it):
            found[place] = it
    return tuple(sorted(found.values(), key=_size, reverse=True)[:_LARGEST])


def _prefixes(members: Iterable[Member]) -> tuple[str, ...]:
    """Return each prefix once, those under the largest attacks first."""
    sizes: dict[str, tuple[int, int]] = {}
    for it in members:
        name = prefix_of(it.mitigation)
        size = max(map(_size, _attacks(it)), default=(0, 0))
        sizes[name] = max(size, sizes.get(name, size))
    return tuple(sorted(sizes, key=sizes.__getitem__, reverse=True))


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({it for it in names if it})[:_NAMES])


def _item(member: Member) -> Item:
    it = member.mitigation
    return Item(
        key=it.key,
        kind=it.kind,
        state="ended" if member.over else it.state,
        prefix=prefix_of(it),
        customer=it.customer,
        dry_run=it.dry_run,
        started_at=it.started_at,
        expires_at=_time(it.expires_at),
        ended_at=member.over_at if member.over else None,
        why=member.over or None,
        cause=member.cause,
    )


def _time(time: datetime) -> datetime | None:
    return None if time <= EPOCH else time
