"""Text that is safe to print, from any source.

A document, a record or a command may contain escape sequences, C1 controls,
bidirectional marks and line breaks. A terminal would execute them: move the cursor, set
its title, show an address backwards, or display a forged line. All printed text, logs
and JSON go through one of these functions.
"""

import io
import json
from typing import Any, TextIO


def visible(text: str) -> str:
    r"""Return *text* on one line, with an escape for each unprintable character.

    `str.isprintable` decides: controls, format characters (such as bidirectional
    marks), surrogates, unassigned characters and blanks other than the space are
    unprintable. The escapes are Python's: `\x1b`, `\u202e`. Backslashes stay.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def visible_lines(text: str) -> str:
    r"""Return *text* as `visible` does, and keep its line feeds (`\n`)."""
    return "\n".join(map(visible, text.split("\n")))


def json_line(value: Any) -> str:
    r"""Return a value as JSON on one line, without a line feed.

    Unprintable characters are written as `\uXXXX`, which JSON permits in every string:
    a program that parses the line gets the same value. Values without a JSON type, such
    as times and paths, are written as text.
    """
    text = json.dumps(value, ensure_ascii=False, default=str)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


class SafeStream(io.TextIOBase):
    """A text stream that writes `visible_lines` to another one.

    For standard error: usage errors and tracebacks are printed by libraries.

    Args:
        stream: receives the text.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Return the other stream's value."""
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """Return the other stream's value."""
        return self._stream.errors

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Write *text* and return its length."""
        self._stream.write(visible_lines(text))
        return len(text)

    def flush(self) -> None:
        """Flush the other stream."""
        self._stream.flush()

    def isatty(self) -> bool:
        """Return whether the other stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the other stream's file descriptor."""
        return self._stream.fileno()
