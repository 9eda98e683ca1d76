"""The sentences of a notice, for people."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

from consumers.mitigation.measure import NOTIFY
from consumers.mitigation.states import (
    GUARDRAIL,
    LEASE,
    OPERATOR,
    POLICY,
    SUPERSEDED,
    UNBAN,
)
from consumers.webhook.bulletin import (
    CONTINUES,
    OTHER,
    OVER,
    PAUSED,
    RESUMED,
    SILENT,
    STARTED,
)
from consumers.webhook.notice_fields import Attack, Notice

_CAUSE: Final = 200
_NAMES: Final = 10
_WHY: Final[Mapping[str, str]] = {
    UNBAN: "by an unban",
    OPERATOR: "by a person",
    POLICY: "because the policy changed",
    GUARDRAIL: "because a guardrail refuses it",
    SUPERSEDED: "because another measure replaces it",
    LEASE: "because the LEASE RAN OUT",
    SILENT: "because the LEASE RAN OUT, without a word from the mitigator",
    OTHER: "for another reason",
}
_ALARMS: Final[Mapping[str, str]] = {
    LEASE: "Nobody renewed them and nobody said that the attack is over:"
    " check that the detector is alive. The attack may go on.",
    SILENT: "No word from the mitigator: check that it and Kafka are alive."
    " Enforcers end by themselves what nobody renews. The attack may go on.",
}


def title(notice: Notice) -> str:
    """Return one line that says what happened, and whose storm it is."""
    match notice.status:
        case "paused":
            return "Paused: everything is withdrawn until somebody resumes"
        case "resumed" if notice.live:
            return "Resumed: mitigations that still have a reason are back"
        case "resumed":
            return "Resumed: no mitigation is wanted"
        case "started":
            headline = _started_title(notice)
        case "continues":
            headline = _continues_title(notice)
        case _:
            headline = f"It is over: {_over_title(notice)}"
    masked = ", paused: nothing is in force" if _is_masked(notice) else ""
    return f"{headline}{masked} ({_whose(notice)})"


def text(notice: Notice) -> str:
    """Return everything that people want to know, some lines."""
    return "\n".join(_clean(it) for it in _LINES[notice.status](notice))


def _started_title(notice: Notice) -> str:
    blocking, informing = notice.total - notice.informing, notice.informing
    if not blocking:
        return f"{_count(informing, 'attack')}, nothing blocked"
    also = f"; nothing blocked for {_count(informing, 'attack')}" if informing else ""
    return f"{_count(blocking, 'mitigation')} started{also}"


def _continues_title(notice: Notice) -> str:
    blocking = notice.standing - notice.informing_now
    attacks = _count(notice.informing_now, "attack")
    parts = [f"Going on: {_news(notice)}"]
    if blocking or not notice.informing:
        parts.append(f"{blocking} active")
    if notice.informing_now:
        only = f"{attacks}, nothing blocked"
        parts.append(f"nothing blocked for {attacks}" if blocking else only)
    return "; ".join(parts)


def _over_title(notice: Notice) -> str:
    blocking, informing = notice.total - notice.informing, notice.informing
    attacks = _count(informing, "attack")
    if not blocking:
        return f"{attacks} ended, nothing was blocked"
    also = f"; nothing was blocked for {attacks}" if informing else ""
    return f"{_count(blocking, 'mitigation')} ended{also}"


def _started(notice: Notice) -> Iterator[str]:
    blocking = notice.total - notice.informing
    if blocking:
        counts = f"{_blocking_kinds(notice.kinds)}{_marks(notice)}"
        yield f"{_count(blocking, 'mitigation')} started: {counts}."
    if notice.informing:
        attacks = _count(notice.informing, "attack")
        yield f"{attacks}, nothing blocked: the policy only informs."
    if notice.ended:
        yield f"{notice.ended} of them ended already: {_why(notice)}."
    yield from _masked(notice)
    yield from _alarms(notice)
    yield from _details(notice)
    yield f"Since {_time(notice.since)}{_until(notice)}."


def _continues(notice: Notice) -> Iterator[str]:
    blocking = notice.total - notice.informing
    yield f"Since the last notice: {_news(notice)}."
    if blocking:
        active = notice.standing - notice.informing_now
        total = _count(blocking, "mitigation")
        yield f"{active} of {total} active{_marks(notice)}."
    if notice.informing:
        attacks = _count(notice.informing, "attack")
        active = notice.informing_now
        yield f"{active} of {attacks} active, nothing blocked: the policy only informs."
    if notice.ended:
        yield f"Ended {_why(notice)}."
    yield from _masked(notice)
    yield from _alarms(notice)
    yield from _said(notice)
    yield from _details(notice)
    yield f"Since {_time(notice.since)}{_until(notice)}."


def _over(notice: Notice) -> Iterator[str]:
    lasted = _duration(notice.seconds)
    blocking = notice.total - notice.informing
    if blocking:
        counts = f"{_blocking_kinds(notice.kinds)}{_marks(notice)}"
        yield f"{_count(blocking, 'mitigation')} ended, none is active: {counts}."
    if notice.informing:
        attacks = _count(notice.informing, "attack")
        yield f"{attacks} ended, nothing was blocked: the policy only informs."
    yield f"Ended {_why(notice)}."
    yield from _alarms(notice)
    yield from _said(notice)
    yield from _details(notice)
    ended = _time(notice.ended_at) if notice.ended_at else "now"
    yield f"From {_time(notice.since)} to {ended}: {lasted}."


def _paused(notice: Notice) -> Iterator[str]:
    yield f"Withdrawn by all enforcers: {_counts(notice.live) or 'none'}."
    yield "Decisions and leases continue; nothing is in force until somebody resumes."
    yield from _said(notice)
    yield from _details(notice)
    yield f"Since {_time(notice.since)}."


def _resumed(notice: Notice) -> Iterator[str]:
    yield f"Back in force: {_counts(notice.live) or 'none'}."
    yield from _said(notice)
    yield from _details(notice)
    yield f"Since {_time(notice.since)}."


_LINES: Final = {
    STARTED: _started,
    CONTINUES: _continues,
    OVER: _over,
    PAUSED: _paused,
    RESUMED: _resumed,
}


def _details(notice: Notice) -> Iterator[str]:
    if notice.largest:
        yield f"Largest attacks: {'; '.join(map(_attack, notice.largest))}"
    if notice.prefixes:
        yield f"Prefixes: {_list(notice.prefixes, notice.more_prefixes)}"
    if notice.rules:
        yield f"Rules: {_names(notice.rules)}"
    if notice.sensors:
        yield f"Sensors: {_names(notice.sensors)}"


def _alarms(notice: Notice) -> Iterator[str]:
    yield from (_ALARMS[why] for why in notice.ends if why in _ALARMS)


def _said(notice: Notice) -> Iterator[str]:
    for it in notice.causes:
        cause = it.cause if len(it.cause) <= _CAUSE else f"{it.cause[:_CAUSE]}…"
        yield f"Cause: {cause}" + (f" ({it.count} times)" if it.count > 1 else "")


def _news(notice: Notice) -> str:
    parts = {
        "started": notice.started,
        "ended": notice.ended,
        "changed": notice.changed,
    }
    return ", ".join(f"{count} {name}" for name, count in parts.items() if count)


def _marks(notice: Notice) -> str:
    found = ""
    if notice.proposed:
        verb = "waits" if notice.proposed == 1 else "wait"
        found += f"; {notice.proposed} {verb} for approval"
    if notice.pending:
        waits = "has a change that waits", "have changes that wait"
        found += f"; {notice.pending} {waits[notice.pending > 1]} for approval"
    if notice.dry_run:
        found += f"; {notice.dry_run} only as a dry run"
    return found


def _whose(notice: Notice) -> str:
    if notice.group.name is None:
        return "no hostgroup or customer"
    return f"{notice.group.kind} {_clean(notice.group.name)}"


def _why(notice: Notice) -> str:
    return ", ".join(f"{_WHY[why]}: {count}" for why, count in notice.ends.items())


def _until(notice: Notice) -> str:
    if notice.until is None:
        return ""
    return f"; until {_time(notice.until)} unless renewed"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _is_masked(notice: Notice) -> bool:
    """Return whether a pause keeps mitigations of the storm from being in force."""
    return notice.paused and bool(notice.live)


def _masked(notice: Notice) -> Iterator[str]:
    if _is_masked(notice):
        yield "Paused: nothing is in force until somebody resumes."


def _blocking_kinds(kinds: Mapping[str, int]) -> str:
    return _counts({kind: count for kind, count in kinds.items() if kind != NOTIFY})


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _names(names: tuple[str, ...]) -> str:
    return _list(names[:_NAMES], max(0, len(names) - _NAMES))


def _list(names: Iterable[str], more: int) -> str:
    return ", ".join(names) + (f" and {more} more" if more else "")


def _attack(attack: Attack) -> str:
    sizes = ((attack.bits, "bit/s"), (attack.pps, "pps"))
    parts = [_scaled(value, unit) for value, unit in sizes if value is not None]
    sensor = f" ({attack.sensor})" if attack.sensor else ""
    direction = f"{attack.direction} " if attack.direction else ""
    return f"{attack.target} {direction}{', '.join(parts)}{sensor}"


def _scaled(value: float, unit: str) -> str:
    for prefix in ("", "k", "M", "G"):
        if value < 999.5:  # noqa: PLR2004 - from here on it would be told as 1e+03
            return f"{value:.3g} {prefix}{unit}"
        value /= 1000
    return f"{value:.3g} T{unit}"


def _duration(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def _clean(line: str) -> str:
    """Return a line without what would break it: names come from outside."""
    return "".join(it if it.isprintable() else " " for it in line)
