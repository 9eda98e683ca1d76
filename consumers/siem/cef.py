r"""A summary as Common Event Format (ArcSight's CEF, version 0): one line.

A header of seven fields that `|` separates, then `name=value` pairs. A backslash
escapes itself, `|` in the header, and `=` in a value.
"""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from consumers.siem.effect import effect_of
from consumers.siem.summary import Summary, summarize
from fnm_bus import __version__
from fnm_bus.kafka.reader import ConsumedRecord
from fnm_bus.ops.terminal import visible

_DIRECTIONS: Final = {"incoming": "0", "outgoing": "1"}


def cef_line(record: ConsumedRecord) -> bytes:
    """Return a record as one line, with its end."""
    summary = summarize(record)
    name = " ".join(filter(None, (summary.kind, summary.action)))
    header = "|".join(
        visible(text).replace("\\", "\\\\").replace("|", "\\|")
        for text in (
            "fnm-bus",
            "fnm-bus",
            __version__,
            name.replace(" ", "."),
            name,
            str(effect_of(summary.action).severity),
        )
    )
    extension = " ".join(
        f"{key}={_escape(value)}" for key, value in _pairs(summary) if value
    )
    return f"CEF:0|{header}|{extension}\n".encode()


def _pairs(summary: Summary) -> Iterator[tuple[str, str]]:
    yield "rt", str(int(summary.at.timestamp() * 1000))
    yield "externalId", summary.record_id
    yield "cat", summary.kind
    yield "act", summary.action
    yield "dvchost", summary.sensor
    yield from _address(summary)
    yield "deviceDirection", _DIRECTIONS.get(summary.direction, "")
    yield "proto", summary.protocol.upper()
    yield "suser", summary.actor
    yield "outcome", effect_of(summary.action).outcome
    yield "reason", summary.code
    yield from _custom("cs1", "hostgroup", summary.hostgroup)
    yield from _custom("cs2", "attack", summary.attack)
    yield from _custom("cs3", "mitigation", summary.mitigation)
    yield from _custom("cs4", "rule", summary.rule)
    yield from _custom("cs5", "trace", summary.trace)
    yield from _custom("cn1", "packets per second", _number(summary.pps))
    yield from _custom("cn2", "bits per second", _number(summary.bits))
    yield "msg", summary.text


def _address(summary: Summary) -> Iterator[tuple[str, str]]:
    """Yield the address; `src` and `dst` of version 0 are IPv4 only."""
    if not summary.address:
        return
    is_source = summary.direction == "outgoing"
    if ip_address(summary.address).version == 4:  # noqa: PLR2004 - IPv4
        yield "src" if is_source else "dst", summary.address
    elif is_source:
        yield from _custom("c6a2", "Source IPv6 Address", summary.address)
    else:
        yield from _custom("c6a3", "Destination IPv6 Address", summary.address)


def _custom(key: str, label: str, value: str) -> Iterator[tuple[str, str]]:
    if value:
        yield f"{key}Label", label
        yield key, value


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _escape(text: str) -> str:
    return visible(text).replace("\\", "\\\\").replace("=", "\\=")
