"""What is said on stderr: one line for each happening, of text or of JSON."""

import logging
import re
import sys
import time
import traceback
from typing import Final

from fnm_bus.ops.terminal import json_line, visible

_PER_SECOND: Final = 50
"""Lines of one logger and level in a second; what is over is counted and said."""
_AGAIN: Final = 30.0
"""Seconds in which the same line is not said again, but counted."""
_TEXTS: Final = 1000
"""Lines that are remembered for this."""
_TRACEBACK: Final = 4000
"""Characters of a traceback, from its end."""
_DURATION: Final = re.compile(r"after \d+ms")
"""librdkafka ends each failed attempt with it; the lines are the same without."""


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
    if level != "debug":
        # The registry client's: a line for each request.
        logging.getLogger("httpx2").setLevel(logging.WARNING)


class _Text(logging.Formatter):
    """`2026-11-22T10:30:00.123Z warning drain: …`, on one line whatever it holds."""

    def format(self, record: logging.LogRecord) -> str:
        name = record.name.removeprefix("fnm_bus.")
        line = f"{_time(record)} {record.levelname.lower()} {name}: {_message(record)}"
        if text := _traceback(record):
            line = f"{line}\n{text}"
        return visible(line)


class _Json(logging.Formatter):
    """One object with time, level, logger, message, and the traceback of an error."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        if text := _traceback(record):
            fields["traceback"] = text
        return json_line(fields)


class _Flood(logging.Filter):
    """Holds back what is said too often, and says how many lines that were."""

    def __init__(self) -> None:
        super().__init__()
        self._seconds: dict[tuple[str, int], tuple[int, int]] = {}
        self._texts: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        repeated = self._repeated(record, text)
        over = None if repeated is None else self._over(record)
        if repeated is None or over is None:
            return False
        if held := repeated + over:
            record.msg, record.args = f"{text} (and {held} lines held back)", ()
        return True

    def _repeated(self, record: logging.LogRecord, text: str) -> int | None:
        """Return how often the same was held back; None to hold it back again."""
        key = (record.name, _DURATION.sub("", text))
        since, count = self._texts.get(key, (record.created, -1))
        if count >= 0 and record.created - since < _AGAIN:
            self._texts[key] = (since, count + 1)
            return None
        if len(self._texts) >= _TEXTS:
            self._texts.clear()
        self._texts[key] = (record.created, 0)
        return max(count, 0)

    def _over(self, record: logging.LogRecord) -> int | None:
        """Return how many the last second held back; None to hold this one back."""
        key, second = (record.name, record.levelno), int(record.created)
        began, count = self._seconds.get(key, (second, 0))
        over = 0
        if began != second:
            over, count = max(0, count - _PER_SECOND), 0
        self._seconds[key] = (second, count + 1)
        return over if count < _PER_SECOND else None


def _message(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        text = f"{text}: {record.exc_info[1]!r}"
    return text


def _traceback(record: logging.LogRecord) -> str:
    """Return where an unexpected exception was raised; "" if there is none."""
    if record.levelno < logging.ERROR or not record.exc_info:
        return ""
    text = "".join(traceback.format_exception(*record.exc_info))
    return text.strip()[-_TRACEBACK:]


def _time(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"
