"""What does not fit an event's fields, set aside so that nothing is lost.

FastNetMon's documents change from version to version. A field the schemas do not
know, and a value that does not fit its field, travel with the event in `extra`: JSON
text by JSON Pointer (RFC 6901) into the document. The second kind is also a drift.
"""

from typing import Any, NamedTuple

import msgspec
from jiter import LosslessFloat

from fnm_bus.errors import InvalidNotification

SHOWN = 60
MAX_ASIDE = 32 * 1024 * 1024
"""How much one document may set aside, in bytes of memory, roughly."""

_OVERHEAD = 200  # of a Python string in a dict, or of a drift


class FieldMismatch(NamedTuple):
    """A secondary value of the wrong type or range; it never costs an event.

    Attributes:
        path: where, as a JSON Pointer into the document. It holds the document's own
            names when they are a map's keys, so a log must escape it.
        wanted: what would have been right, in words.
        got: what came, shortened; printable.
        kept: field of the event that holds what was sent, such as `extra` (there under
            *path*) or `text_mode.report`.
    """

    path: str
    wanted: str
    got: str
    kept: str = "extra"

    def __str__(self) -> str:
        """Return the mismatch as one line; *path* is escaped."""
        path = shorten(self.path, 200)
        return (
            f"mismatch: {path}: wanted {self.wanted}, got {self.got};"
            f" kept in {self.kept}"
        )


class ExtraFields:
    """Collects what is set aside while one document is read.

    Attributes:
        extra: JSON text by JSON Pointer.
        drift: what did not fit; a drifted value's text is in `extra` unless its `kept`
            names another field of the event.
    """

    def __init__(self) -> None:
        self.extra: dict[str, str] = {}
        self.drift: list[FieldMismatch] = []
        self._room = MAX_ASIDE

    def unknown(self, path: str, value: Any) -> None:
        """Keep a field that the schemas do not know; this is no drift."""
        text = json_text(value)
        self._use(len(path) + len(text))
        self.extra[path] = text

    def drifted(self, path: str, wanted: str, value: Any) -> None:
        """Keep a value that does not fit its field, and note the drift."""
        self.unknown(path, value)
        self.note(path, wanted, describe(value))

    def note(self, path: str, wanted: str, got: str, kept: str = "extra") -> None:
        """Note a drift whose value the event holds already, in the field *kept*."""
        self._use(len(wanted) + len(got) + len(kept))
        self.drift.append(FieldMismatch(path, wanted, got, kept))

    def _use(self, size: int) -> None:
        # A path repeats the names above a value: a few long names over many small
        # values would take terabytes.
        self._room -= size + _OVERHEAD
        if self._room < 0:
            wanted = f"at most {MAX_ASIDE} bytes of unknown or misfit values"
            raise InvalidNotification("", wanted, "more")


def step(path: str, name: str | int) -> str:
    """Return the JSON Pointer of a member: a field's name or a list's index."""
    if isinstance(name, int):
        return f"{path}/{name}"
    return f"{path}/{name.replace('~', '~0').replace('/', '~1')}"


def json_text(value: Any) -> str:
    """Return compact JSON text of a value that jiter has read.

    Numbers come out digit by digit as they came in; white space and the spelling of
    escapes in strings do not. (jiter reads -0 as 0.)
    """
    try:
        return msgspec.json.encode(value, enc_hook=_digits).decode()
    except OverflowError:
        # msgspec writes no integer beyond 64 bits. The depth is bounded: jiter refuses
        # what is nested deeper than 200.
        return _piecewise(value)


def _digits(value: LosslessFloat) -> msgspec.Raw:
    return msgspec.Raw(bytes(value))


def _piecewise(value: Any) -> str:
    if type(value) is int:
        return str(value)
    if type(value) is dict:
        members = (f"{json_text(k)}:{json_text(v)}" for k, v in value.items())
        return "{" + ",".join(members) + "}"
    return "[" + ",".join(map(json_text, value)) + "]"


def describe(value: Any) -> str:
    """Return what a value is, in words: short, on one line, printable."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return f"the text {shorten(repr(value[: SHOWN + 1]))}"
        case dict():
            return f"an object of {len(value)}"
        case list():
            return f"a list of {len(value)}"
        case _:
            return f"the number {shorten(str(value))}"


def shorten(text: str, size: int = SHOWN) -> str:
    """Return the text's first `size` characters, all printable.

    A longer text ends in an ellipsis; what is not printable is escaped, so the result
    may be a few characters longer than `size`.
    """
    head = text if len(text) <= size else text[: size - 1] + "…"
    if head.isprintable():
        return head
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in head)
