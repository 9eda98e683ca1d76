"""Mitigations as lines for a terminal."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from fnm_bus.event import Mitigation
from fnm_bus.ops.terminal import visible


def table(records: Iterable[Mitigation]) -> Iterator[str]:
    """Yield a line for the columns' names, and one for each mitigation."""
    yield _join_columns("STATE", "LEFT", "REASONS", "MITIGATION", "CAUSE")
    for record in records:
        count = str(_count_reasons(record))
        cells = (
            _state_text(record),
            _time_left_text(record),
            count,
            record.key,
            record.cause,
        )
        yield _join_columns(*cells)


def details(record: Mitigation, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each field that is set, and one for each reason."""
    for name, value in values.items():
        text = _value_text(value)
        if name != "reasons" and text:
            yield f"{name:<16} {text}"
    for number, reason in enumerate(record.reasons, start=1):
        source = f"sensor {reason.sensor}" if reason.sensor else f"by {reason.by}"
        size = f", {reason.pps} packets/s" if reason.pps is not None else ""
        size += f", {reason.bits} bit/s" if reason.bits is not None else ""
        dry = ", dry run" if reason.dry_run else ""
        yield (
            f"reason {number:<9} {reason.action} of {reason.target}, {source}, rule"
            f" {reason.rule or '-'}, attack {reason.attack or '-'}"
            f" {reason.direction}{size}{dry}"
        )
    further = _count_reasons(record) - len(record.reasons)
    if further > 0:
        yield f"… and {further} further reasons"


def _count_reasons(record: Mitigation) -> int:
    return record.live_reasons + record.pending_reasons + record.dry_reasons


def _state_text(record: Mitigation) -> str:
    return f"{record.state} (dry)" if record.dry_run else record.state


def _value_text(value: Any) -> str:
    """Return a field of a record for people; "" for an unset field."""
    if isinstance(value, list | tuple):
        return ", ".join(_value_text(element) for element in value)
    if isinstance(value, dict):
        parts = ((name, _value_text(element)) for name, element in value.items())
        return " ".join(f"{name}={text}" for name, text in parts if text)
    if value is None or value is False or str(value).startswith("1970-01-01"):
        return ""
    return "yes" if value is True else str(value)


def _time_left_text(record: Mitigation) -> str:
    seconds = (record.expires_at - datetime.now(UTC)).total_seconds()
    return f"{seconds:.0f} s" if seconds > 0 else "-"


def _join_columns(*cells: str) -> str:
    widths = (16, 8, 7, 34)
    texts = [visible(cell) for cell in cells]
    padded = (f"{text:<{width}}" for text, width in zip(texts, widths, strict=False))
    return "  ".join([*padded, texts[-1]])
