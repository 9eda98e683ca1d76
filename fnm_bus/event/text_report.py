"""Text mode: FastNetMon Community's only way, and an obsolete one of Advanced.

The call's arguments are `IP direction pps action`, the reverse of JSON mode's; standard
input is a report for people with labelled lines, and nothing for `unban`. Facts of
the format are from Community's source (src/fastnetmon_logic.cpp, 1.1.3 to 1.2.9).
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from fnm_bus.errors import InvalidNotification
from fnm_bus.event.extra import ExtraFields, describe, shorten
from fnm_bus.event.identifiers import address, word
from fnm_bus.event.json_document import BLANK, BOM
from fnm_bus.event.optional_fields import readers
from fnm_bus.event.types import AttackDetails, HostEvent, Receipt, TextMode


class _Unit(NamedTuple):
    """What the figures of a label are in, and where they go.

    Attributes:
        word: as the report prints it.
        end: what the field's name has behind the label's words.
        factor: from the report's figure to the field's.
    """

    word: str
    end: str = ""
    factor: int = 1


# By the last word of a label. The report's megabits are 10^6 bits since Community 1.1.5
# (2019), 2^20 before, and cut to a whole number: the field is never too large.
_UNITS = {
    "power": _Unit("packets per second"),
    "pps": _Unit("packets per second"),
    "flows": _Unit("flows per second"),
    "traffic": _Unit("mbps", "_bits", 1_000_000),
}
ARGUMENTS = 4
"""How many arguments a call in text mode has: IP, direction, pps, action."""

_MOST = 2**63 - 1
_REPORT = re.compile(rb"(?:IP|Attack type|Initial attack power): ")
# A label's words become a field's name: "Incoming syn tcp pps" is incoming_syn_tcp_pps.
# Possessive, so that the time is linear in the report whatever it holds.
_LINE = re.compile(r"^([A-Z][a-z]++(?: [a-z]++){1,4}+): ([^\r\n]*+)", re.MULTILINE)
_FIGURE = re.compile(r"(-?\d++) ([a-z]++(?: per second)?+)")
_WORDS = frozenset({"attack_type", "attack_direction", "attack_protocol"})
_PACKET = re.compile(
    r"^(?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ )?\S++ > \S++ protocol: [^\r\n]*+",
    re.MULTILINE,
)
_DIRECTION = re.compile(r"[!-~][ -~]{0,63}")


def is_text(document: bytes, arguments: Sequence[str]) -> bool:
    """Tell text mode from JSON, by content.

    A document that opens a JSON object or list is JSON, whatever the arguments; one
    that does not, or is empty, is text mode when there are as many arguments as text
    mode has. (JSON mode passes none, or its obsolete `action IP`.)
    """
    head = document.removeprefix(BOM).lstrip(BLANK)[:1]
    return head not in (b"{", b"[") and len(arguments) >= ARGUMENTS


def is_report(document: bytes) -> bool:
    """Tell whether a document begins like a report of text mode."""
    return _REPORT.match(document.removeprefix(BOM).lstrip(BLANK)) is not None


def read(
    document: bytes, arguments: Sequence[str], receipt: Receipt, aside: ExtraFields
) -> HostEvent:
    """Return the event of a call in text mode; any action, scope always host.

    The address is the argument's: Community prints 0.0.0.0 in the report for IPv6. The
    report is kept as it came, so what is not taken from it is not lost. Taken are the
    words of the attack and its figures; traffic in mbps becomes bits/s (`*_bits`), with
    a megabit of 10^6 bits. FastNetMon cuts these to whole megabits, and releases before
    1.1.5 (2019) counted 2^20 bits, so the true figure may be larger, never smaller.
    What does not fit is a mismatch without an entry in `extra`: the report, or the
    receipt's arguments, hold it.

    A report that is not UTF-8 leaves `report` empty and is in `extra` under the whole
    document's path "", each byte as the character of the same number (Latin-1).

    Raises:
        InvalidNotification: the address or the action is not fit; the field is
            `argument 1` or `argument 4`.
    """
    ip, direction, power, action = arguments[:ARGUMENTS]
    action = word(action, "argument 4", "an action")
    ip = address(ip, "argument 1")
    report, taken = _report(document, aside)
    kept = "text_mode.report" if report else "extra"
    return HostEvent(
        receipt=receipt,
        action=action,
        ip=ip,
        attack_details=_details(taken, kept, aside),
        packet_dump=tuple(match[0] for match in _PACKET.finditer(taken)),
        text_mode=TextMode(
            direction=_direction(direction, aside),
            power_pps=_power(power, aside),
            report=report,
        ),
        extra=aside.extra,
    )


def _report(document: bytes, aside: ExtraFields) -> tuple[str, str]:
    """Return the report to keep, and the text to take figures from."""
    try:
        report = document.decode()
    except UnicodeDecodeError as error:
        latin = document.decode("latin-1")
        aside.unknown("", latin)
        got = f"byte 0x{document[error.start]:02x} at byte {error.start}"
        aside.note("", "UTF-8", got)
        return "", latin
    return report, report


def _details(report: str, kept: str, aside: ExtraFields) -> AttackDetails | None:
    found: dict[str, Any] = {}
    for match in _LINE.finditer(report):
        label = match[1].lower().replace(" ", "_")
        unit = _UNITS.get(label.rpartition("_")[2])
        name = label + unit.end if unit else label
        if name in found or name not in readers(AttackDetails):
            continue
        value = match[2].rstrip()
        if name in _WORDS and value.isascii() and value:
            found[name] = value
        elif unit is not None:
            figure = _FIGURE.fullmatch(value)
            most = _MOST // unit.factor
            if figure and figure[2] == unit.word and _fits(figure[1], most):
                found[name] = int(figure[1]) * unit.factor
            else:
                wanted = f"0 to {most} {unit.word}"
                aside.note(f"/attack_details/{name}", wanted, describe(value), kept)
    return msgspec.convert(found, AttackDetails) if found else None


def _direction(value: str, aside: ExtraFields) -> str:
    if _DIRECTION.fullmatch(value):
        return value
    kept = "receipt.arguments[1]"
    aside.note("/text_mode/direction", "a direction", describe(value), kept)
    return ""


def _power(value: str, aside: ExtraFields) -> int | None:
    if _fits(value, _MOST):
        return int(value)
    wanted, kept = f"packets/s, 0 to {_MOST}", "receipt.arguments[2]"
    aside.note("/text_mode/power_pps", wanted, describe(value), kept)
    return None


def _fits(digits: str, most: int) -> bool:
    if not (digits.isascii() and digits.isdigit()):
        return False
    return len(digits) <= len(str(most)) and int(digits) <= most


def no_arguments(arguments: Sequence[str]) -> InvalidNotification:
    """Return the reason to refuse a report that came without its arguments."""
    return InvalidNotification(
        "arguments",
        "IP, direction, pps and action, which text mode passes with its report",
        f"{len(arguments)}: {shorten(' '.join(arguments))!r}" if arguments else "none",
    )
