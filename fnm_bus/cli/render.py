"""Events as lines that a person reads, and as JSON that a program reads."""

import base64
from typing import Any

import msgspec

from fnm_bus.event import (
    AnyRecord,
    AttackDetails,
    Audit,
    Command,
    DeadLetter,
    Event,
    Mitigation,
    Reason,
)
from fnm_bus.kafka.route import subject_of
from fnm_bus.ops.terminal import visible

_COLORS = {
    "ban": "red",
    "partial_block": "yellow",
    "unban": "green",
    "partial_unblock": "green",
    "attack_status": "cyan",
}
_WIDTHS = (12, 10, 15, 24, 9, 9, 8)
_COUNTERS = 1000.0

HEADING = ("TIME (UTC)", "TOPIC", "ACTION", "TARGET", "PACKETS/S", "BITS/S", "ATTACK")


def heading() -> str:
    """Return the line above the events."""
    return _columns((*HEADING, "SENSOR"))


def color_of(event: AnyRecord) -> tuple[str, str]:
    """Return the word of an event's line that is coloured, and its colour."""
    action = event.action if isinstance(event, Event) else ""
    return action, _COLORS.get(action, "")


def line(topic: str, event: AnyRecord) -> str:
    """Return one event as one line of columns."""
    if isinstance(event, DeadLetter):
        at, action, target = event.failed_at, "DEAD LETTER", event.entry or ""
        return _columns(
            (
                f"{at:%H:%M:%S.%f}"[:-3],
                _short(topic),
                action,
                target[-17:],
                event.reason,
            )
        )
    if isinstance(event, Reason | Mitigation | Command | Audit):
        return _columns(_decided(topic, event))
    pps, bits = _size(event.attack_details)
    uuid = (event.attack_details and event.attack_details.attack_uuid) or ""
    cells = (
        f"{event.receipt.received_at:%H:%M:%S.%f}"[:-3],
        _short(topic),
        event.action,
        subject_of(event),
        _human(pps),
        _human(bits),
        uuid[:8],
        event.receipt.sensor,
    )
    return _columns(cells)


def _decided(
    topic: str, record: Reason | Mitigation | Command | Audit
) -> tuple[str, ...]:
    match record:
        case Reason():
            at, what = record.received_at, "closed" if record.closed else "reason"
            text = f"{record.action} by {record.sensor or record.by}: {record.rule}"
            return f"{at:%H:%M:%S.%f}"[:-3], _short(topic), what, record.target, text
        case Mitigation():
            at, what, text = record.changed_at, record.state, record.cause
        case Command():
            at, what, text = (
                record.requested_at,
                record.verb,
                f"{record.by}: {record.comment}",
            )
        case Audit():
            at, what, text = record.at, record.action, f"{record.by}: {record.text}"
    return f"{at:%H:%M:%S.%f}"[:-3], _short(topic), what, record.key or "", text


def value(event: AnyRecord) -> dict[str, Any]:
    """Return an event as JSON values: times by RFC 3339, bytes in Base64."""
    found: dict[str, Any] = msgspec.to_builtins(event)
    return found


def headers(pairs: tuple[tuple[str, bytes], ...]) -> dict[str, str]:
    """Return headers as text; what is no UTF-8 in Base64."""
    return {name: text(it) or "" for name, it in pairs}


def text(raw: bytes | None) -> str | None:
    """Return bytes as text; what is no UTF-8 in Base64, marked as such."""
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(raw).decode()


def _columns(cells: tuple[str, ...]) -> str:
    shown = [visible(cell) for cell in cells]
    padded = [it.ljust(width) for it, width in zip(shown, _WIDTHS, strict=False)]
    return "  ".join([*padded, *shown[len(_WIDTHS) :]]).rstrip()


def _short(topic: str) -> str:
    return topic.removeprefix("fastnetmon.").removesuffix(".v1")


def _size(details: AttackDetails | None) -> tuple[int | None, int | None]:
    """Return packets/s and bits/s of the direction with more of them."""
    if details is None:
        return None, None
    bits = [
        exact if exact is not None else (None if octets is None else octets * 8)
        for exact, octets in (
            (details.total_incoming_traffic_bits, details.total_incoming_traffic),
            (details.total_outgoing_traffic_bits, details.total_outgoing_traffic),
        )
    ]
    packets = (details.total_incoming_pps, details.total_outgoing_pps)
    return _most(packets), _most(bits)


def _most(values: Any) -> int | None:
    return max((it for it in values if it is not None), default=None)


def _human(number: int | None) -> str:
    if number is None:
        return "-"
    scaled = float(number)
    for unit in ("", "k", "M", "G", "T"):
        if scaled < _COUNTERS:
            return f"{scaled:.0f}" if not unit else f"{scaled:.1f} {unit}"
        scaled /= _COUNTERS
    return f"{scaled:.1f} P"
