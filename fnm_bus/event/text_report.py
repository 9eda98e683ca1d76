"""Text mode: the only mode of FastNetMon Community, and an obsolete one of Advanced.

The call's arguments are `IP direction pps action`, in the reverse order of JSON mode.
Standard input is a report for people with labelled lines; for `unban` it is empty. The
format is from Community's source (src/fastnetmon_logic.cpp, 1.1.3 to 1.2.9).
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from fnm_bus.errors import InvalidNotification
from fnm_bus.event.extra import ExtraFields, describe, shorten
from fnm_bus.event.identifiers import parse_address, parse_name
from fnm_bus.event.json_document import BLANK, BOM
from fnm_bus.event.optional_fields import field_readers
from fnm_bus.event.types import AttackDetails, HostEvent, Receipt, TextMode


class _Unit(NamedTuple):
    """The unit of a label's figures.

    Attributes:
        word: the unit in the report.
        suffix: suffix of the field's name.
        factor: from the report's figure to the field's.
    """

    word: str
    suffix: str = ""
    factor: int = 1


# By the last word of a label. A megabit of the report is 10^6 bits since Community
# 1.1.5 (2019), 2^20 before, and is truncated: the field is never too large.
_UNITS = {
    "power": _Unit("packets per second"),
    "pps": _Unit("packets per second"),
    "flows": _Unit("flows per second"),
    "traffic": _Unit("mbps", "_bits", 1_000_000),
}
ARGUMENTS = 4
"""Number of arguments of a call in text mode: IP, direction, pps, action."""

_MAX = 2**63 - 1
_REPORT = re.compile(rb"(?:IP|Attack type|Initial attack power): ")
# A label becomes a field's name: "Incoming syn tcp pps" is incoming_syn_tcp_pps. The
# possessive quantifiers keep the time linear in the report's size.
_LINE = re.compile(r"^([A-Z][a-z]++(?: [a-z]++){1,4}+): ([^\r\n]*+)", re.MULTILINE)
_FIGURE = re.compile(r"(-?\d++) ([a-z]++(?: per second)?+)")
_WORDS = frozenset({"attack_type", "attack_direction", "attack_protocol"})
_PACKET = re.compile(
    r"^(?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ )?\S++ > \S++ protocol: [^\r\n]*+",
    re.MULTILINE,
)
_DIRECTION = re.compile(r"[!-~][ -~]{0,63}")


def is_text_mode(document: bytes, arguments: Sequence[str]) -> bool:
    """Return whether a call is in text mode, by its content.

    A document that begins with a JSON object or list is JSON. Any other one, or an
    empty one, is text mode if the call has the arguments of text mode. (JSON mode has
    none, or its obsolete `action IP`.)
    """
    head = document.removeprefix(BOM).lstrip(BLANK)[:1]
    return head not in (b"{", b"[") and len(arguments) >= ARGUMENTS


def is_report(document: bytes) -> bool:
    """Return whether a document begins like a report of text mode."""
    return _REPORT.match(document.removeprefix(BOM).lstrip(BLANK)) is not None


def read_text_report(
    document: bytes, arguments: Sequence[str], receipt: Receipt, extra: ExtraFields
) -> HostEvent:
    """Return the event of a call in text mode; its scope is always host.

    The address is the argument, since Community's report has 0.0.0.0 for IPv6. The
    event keeps the whole report, and has the attack's words and figures as fields.
    Traffic in mbps becomes bits/s (`*_bits`), with a megabit of 10^6 bits. FastNetMon
    truncates it to whole megabits, and releases before 1.1.5 (2019) counted 2^20 bits,
    so the true figure may be larger, never smaller. A mismatch has no value in `extra`:
    the report, or the receipt's arguments, have it.

    A report that is not UTF-8 leaves `report` empty. It is in `extra` under the path ""
    of the whole document, each byte as the character of the same number (Latin-1).

    Raises:
        InvalidNotification: the address or the action is invalid; the field is
            `argument 1` or `argument 4`.
    """
    ip, direction, power, action = arguments[:ARGUMENTS]
    action = parse_name(action, "argument 4", "an action")
    ip = parse_address(ip, "argument 1")
    report, text = _decode_report(document, extra)
    kept_in = "text_mode.report" if report else "extra"
    return HostEvent(
        receipt=receipt,
        action=action,
        ip=ip,
        attack_details=_read_details(text, kept_in, extra),
        packet_dump=tuple(match[0] for match in _PACKET.finditer(text)),
        text_mode=TextMode(
            direction=_read_direction(direction, extra),
            power_pps=_read_power(power, extra),
            report=report,
        ),
        extra=extra.values,
    )


def _decode_report(document: bytes, extra: ExtraFields) -> tuple[str, str]:
    """Return the report for the event, and the text with the figures."""
    try:
        report = document.decode()
    except UnicodeDecodeError as error:
        latin = document.decode("latin-1")
        extra.add_unknown("", latin)
        actual = f"byte 0x{document[error.start]:02x} at byte {error.start}"
        extra.add_mismatch("", "UTF-8", actual)
        return "", latin
    return report, report


def _read_details(
    report: str, kept_in: str, extra: ExtraFields
) -> AttackDetails | None:
    fields: dict[str, Any] = {}
    for match in _LINE.finditer(report):
        label = match[1].lower().replace(" ", "_")
        unit = _UNITS.get(label.rpartition("_")[2])
        name = label + unit.suffix if unit else label
        if name in fields or name not in field_readers(AttackDetails):
            continue
        value = match[2].rstrip()
        if name in _WORDS and value.isascii() and value:
            fields[name] = value
        elif unit is not None:
            figure = _FIGURE.fullmatch(value)
            largest = _MAX // unit.factor
            if figure and figure[2] == unit.word and _fits(figure[1], largest):
                fields[name] = int(figure[1]) * unit.factor
            else:
                path, expected = (
                    f"/attack_details/{name}",
                    f"0 to {largest} {unit.word}",
                )
                extra.add_mismatch(path, expected, describe(value), kept_in)
    return msgspec.convert(fields, AttackDetails) if fields else None


def _read_direction(value: str, extra: ExtraFields) -> str:
    if _DIRECTION.fullmatch(value):
        return value
    path, kept_in = "/text_mode/direction", "receipt.arguments[1]"
    extra.add_mismatch(path, "a direction", describe(value), kept_in)
    return ""


def _read_power(value: str, extra: ExtraFields) -> int | None:
    if _fits(value, _MAX):
        return int(value)
    path, kept_in = "/text_mode/power_pps", "receipt.arguments[2]"
    extra.add_mismatch(path, f"packets/s, 0 to {_MAX}", describe(value), kept_in)
    return None


def _fits(digits: str, largest: int) -> bool:
    if not (digits.isascii() and digits.isdigit()):
        return False
    return len(digits) <= len(str(largest)) and int(digits) <= largest


def missing_arguments(arguments: Sequence[str]) -> InvalidNotification:
    """Return the error for a report without its arguments."""
    return InvalidNotification(
        "arguments",
        "IP, direction, pps and action, which text mode passes with its report",
        f"{len(arguments)}: {shorten(' '.join(arguments))!r}" if arguments else "none",
    )
