"""The fields of a notice, counted from a bulletin; docs/reference/notice.md has all."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from consumers.mitigation.measure import NOTIFY
from consumers.mitigation.states import PROPOSED, WANTED
from consumers.webhook.bulletin import (
    CONTINUES,
    OVER,
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
    """One attack: its size in its direction, in packets/s and bit/s."""

    target: str
    sensor: str
    attack: str | None
    direction: str | None
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
    reasons: int
    by: str | None
    created_at: datetime
    started_at: datetime | None
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
    paused: bool
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
    pending: int
    informing: int
    informing_now: int
    kinds: Mapping[str, int]
    live: Mapping[str, int]
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
    standing = [member for member in members if not member.over]
    live = [member for member in standing if _is_live(member.mitigation)]
    news = [it for it in members if it.mitigation.key in bulletin.changed]
    told = news if status == CONTINUES else members
    if bulletin.pause is not None:
        told = live
    gone = sum(bulletin.gone.values())
    over_at = max((member.over_at for member in members), default=EPOCH)
    ended_at = over_at if status == OVER else None
    since = bulletin.first.created_at
    prefixes = _prefixes(told)
    over_before = 0 if status == CONTINUES else gone
    kinds = _kinds(bulletin)
    return Notice(
        status=status,
        paused=bulletin.paused,
        group=Whose(kind=bulletin.group.kind, name=bulletin.group.name or None),
        at=at,
        since=since,
        until=_time(max(map(_expiry, standing), default=EPOCH)),
        ended_at=ended_at,
        seconds=max(0, round(((ended_at or at) - since).total_seconds())),
        total=len(members) + gone,
        standing=len(standing),
        proposed=sum(it.mitigation.state == PROPOSED for it in standing),
        started=len(bulletin.fresh),
        ended=sum(bool(it.over) for it in news),
        changed=sum(
            not it.over and it.mitigation.key not in bulletin.fresh for it in news
        ),
        dry_run=sum(it.mitigation.dry_run for it in members if not _informs(it)),
        pending=sum(_has_pending(it.mitigation) for it in standing),
        informing=kinds.get(NOTIFY, 0),
        informing_now=sum(map(_informs, standing)),
        kinds=kinds,
        live=_count_kinds(live),
        ends=_ends(bulletin, news),
        causes=_causes(bulletin, news),
        largest=_largest(told),
        prefixes=prefixes[:_PREFIXES],
        more_prefixes=max(0, len(prefixes) - _PREFIXES) + over_before,
        rules=_names(one.rule for it in told for one in it.mitigation.reasons),
        sensors=_names(one.sensor for it in told for one in it.mitigation.reasons),
        mitigations=tuple(_item(member) for member in told[:_LISTED]),
        more_mitigations=max(0, len(told) - _LISTED) + over_before,
    )


def prefix_of(mitigation: Mitigation) -> str:
    """Return the network that is meant, or "any" where a flow names none."""
    if mitigation.flow is None:
        return mitigation.prefix or "any"
    return mitigation.flow.destination_prefix or mitigation.flow.source_prefix or "any"


def _informs(member: Member) -> bool:
    """Return whether a mitigation only informs: nothing is blocked."""
    return member.mitigation.kind == NOTIFY


def _is_live(mitigation: Mitigation) -> bool:
    """Return whether enforcers put it in force while nothing is paused."""
    touches = mitigation.kind != NOTIFY and not mitigation.dry_run
    return touches and mitigation.state == WANTED


def _has_pending(mitigation: Mitigation) -> bool:
    return mitigation.state == WANTED and mitigation.pending is not None


def _expiry(member: Member) -> datetime:
    """Return when a mitigation expires; EPOCH for one that only informs."""
    return EPOCH if _informs(member) else member.mitigation.expires_at


def _count_kinds(members: Iterable[Member]) -> Mapping[str, int]:
    counts = Counter(member.mitigation.kind for member in members)
    return dict(sorted(counts.items()))


def _kinds(bulletin: Bulletin[Any]) -> Mapping[str, int]:
    counts = Counter(_count_kinds(bulletin.members))
    for (kind, _why), count in bulletin.gone.items():
        counts[kind] += count
    return dict(sorted(counts.items()))


def _ends(bulletin: Bulletin[Any], news: Iterable[Member]) -> Mapping[str, int]:
    """Return why → how many: of the storm when it is over, else of the news."""
    whole = bulletin.status == OVER
    found = Counter(it.over for it in (bulletin.members if whole else news) if it.over)
    for (_kind, why), count in bulletin.gone.items() if whole else ():
        found[why] += count
    return {why: found[why] for why in WHY if found[why]}


def _causes(bulletin: Bulletin[Any], news: Iterable[Member]) -> tuple[Cause, ...]:
    sentences = [member.cause for member in news]
    if bulletin.pause is not None:
        sentences = [bulletin.pause.cause]
    counts = Counter(cause for cause in sentences if cause).most_common(_CAUSES)
    return tuple(Cause(cause=cause, count=count) for cause, count in counts)


def _attacks(member: Member) -> list[Attack]:
    return [
        Attack(
            target=reason.target,
            sensor=reason.sensor,
            attack=reason.attack or None,
            direction=reason.direction or None,
            pps=reason.pps,
            bits=reason.bits,
        )
        for reason in member.mitigation.reasons
        if reason.pps or reason.bits
    ]


def _size(attack: Attack) -> tuple[int, int]:
    return attack.bits or 0, attack.pps or 0


def _largest(members: Iterable[Member]) -> tuple[Attack, ...]:
    found: dict[tuple[str, str, str | None], Attack] = {}
    for it in (one for member in members for one in _attacks(member)):
        place = it.target, it.sensor, it.direction
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
        reasons=it.live_reasons + it.pending_reasons + it.dry_reasons,
        by=it.by or None,
        created_at=it.created_at,
        started_at=_time(it.started_at),
        expires_at=_time(it.expires_at),
        ended_at=member.over_at if member.over else None,
        why=member.over or None,
        cause=member.cause,
    )


def _time(time: datetime) -> datetime | None:
    return None if time <= EPOCH else time
