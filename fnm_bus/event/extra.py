"""The values of a document that no field of an event takes.

FastNetMon's documents change from version to version. Unknown fields, and values that
do not fit their field, travel with the event in `extra`: JSON text by JSON Pointer (RFC
6901) into the document. The second kind is also reported as a mismatch.
"""

from typing import Any, NamedTuple

import msgspec
from jiter import LosslessFloat

from fnm_bus.errors import InvalidNotification

MAX_SHOWN = 60
MAX_EXTRA_BYTES = 32 * 1024 * 1024
"""Memory that the extra values of one document may take, in bytes, approximately."""

_OVERHEAD = 200  # of a Python string in a dict, or of a mismatch


class FieldMismatch(NamedTuple):
    """A secondary value of the wrong type or range; the event is published anyway.

    Attributes:
        path: JSON Pointer into the document. It contains names of the document if they
            are a map's keys, so a log has to escape it.
        expected: the type or range of a correct value.
        actual: the value, shortened and printable.
        kept_in: field of the event that has the original value, such as `extra` (under
            *path*) or `text_mode.report`.
    """

    path: str
    expected: str
    actual: str
    kept_in: str = "extra"

    def __str__(self) -> str:
        """Return the mismatch as one line; *path* is escaped."""
        path = shorten(self.path, 200)
        return (
            f"mismatch: {path}: wanted {self.expected}, got {self.actual};"
            f" kept in {self.kept_in}"
        )


class ExtraFields:
    """Collects the extra values and mismatches of one document.

    Attributes:
        values: JSON text by JSON Pointer.
        mismatches: values that do not fit their field.
    """

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.mismatches: list[FieldMismatch] = []
        self._bytes_left = MAX_EXTRA_BYTES

    def add_unknown(self, path: str, value: Any) -> None:
        """Add a field that the schemas do not have."""
        text = to_json_text(value)
        self._use(len(path) + len(text))
        self.values[path] = text

    def add_misfit(self, path: str, expected: str, value: Any) -> None:
        """Add a value that does not fit its field, and its mismatch."""
        self.add_unknown(path, value)
        self.add_mismatch(path, expected, describe(value))

    def add_mismatch(
        self, path: str, expected: str, actual: str, kept_in: str = "extra"
    ) -> None:
        """Add the mismatch of a value that the event's field *kept_in* has."""
        self._use(len(expected) + len(actual) + len(kept_in))
        self.mismatches.append(FieldMismatch(path, expected, actual, kept_in))

    def _use(self, size: int) -> None:
        # A path repeats the names of all parents: a few long names with many small
        # values below them would take terabytes.
        self._bytes_left -= size + _OVERHEAD
        if self._bytes_left < 0:
            expected = f"at most {MAX_EXTRA_BYTES} bytes of unknown or misfit values"
            raise InvalidNotification("", expected, "more")


def child_pointer(path: str, name: str | int) -> str:
    """Return the JSON Pointer of a member: a field's name or a list's index."""
    if isinstance(name, int):
        return f"{path}/{name}"
    return f"{path}/{name.replace('~', '~0').replace('/', '~1')}"


def to_json_text(value: Any) -> str:
    """Return compact JSON text of a value that jiter has read.

    Numbers keep their digits; white space and the form of escapes in strings may
    change. (jiter reads -0 as 0.)
    """
    try:
        return msgspec.json.encode(value, enc_hook=_raw_digits).decode()
    except OverflowError:
        # msgspec writes no integer beyond 64 bits. The depth is bounded: jiter refuses
        # more than 200 levels.
        return _join_members(value)


def _raw_digits(value: LosslessFloat) -> msgspec.Raw:
    return msgspec.Raw(bytes(value))


def _join_members(value: Any) -> str:
    if type(value) is int:
        return str(value)
    if type(value) is dict:
        members = (
            f"{to_json_text(name)}:{to_json_text(member)}"
            for name, member in value.items()
        )
        return "{" + ",".join(members) + "}"
    return "[" + ",".join(map(to_json_text, value)) + "]"


def describe(value: Any) -> str:
    """Return a short, printable description of a value, on one line."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return f"the text {shorten(repr(value[: MAX_SHOWN + 1]))}"
        case dict():
            return f"an object of {len(value)}"
        case list():
            return f"a list of {len(value)}"
        case _:
            return f"the number {shorten(str(value))}"


def shorten(text: str, size: int = MAX_SHOWN) -> str:
    """Return the text's first `size` characters, all printable.

    A longer text ends in an ellipsis. Unprintable characters are escaped, so the result
    may be a few characters longer than `size`.
    """
    head = text if len(text) <= size else text[: size - 1] + "…"
    if head.isprintable():
        return head
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in head)
