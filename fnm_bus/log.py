"""What is said on stderr: one line for each happening, of text or of JSON."""

import json
import logging
import sys
import time
from typing import Final

_PER_SECOND: Final = 50
"""Lines of one logger and level in a second; what is over is counted and said."""


def configure(level: str, form: str) -> None:
    """Send everything from *level* on to stderr.

    Args:
        level: debug, info, warning or error.
        form: "text" or "json".
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    handler.addFilter(_Flood())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class _Text(logging.Formatter):
    """`2026-11-22T10:30:00.123Z warning drain: …`, on one line whatever it holds."""

    def format(self, record: logging.LogRecord) -> str:
        name = record.name.removeprefix("fnm_bus.")
        line = f"{_time(record)} {record.levelname.lower()} {name}: {_message(record)}"
        # A control character in a document must not become a line of the log.
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


class _Json(logging.Formatter):
    """One object with time, level, logger and message."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(
            {
                "time": _time(record),
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": _message(record),
            }
        )


class _Flood(logging.Filter):
    """Lets the first lines of each second through, and says how many it held back."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, int], tuple[int, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key, second = (record.name, record.levelno), int(record.created)
        began, count = self._seen.get(key, (second, 0))
        if began != second:
            if count > _PER_SECOND:
                record.msg = f"{record.getMessage()} (and {count - _PER_SECOND} before)"
                record.args = ()
            count = 0
        self._seen[key] = (second, count + 1)
        return count < _PER_SECOND


def _message(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        text = f"{text}: {record.exc_info[1]!r}"
    return text


def _time(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"
