"""Title and text of a notice."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from consumers.mitigation.measure import NOTIFY
from consumers.mitigation.states import LEASE
from consumers.notifier.document import Notice
from consumers.storms.update import CONTINUES, ENDED, PAUSED, RESUMED, SILENT, STARTED
from fnm_bus.event import ReasonSummary

_CAUSE: Final = 200
_NAMES: Final = 10
_VERBS: Final = {STARTED: "started", ENDED: "ended"}
_ALARMS: Final[Mapping[str, str]] = {
    LEASE: "LEASE EXPIRED: not renewed, and no unban was received. Check that the"
    " detector is alive. The attack may continue.",
    SILENT: "LEASE EXPIRED without a record from the mitigator: check that it and Kafka"
    " are alive. Enforcers have ended the expired mitigations. The attack"
    " may continue.",
}


def title_of(notice: Notice) -> str:
    """Return one line: event and group."""
    match notice.status:
        case "resumed":
            return "Resumed: " + (
                "active mitigations are in force again"
                if notice.live
                else "no active mitigations"
            )
        case _ if _is_pause(notice):
            return "Paused: all mitigations are withdrawn until somebody resumes"
        case "continues":
            title = f"Continues: {_news(notice)}; {_counted(notice)}"
        case _:
            title = _counted(notice)
    masked = ", paused: nothing is in force" if notice.paused and notice.live else ""
    name = "no hostgroup or customer"
    if notice.group.name is not None:
        name = f"{notice.group.kind} {_printable(notice.group.name)}"
    return f"{title}{masked} ({name})"


def text_of(notice: Notice) -> str:
    """Return the whole notice for people, a few lines."""
    return "\n".join(_printable(line) for line in _lines(notice))


def _lines(notice: Notice) -> Iterator[str]:
    live = _list(notice.live) or "none"
    if notice.status == RESUMED:
        yield f"In force again: {live}."
    elif _is_pause(notice):
        yield f"Withdrawn by all enforcers: {live}."
        yield "Leases continue; nothing is in force until somebody resumes."
    else:
        yield from _storm_lines(notice)
    if notice.status != STARTED:
        for cause in notice.causes:
            short = cause.cause[:_CAUSE] + "…" * (len(cause.cause) > _CAUSE)
            times = f" ({cause.count} times)" if cause.count > 1 else ""
            yield f"Cause: {short}{times}"
    if notice.largest:
        yield f"Largest attacks: {'; '.join(map(_attack, notice.largest))}"
    for name, values, more in (
        ("Prefixes", notice.prefixes, notice.more_prefixes),
        ("Rules", notice.rules[:_NAMES], len(notice.rules) - _NAMES),
        ("Sensors", notice.sensors[:_NAMES], len(notice.sensors) - _NAMES),
    ):
        if values:
            rest = f" and {more} more" if more > 0 else ""
            yield f"{name}: {', '.join(values)}{rest}"
    yield _times(notice)


def _storm_lines(notice: Notice) -> Iterator[str]:
    marks = {
        "waiting for approval": notice.proposed,
        "with a change waiting for approval": notice.pending,
        "dry run": notice.dry_run,
    }
    marked = "".join(f"; {count} {name}" for name, count in marks.items() if count)
    if notice.status == CONTINUES:
        yield f"Since the last notice: {_news(notice)}."
    if notice.status in _VERBS:
        kinds = {kind: n for kind, n in notice.kinds.items() if kind != NOTIFY}
        suffix = f": {_list(kinds)}" if kinds else ""
        yield f"{_counted(notice)}{suffix}{marked}."
    else:
        yield f"Of {notice.total}: {_counted(notice)}{marked}."
    if notice.notify_only:
        yield "Nothing is blocked for attacks whose rule only informs."
    if notice.ended_because:
        yield f"Ended because: {_list(notice.ended_because)}."
    if notice.paused and notice.live:
        yield "Paused: nothing is in force until somebody resumes."
    yield from (_ALARMS[code] for code in notice.ended_because if code in _ALARMS)


def _counted(notice: Notice) -> str:
    """Return the numbers of mitigations and of attacks without one."""
    total, notify_only = notice.active, notice.notify_only_active
    if notice.status in _VERBS:
        total, notify_only = notice.total, notice.notify_only
    verb = _VERBS.get(notice.status, "active")
    blocking, parts = total - notify_only, []
    if blocking or not notify_only:
        parts.append(f"{_plural(blocking, 'mitigation')} {verb}")
    if notify_only:
        parts.append(f"{_plural(notify_only, 'attack')} {verb}, nothing blocked")
    return "; ".join(parts)


def _news(notice: Notice) -> str:
    counts = (notice.started, notice.ended, notice.changed)
    return _list(dict(zip(("started", "ended", "changed"), counts, strict=True)))


def _times(notice: Notice) -> str:
    since = f"{notice.since:%Y-%m-%d %H:%M:%S} UTC"
    if notice.status == ENDED:
        return f"From {since} to {_utc(notice.ended_at)}: {_duration(notice.seconds)}."
    if _is_pause(notice) or notice.until is None:
        return f"Since {since}."
    return f"Since {since}; until {_utc(notice.until)} unless renewed."


def _is_pause(notice: Notice) -> bool:
    return notice.status in (PAUSED, RESUMED)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _attack(attack: ReasonSummary) -> str:
    sizes = ((attack.bits, "bit/s"), (attack.pps, "pps"))
    values = [_scaled(value, unit) for value, unit in sizes if value is not None]
    sensor = f" ({attack.sensor})" if attack.sensor else ""
    direction = f"{attack.direction} " if attack.direction else ""
    return f"{attack.target} {direction}{', '.join(values)}{sensor}"


def _scaled(value: float, unit: str) -> str:
    for prefix in ("", "k", "M", "G"):
        if value < 999.5:  # noqa: PLR2004 - .3g would write 1e+03
            return f"{value:.3g} {prefix}{unit}"
        value /= 1000
    return f"{value:.3g} T{unit}"


def _duration(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _utc(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC" if time else "now"


def _printable(line: str) -> str:
    """Return a line without control characters, which names from outside may have."""
    return "".join(char if char.isprintable() else " " for char in line)
