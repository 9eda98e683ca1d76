"""Each log line has a stable event name, and its values are fields."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
EVENT = re.compile(r"[a-z]+(_[a-z]+)*")
LOGGER = re.compile(r"^log = (?!get_logger\(__name__\)$)", re.MULTILINE)
OWN_LOGGERS = {
    "consumers/notifier/apprise_sink.py",  # the level of a library's logger
}


def sources() -> Iterator[Path]:
    """Yield the modules of both packages; the samples are programs of their own."""
    for top in ("fnm_bus", "consumers"):
        for path in sorted((ROOT / top).rglob("*.py")):
            if "samples" not in path.parts:
                yield path


def is_event(node: ast.expr) -> bool:
    """Return whether an expression is one name, or a choice of two names."""
    if isinstance(node, ast.IfExp):
        return is_event(node.body) and is_event(node.orelse)
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and EVENT.fullmatch(node.value) is not None
    )


def wrong_calls(source: str) -> list[int]:
    """Return the lines of the log calls whose event is no name."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in METHODS
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id in {"log", "logger"}
        ):
            events = node.args[1:] if node.func.attr == "log" else node.args
            if len(events) != 1 or not is_event(events[0]):
                lines.append(node.lineno)
    return lines


def test_each_log_call_has_an_event_name() -> None:
    wrong = {
        path.relative_to(ROOT).as_posix(): lines
        for path in sources()
        if (lines := wrong_calls(path.read_text("utf-8")))
    }
    assert wrong == {}


def test_each_module_logs_by_get_logger() -> None:
    others = {
        path.relative_to(ROOT).as_posix()
        for path in sources()
        if LOGGER.search(path.read_text("utf-8"))
    }
    assert others == OWN_LOGGERS


@pytest.mark.parametrize(
    "call",
    [
        'log.info("stopped: %s", exc)',
        'log.info("two words", error=exc)',
        'log.info(f"stopped_{name}")',
        'log.info("stopped_%s" % name)',
        'log.info("stopped_{}".format(name))',
        "log.info(name)",
        "log.log(level, name, text=text)",
        'log.info("stopped", error)',
        'log.info("stopped" if done else name)',
    ],
)
def test_a_text_with_values_is_no_event(call: str) -> None:
    assert wrong_calls(call) == [1]


@pytest.mark.parametrize(
    "call",
    [
        'log.info("topic_refused", topic=topic)',
        'log.log(level, "up" if up else "down", reason=reason)',
    ],
)
def test_a_name_with_fields_is_an_event(call: str) -> None:
    assert wrong_calls(call) == []
