"""The sentences of a notice, for people."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

from consumers.webhook.bulletin import (
    CONTINUES,
    LEASE,
    OTHER,
    OVER,
    PAUSED,
    PERSON,
    RESUMED,
    SILENT,
    STARTED,
    UNBAN,
)
from consumers.webhook.notice_fields import Attack, Notice

_CAUSE: Final = 200
_NAMES: Final = 10
_WHY: Final[Mapping[str, str]] = {
    UNBAN: "by an unban",
    PERSON: "by a person",
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
            return "Paused: no mitigations until somebody resumes"
        case "resumed":
            return "Resumed: mitigations start again"
        case "started":
            what = f"{_many(notice.total)} started"
        case "continues":
            what = f"Going on: {_news(notice)}; {notice.standing} stand"
        case _:
            what = f"It is over: {_many(notice.total)} ended"
    return f"{what} ({_whose(notice)})"


def text(notice: Notice) -> str:
    """Return everything that people want to know, some lines."""
    return "\n".join(_clean(it) for it in _LINES[notice.status](notice))


def _started(notice: Notice) -> Iterator[str]:
    yield f"{_many(notice.total)} started: {_counts(notice.kinds)}{_marks(notice)}."
    if notice.ended:
        yield f"{notice.ended} of them ended already: {_why(notice)}."
    yield from _alarms(notice)
    yield from _details(notice)
    yield f"Since {_time(notice.since)}{_until(notice)}."


def _continues(notice: Notice) -> Iterator[str]:
    yield f"Since the last notice: {_news(notice)}."
    yield f"{notice.standing} of {notice.total} stand{_marks(notice)}."
    if notice.ended:
        yield f"Ended {_why(notice)}."
    yield from _alarms(notice)
    yield from _said(notice)
    yield from _details(notice)
    yield f"Since {_time(notice.since)}{_until(notice)}."


def _over(notice: Notice) -> Iterator[str]:
    lasted = _duration(notice.seconds)
    counts = _counts(notice.kinds)
    yield f"{_many(notice.total)} ended, none stands: {counts}{_marks(notice)}."
    yield f"Ended {_why(notice)}."
    yield from _alarms(notice)
    yield from _said(notice)
    yield from _details(notice)
    ended = _time(notice.ended_at) if notice.ended_at else "now"
    yield f"From {_time(notice.since)} to {ended}: {lasted}."


def _paused(notice: Notice) -> Iterator[str]:
    yield "The red button: what stood is ended, and no new mitigation starts."
    yield from _said(notice)
    yield f"Since {_time(notice.since)}."


def _resumed(notice: Notice) -> Iterator[str]:
    yield "Mitigations start again."
    yield from _said(notice)
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


def _many(count: int) -> str:
    return f"{count} mitigation" if count == 1 else f"{count} mitigations"


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
    return f"{attack.target} {', '.join(parts)}{sensor}"


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
