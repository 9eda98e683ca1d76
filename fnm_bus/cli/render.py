"""Events as columns on one line."""

from collections.abc import Iterable

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
from fnm_bus.kafka.addressing import subject_of
from fnm_bus.ops.terminal import visible

_COLORS = {
    "ban": "red",
    "partial_block": "yellow",
    "unban": "green",
    "partial_unblock": "green",
    "attack_status": "cyan",
}
_WIDTHS = (12, 10, 15, 24, 9, 9, 8)
_UNIT_STEP = 1000.0

HEADING = ("TIME (UTC)", "TOPIC", "ACTION", "TARGET", "PACKETS/S", "BITS/S", "ATTACK")


def heading() -> str:
    """Return the line above the events."""
    return _columns((*HEADING, "SENSOR"))


def color_of(event: AnyRecord) -> tuple[str, str]:
    """Return the coloured word of an event's line, and its colour."""
    action = event.action if isinstance(event, Event) else ""
    return action, _COLORS.get(action, "")


def event_line(topic: str, event: AnyRecord) -> str:
    """Return one event as one line of columns."""
    return _columns(
        _cells(topic.removeprefix("fastnetmon.").removesuffix(".v1"), event)
    )


def _cells(topic: str, event: AnyRecord) -> tuple[str, ...]:
    match event:
        case DeadLetter():
            at, action, target = event.failed_at, "DEAD LETTER", event.entry or ""
            further: tuple[str, ...] = (event.reason,)
            target = target[-17:]
        case Reason():
            at, target = event.received_at, event.target
            action = "ended" if event.closed else "reason"
            further = (f"{event.action} by {event.sensor or event.by}: {event.rule}",)
        case Mitigation():
            at, action, target = event.changed_at, event.state, event.key or ""
            further = (event.cause,)
        case Command():
            at, action, target = event.requested_at, event.verb, event.key or ""
            further = (f"{event.by}: {event.comment}",)
        case Audit():
            at, action, target = event.at, event.action, event.key or ""
            further = (f"{event.by}: {event.text}",)
        case _:
            at, action = event.receipt.received_at, event.action
            target = subject_of(event)
            details = event.attack_details
            uuid = (details and details.attack_uuid) or ""
            packets, bits = _size(details)
            further = (
                _with_unit(packets),
                _with_unit(bits),
                uuid[:8],
                event.receipt.sensor,
            )
    return f"{at:%H:%M:%S.%f}"[:-3], topic, action, target, *further


def _columns(cells: tuple[str, ...]) -> str:
    texts = [visible(cell) for cell in cells]
    padded = [text.ljust(width) for text, width in zip(texts, _WIDTHS, strict=False)]
    return "  ".join([*padded, *texts[len(_WIDTHS) :]]).rstrip()


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
    return _largest(packets), _largest(bits)


def _largest(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _with_unit(number: int | None) -> str:
    if number is None:
        return "-"
    scaled = float(number)
    for unit in ("", "k", "M", "G", "T"):
        if scaled < _UNIT_STEP:
            return f"{scaled:.0f}" if not unit else f"{scaled:.1f} {unit}"
        scaled /= _UNIT_STEP
    return f"{scaled:.1f} P"
