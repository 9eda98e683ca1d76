"""The JSON edge: bytes from FastNetMon become one JSON object, or a reason."""

import re
from typing import Any

import jiter

from fnm_bus.errors import InvalidNotification
from fnm_bus.event.extra import describe, shorten, step

MAX_DOCUMENT = 4 * 1024 * 1024
"""Largest size of a document, in bytes. The largest real ones are hostgroups: 50,000
networks take 1 MB; 100 packet samples take 50 kB."""
MAX_VALUES = 250_000
"""Largest number of values in a document: each takes up to 240 bytes of memory once it
is a Python object, whatever its size in the document."""

BOM = b"\xef\xbb\xbf"
BLANK = b" \t\r\n"
_SEARCHED = 1024 * 1024  # a fault's field is looked for in documents up to this size
_PATH_SHOWN = 120

_PLACE = re.compile(r"^(.*) at line (\d+) column (\d+)$", re.DOTALL)
# A string that never ends is one token, too: to try again behind each of its escaped
# quotes would take a time quadratic in its length.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[{}\[\],:]', re.DOTALL)
_WANTED = {
    "invalid unicode code point": "UTF-8",
    "recursion limit exceeded": "at most 200 levels",
    "number out of range": "an integer of at most 4300 digits",
    "invalid number": "a JSON number",
    "expected value": "a JSON value",
    "key must be a string": "a field's name in double quotes",
    "trailing comma": "nothing between the last comma and the bracket",
    "unexpected end of hex escape": "a whole pair of surrogate escapes",
    "control character (\\u0000-\\u001F) found while parsing a string": (
        "control characters escaped"
    ),
    "invalid escape": "a JSON escape",
}


def load(document: bytes) -> dict[str, Any]:
    r"""Read one JSON object.

    Takes any order of keys, any white space and line ends, a UTF-8 byte order mark,
    and `\/`. Integers stay exact; other numbers are `jiter.LosslessFloat`, which keeps
    their text. Time and memory are linear in the size of the document, which
    `MAX_DOCUMENT` bounds, and bounded by `MAX_VALUES`, by 200 levels (jiter) and by
    4300 digits (CPython).

    Raises:
        InvalidNotification: too large, too many values, empty, not UTF-8, not JSON (NaN
            and Infinity are not), truncated, more than one document, a key twice in
            one object, nested too deep, not an object.
    """
    if len(document) > MAX_DOCUMENT:
        raise InvalidNotification(
            "", f"at most {MAX_DOCUMENT} bytes", f"{len(document)} bytes"
        )
    data = document.removeprefix(BOM)
    _check_values(data)
    try:
        value = jiter.from_json(
            data,
            allow_inf_nan=False,
            catch_duplicate_keys=True,
            float_mode="lossless-float",
        )
    except ValueError as error:
        raise _fault(data, str(error)) from error
    if type(value) is not dict:
        raise InvalidNotification("", "a JSON object", describe(value))
    return value


def _check_values(data: bytes) -> None:
    """Refuse a document of too many values before any object is made of it.

    Each value but the first of its list or object follows a comma. Commas and brackets
    in strings count as well: no real document comes near the limit.
    """
    count = 1 + data.count(b",") + data.count(b"[") + data.count(b"{")
    if count > MAX_VALUES:
        got = f"up to {count} (commas and opening brackets)"
        raise InvalidNotification("", f"at most {MAX_VALUES} values", got)


def _fault(data: bytes, text: str) -> InvalidNotification:
    """Say in our words what jiter refused, and in which field."""
    if not data.strip(BLANK):
        return InvalidNotification("", "a JSON object", "nothing")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return InvalidNotification("", "UTF-8", "UTF-16 (by its byte order mark)")
    place = _PLACE.match(text)
    if place is None:
        return InvalidNotification("", "JSON", shorten(text))
    return _placed(data, place[1], int(place[2]), int(place[3]))


def _placed(data: bytes, what: str, line: int, column: int) -> InvalidNotification:
    where = f"line {line} column {column}"
    if what.startswith("EOF"):
        return InvalidNotification(
            _path(data), "a whole JSON object", f"its end at {where} ({what[4:]})"
        )
    if what.startswith("trailing characters"):
        got = f"more after it at {where}"
        return InvalidNotification("", "one JSON object and nothing else", got)
    path, got = "", "something else"
    if len(data) <= _SEARCHED:
        offset = _offset(data, line, column)
        path = _path(data[:offset])
        got = _snippet(data, offset)
    if what.startswith("Detected duplicate key"):
        return InvalidNotification(
            path, "each key once in an object", f"{shorten(what[9:])} at {where}"
        )
    wanted = _WANTED.get(what, f"JSON ({shorten(what)})")
    return InvalidNotification(path, wanted, f"{got} at {where}")


def _offset(data: bytes, line: int, column: int) -> int:
    """Return how many bytes come before the byte that jiter calls line, column."""
    start = 0
    for _ in range(line - 1):
        start = data.find(b"\n", start) + 1
    return max(start + column - 1, 0)


def _snippet(data: bytes, offset: int) -> str:
    return repr(data[offset : offset + 20])[1:]


def _path(data: bytes) -> str:
    """Return the JSON Pointer of the place where these bytes end, shortened.

    Names are taken as they are spelled: escapes in them stay escapes.
    """
    if len(data) > _SEARCHED:
        return ""
    names: list[str | int | None] = []
    token = b""
    for match in _TOKEN.finditer(data):
        last, token = token, match[0]
        match token:
            case b"{":
                names.append(None)
            case b"[":
                names.append(0)
            case b"}" | b"]":
                del names[-1:]
            case b":" if names:
                names[-1] = last[1:-1].decode("utf-8", "replace")
            case b"," if names:
                here = names[-1]
                names[-1] = here + 1 if isinstance(here, int) else None
    path = ""
    for name in names:
        path += "" if name is None else step("", name)
    return shorten(path, _PATH_SHOWN)
