"""Logs: one line on stderr for each event, as text or as a JSON object.

`get_logger` returns a logger whose lines have an event name and fields. Libraries use
the standard library's loggers; `configure` gives their lines the same form.
"""

import json
import logging
import re
import sys
import traceback
from typing import Any, Final, Literal

import structlog
from structlog.stdlib import (
    BoundLogger,
    PositionalArgumentsFormatter,
    ProcessorFormatter,
    add_log_level,
    add_logger_name,
    filter_by_level,
)
from structlog.typing import EventDict

from fnm_bus.ops.terminal import json_line, visible

LogFormat = Literal["console", "json"]

_PER_SECOND: Final = 50
"""Lines of one logger and level in a second; further lines are counted."""
_REPEAT_PAUSE: Final = 30.0
"""Seconds in which a repeated line is counted and not logged."""
_REMEMBERED: Final = 1000
"""Lines that are remembered to find repetitions."""
_TRACEBACK: Final = 4000
"""Characters of a traceback, from its end."""
_DURATION: Final = re.compile(r"after \d+ms")
"""librdkafka ends each failed attempt with its duration; the rest repeats."""
_QUOTED: Final = re.compile(r'[\s"=]')
"""Characters that would make the end of a value unclear."""
_HEAD: Final = ("timestamp", "level", "logger", "event")


def get_logger(name: str) -> BoundLogger:
    """Return the logger of a module: `log.info("published", topic=…)`.

    Args:
        name: the module's `__name__`.
    """
    # Bound once: the proxy of `wrap_logger` would be bound again for every line.
    logger: BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            filter_by_level,
            PositionalArgumentsFormatter(),
            _describe_error,
            ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=BoundLogger,
    ).bind()
    return logger


def configure(level: str, log_format: LogFormat) -> None:
    """Log to stderr.

    Args:
        level: the least severe level: debug, info, warning or error.
        log_format: text for people, or one JSON object per line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[_describe_error],
            processors=[
                add_log_level,
                add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _count_suppressed,
                ProcessorFormatter.remove_processors_meta,
                _render_json if log_format == "json" else _render_console,
            ],
        )
    )
    handler.addFilter(_FloodFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        # The registry's client logs each request.
        logging.getLogger("httpx2").setLevel(logging.WARNING)


class _FloodFilter(logging.Filter):
    """Suppresses repeated lines and floods, and counts the suppressed lines."""

    def __init__(self) -> None:
        super().__init__()
        self._seconds: dict[tuple[str, int], tuple[int, int]] = {}
        self._texts: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        repeated = self._count_repeated(record)
        excess = None if repeated is None else self._count_excess(record)
        if repeated is None or excess is None:
            return False
        record.suppressed = repeated + excess
        return True

    def _count_repeated(self, record: logging.LogRecord) -> int | None:
        """Return how many equal lines were suppressed; None to suppress this one."""
        key = (record.name, _DURATION.sub("", record.getMessage()))
        since, count = self._texts.get(key, (record.created, -1))
        if count >= 0 and record.created - since < _REPEAT_PAUSE:
            self._texts[key] = (since, count + 1)
            return None
        if len(self._texts) >= _REMEMBERED:
            self._texts.clear()
        self._texts[key] = (record.created, 0)
        return max(count, 0)

    def _count_excess(self, record: logging.LogRecord) -> int | None:
        """Return how many lines the last second suppressed; None to suppress this."""
        key, second = (record.name, record.levelno), int(record.created)
        started, count = self._seconds.get(key, (second, 0))
        excess = 0
        if started != second:
            excess, count = max(0, count - _PER_SECOND), 0
        self._seconds[key] = (second, count + 1)
        return excess if count < _PER_SECOND else None


def _describe_error(_logger: Any, level: str, fields: EventDict) -> EventDict:
    """Replace an exception by its description, for errors with the traceback."""
    exc_info = fields.pop("exc_info", None)
    if exc_info is True:
        exc_info = sys.exc_info()
    if exc_info and exc_info[1] is not None:
        fields["exception"] = repr(exc_info[1])
        if level in {"error", "exception", "critical"}:
            text = "".join(traceback.format_exception(*exc_info))
            fields["traceback"] = text.strip()[-_TRACEBACK:]
    return fields


def _count_suppressed(_logger: Any, _level: str, fields: EventDict) -> EventDict:
    if suppressed := getattr(fields["_record"], "suppressed", 0):
        fields["suppressed"] = suppressed
    return fields


def _render_json(_logger: Any, _level: str, fields: EventDict) -> str:
    head = {name: fields.pop(name) for name in _HEAD}
    return json_line({**head, **fields})


def _render_console(_logger: Any, _level: str, fields: EventDict) -> str:
    """Return `2026-11-22T10:30:00Z warning relay.drain: event field=value …`."""
    timestamp, level, logger, event = (fields.pop(name) for name in _HEAD)
    logger = logger.removeprefix("fnm_bus.")
    given = {name: value for name, value in fields.items() if value is not None}
    pairs = (f"{name}={_quote(value)}" for name, value in given.items())
    return visible(" ".join([f"{timestamp} {level} {logger}: {event}", *pairs]))


def _quote(value: object) -> str:
    text = str(value)
    if text and not _QUOTED.search(text):
        return text
    return json.dumps(text, ensure_ascii=False)
