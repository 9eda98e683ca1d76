"""Builds the notice of an update."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

import msgspec
from msgspec.structs import replace

from consumers.mitigation.measure import NOTIFY
from consumers.mitigation.states import PROPOSED, WANTED
from consumers.notifier.document import Cause, Group, Item, Notice
from consumers.notifier.notice_text import text_of, title_of
from consumers.storms.update import (
    CONTINUES,
    END_CODES,
    ENDED,
    RENEWED,
    StormMember,
    StormUpdate,
)
from fnm_bus.event import EPOCH, Mitigation, ReasonSummary

_PREFIXES: Final = 10
_LARGEST: Final = 3
_CAUSES: Final = 5
_NAMES: Final = 100
_LISTED: Final = 1000


def notice_of(update: StormUpdate, at: datetime) -> Notice:
    """Return the notice of an update, made at *at* (UTC).

    Its key is the same when the same records are read again.
    """
    notice, first = _fields(update, at), update.first
    storm = [*update.group, first.key, first.created_at, update.repetition]
    key = [*storm, update.status]
    if update.status == CONTINUES:
        key += update.first_change
    elif update.status == RENEWED:
        key.append(update.ends_at)
    if update.pause is not None:
        storm = [update.pause.key]
    return replace(
        notice,
        storm=_digest(storm),
        key=_digest(key),
        title=title_of(notice),
        text=text_of(notice),
    )


def prefix_of(mitigation: Mitigation) -> str:
    """Return the network of a mitigation, or "any" if its flow names none."""
    if mitigation.flow is None:
        return mitigation.prefix or "any"
    return mitigation.flow.destination_prefix or mitigation.flow.source_prefix or "any"


def _fields(update: StormUpdate, at: datetime) -> Notice:
    """Return a notice without keys and texts."""
    members, since = update.members, update.first.created_at
    active = [member for member in members if not member.ended_because]
    live = [member.mitigation for member in active if _is_live(member.mitigation)]
    changed = [m for m in members if m.mitigation.key in update.changed]
    listed: Iterable[StormMember] = members
    if update.status == CONTINUES:
        listed = changed
    elif update.pause is not None:
        listed = [member for member in active if _is_live(member.mitigation)]
    mitigations = [member.mitigation for member in listed]
    ended_at = None
    if update.status == ENDED:
        ended_at = max((member.ended_at for member in members), default=EPOCH)
    dropped = sum(update.dropped.values())
    dropped_here = 0 if update.status == CONTINUES else dropped
    notify_only = [m for m in members if m.mitigation.kind == NOTIFY]
    leases = [m.mitigation.expires_at for m in active if m.mitigation.kind != NOTIFY]
    prefixes = _prefixes(mitigations)
    kinds = Counter(member.mitigation.kind for member in members)
    for (kind, _code), count in update.dropped.items():
        kinds[kind] += count
    reasons = [reason for record in mitigations for reason in record.reasons]
    return Notice(
        status=update.status,
        paused=update.paused,
        group=Group(kind=update.group.kind, name=update.group.name or None),
        at=at,
        since=since,
        until=_time(max(leases, default=EPOCH)),
        ended_at=ended_at,
        seconds=max(0, round(((ended_at or at) - since).total_seconds())),
        total=len(members) + dropped,
        active=len(active),
        proposed=sum(m.mitigation.state == PROPOSED for m in active),
        started=len(update.started),
        ended=sum(bool(m.ended_because) for m in changed),
        changed=sum(
            not m.ended_because and m.mitigation.key not in update.started
            for m in changed
        ),
        dry_run=sum(
            m.mitigation.dry_run and m.mitigation.kind != NOTIFY for m in members
        ),
        pending=sum(
            m.mitigation.state == WANTED and m.mitigation.pending is not None
            for m in active
        ),
        notify_only=kinds.get(NOTIFY, 0),
        notify_only_active=sum(not m.ended_because for m in notify_only),
        kinds=dict(sorted(kinds.items())),
        live=dict(sorted(Counter(record.kind for record in live).items())),
        ended_because=_end_reasons(update, changed),
        causes=_causes(update, changed),
        largest=_largest(reasons),
        prefixes=prefixes[:_PREFIXES],
        more_prefixes=max(0, len(prefixes) - _PREFIXES) + dropped_here,
        rules=_names(reason.rule for reason in reasons),
        sensors=_names(reason.sensor for reason in reasons),
        mitigations=tuple(map(_item, tuple(listed)[:_LISTED])),
        more_mitigations=max(0, len(mitigations) - _LISTED) + dropped_here,
    )


def _is_live(mitigation: Mitigation) -> bool:
    """Return whether enforcers put it in force while nothing is paused."""
    acts = mitigation.kind != NOTIFY and not mitigation.dry_run
    return acts and mitigation.state == WANTED


def _end_reasons(
    update: StormUpdate, changed: Iterable[StormMember]
) -> Mapping[str, int]:
    """Return end code → number: of the whole storm at its end, else of the changes."""
    is_end = update.status == ENDED
    members = update.members if is_end else changed
    codes = Counter(m.ended_because for m in members if m.ended_because)
    for (_kind, code), count in update.dropped.items() if is_end else ():
        codes[code] += count
    return {code: codes[code] for code in END_CODES if codes[code]}


def _causes(update: StormUpdate, changed: Iterable[StormMember]) -> tuple[Cause, ...]:
    sentences = [member.cause for member in changed]
    if update.pause is not None:
        sentences = [update.pause.cause]
    counts = Counter(sentence for sentence in sentences if sentence)
    return tuple(Cause(cause=c, count=n) for c, n in counts.most_common(_CAUSES))


def _size(attack: ReasonSummary) -> tuple[int, int]:
    return attack.bits or 0, attack.pps or 0


def _largest(attacks: Iterable[ReasonSummary]) -> tuple[ReasonSummary, ...]:
    """Return the largest attacks, each target, sensor and direction once."""
    largest: dict[tuple[str, str, str], ReasonSummary] = {}
    for attack in attacks:
        key = attack.target, attack.sensor, attack.direction
        largest[key] = max(largest.get(key, attack), attack, key=_size)
    ranked = sorted(largest.values(), key=_size, reverse=True)
    return tuple(attack for attack in ranked[:_LARGEST] if any(_size(attack)))


def _prefixes(mitigations: Iterable[Mitigation]) -> tuple[str, ...]:
    """Return each prefix once, those under the largest attacks first."""
    sizes: dict[str, tuple[int, int]] = {}
    for mitigation in mitigations:
        prefix = prefix_of(mitigation)
        size = max(map(_size, mitigation.reasons), default=(0, 0))
        sizes[prefix] = max(size, sizes.get(prefix, size))
    return tuple(sorted(sizes, key=sizes.__getitem__, reverse=True))


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({name for name in names if name})[:_NAMES])


def _item(member: StormMember) -> Item:
    mitigation = member.mitigation
    counts = mitigation.live_reasons, mitigation.pending_reasons, mitigation.dry_reasons
    return Item(
        key=mitigation.key,
        kind=mitigation.kind,
        state=ENDED if member.ended_because else mitigation.state,
        prefix=prefix_of(mitigation),
        customer=mitigation.customer,
        dry_run=mitigation.dry_run,
        reasons=sum(counts),
        by=mitigation.by or None,
        created_at=mitigation.created_at,
        started_at=_time(mitigation.started_at),
        expires_at=_time(mitigation.expires_at),
        ended_at=member.ended_at if member.ended_because else None,
        ended_because=member.ended_because or None,
        cause=member.cause,
    )


def _time(time: datetime) -> datetime | None:
    return None if time <= EPOCH else time


def _digest(values: object) -> str:
    return hashlib.sha256(msgspec.json.encode(values)).hexdigest()[:32]
