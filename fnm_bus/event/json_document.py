"""The JSON decoder: FastNetMon's bytes become one JSON object, or an error."""

import re
from typing import Any

import jiter

from fnm_bus.errors import InvalidNotification
from fnm_bus.event.extra import child_pointer, describe, shorten

MAX_DOCUMENT = 4 * 1024 * 1024
"""Largest size of a document in bytes. Large real documents are hostgroups of 50,000
networks with 1 MB; 100 packet samples take 50 kB."""
MAX_VALUES = 250_000
"""Largest number of values in a document: each becomes a Python object of up to 240
bytes."""

BOM = b"\xef\xbb\xbf"
BLANK = b" \t\r\n"
_MAX_SEARCHED = 1024 * 1024  # the field of a fault is only searched in these
_MAX_PATH = 120

_POSITION = re.compile(r"^(.*) at line (\d+) column (\d+)$", re.DOTALL)
# An unterminated string is one token, too: a new attempt after each escaped quote would
# take quadratic time.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[{}\[\],:]', re.DOTALL)
_EXPECTED = {
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
    r"""Decode one JSON object.

    Accepts any order of keys, any white space and line ends, a UTF-8 byte order mark,
    and `\/`. Integers stay exact; other numbers are `jiter.LosslessFloat`, which keeps
    their text. Time and memory are linear in the size of the document. Its limits are
    `MAX_DOCUMENT`, `MAX_VALUES`, 200 levels (jiter) and 4300 digits (CPython).

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
        raise _translate_error(data, str(error)) from error
    if type(value) is not dict:
        raise InvalidNotification("", "a JSON object", describe(value))
    return value


def _check_values(data: bytes) -> None:
    """Refuse a document with too many values before it is decoded.

    Each value except the first of its list or object follows a comma. Commas and
    brackets in strings count as well: real documents are far below the limit.
    """
    if len(data) < MAX_VALUES:  # nearly all documents: fewer bytes than values
        return
    count = 1 + data.count(b",") + data.count(b"[") + data.count(b"{")
    if count > MAX_VALUES:
        actual = f"up to {count} (commas and opening brackets)"
        raise InvalidNotification("", f"at most {MAX_VALUES} values", actual)


def _translate_error(data: bytes, text: str) -> InvalidNotification:
    """Return jiter's error with the field and the expected value."""
    if not data.strip(BLANK):
        return InvalidNotification("", "a JSON object", "nothing")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return InvalidNotification("", "UTF-8", "UTF-16 (by its byte order mark)")
    match = _POSITION.match(text)
    if match is None:
        return InvalidNotification("", "JSON", shorten(text))
    return _locate_error(data, match[1], int(match[2]), int(match[3]))


def _locate_error(
    data: bytes, error: str, line: int, column: int
) -> InvalidNotification:
    position = f"line {line} column {column}"
    if error.startswith("EOF"):
        return InvalidNotification(
            _path(data), "a whole JSON object", f"its end at {position} ({error[4:]})"
        )
    if error.startswith("trailing characters"):
        actual = f"more after it at {position}"
        return InvalidNotification("", "one JSON object and nothing else", actual)
    path, actual = "", "something else"
    if len(data) <= _MAX_SEARCHED:
        offset = _offset(data, line, column)
        path = _path(data[:offset])
        actual = repr(data[offset : offset + 20])[1:]
    if error.startswith("Detected duplicate key"):
        return InvalidNotification(
            path, "each key once in an object", f"{shorten(error[9:])} at {position}"
        )
    expected = _EXPECTED.get(error, f"JSON ({shorten(error)})")
    return InvalidNotification(path, expected, f"{actual} at {position}")


def _offset(data: bytes, line: int, column: int) -> int:
    """Return the offset of the byte at jiter's line and column."""
    start = 0
    for _ in range(line - 1):
        start = data.find(b"\n", start) + 1
    return max(start + column - 1, 0)


def _path(data: bytes) -> str:
    """Return the JSON Pointer of the field in which these bytes end, shortened.

    Escapes in names stay escapes.
    """
    if len(data) > _MAX_SEARCHED:
        return ""
    names: list[str | int | None] = []
    token = b""
    for match in _TOKEN.finditer(data):
        previous, token = token, match[0]
        match token:
            case b"{":
                names.append(None)
            case b"[":
                names.append(0)
            case b"}" | b"]":
                del names[-1:]
            case b":" if names:
                names[-1] = previous[1:-1].decode("utf-8", "replace")
            case b"," if names:
                index = names[-1]
                names[-1] = index + 1 if isinstance(index, int) else None
    path = ""
    for name in names:
        path += "" if name is None else child_pointer("", name)
    return shorten(path, _MAX_PATH)
