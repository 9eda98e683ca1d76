"""What is said on stderr."""

import json
import logging
from collections.abc import Iterator

import pytest

from fnm_bus.ops import log


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_line_has_time_level_module_and_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure("info", "text")
    logging.getLogger("fnm_bus.relay.drain").warning("topic=%s refused", "x")
    (line,) = said(capsys)
    time, rest = line.split(" ", 1)
    assert time.endswith("Z")
    assert rest == "warning relay.drain: topic=x refused"


def test_a_document_cannot_make_a_second_line_or_steer_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure("info", "text")
    logging.getLogger("fnm_bus.relay.drain").warning("got %s", "a\nb\x1b[2J\u202e")
    (line,) = said(capsys)
    assert line.endswith(r"got a\nb\x1b[2J\u202e")


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", "json")
    logging.getLogger("fnm_bus.relay.drain").warning("got %s", "a\nb")
    (line,) = said(capsys)
    found = json.loads(line)
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "warning",
        "logger": "fnm_bus.relay.drain",
        "message": "got a\nb",
    }


def test_an_exception_is_named_on_the_same_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure("info", "text")
    try:
        raise ValueError("broken\nin two")  # noqa: TRY301 - there must be one to log
    except ValueError:
        logging.getLogger("fnm_bus.relay.service").exception("turn")
    (line,) = said(capsys)
    assert r"error relay.service: turn: ValueError('broken\nin two')" in line
    assert r"Traceback (most recent call last):\n" in line
    assert "there must be one to log" in line


def test_less_severe_lines_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("warning", "text")
    logging.getLogger("fnm_bus.relay.service").info("hello")
    assert said(capsys) == []


def made(created: float, text: str) -> logging.LogRecord:
    record = logging.LogRecord("fnm_bus.x", logging.INFO, "", 0, text, (), None)
    record.created = created
    return record


def test_the_same_line_is_said_once_in_half_a_minute_and_then_counted() -> None:
    flood = log._Flood()
    assert flood.filter(made(100.0, "refused"))
    assert not any(flood.filter(made(101.0 + n, "refused")) for n in range(5))
    again = made(131.0, "refused")
    assert flood.filter(again)
    assert again.getMessage() == "refused (and 5 lines held back)"


def test_attempts_that_differ_in_how_long_they_took_are_the_same() -> None:
    flood = log._Flood()
    text = "FAIL kafka:9092: Connection refused (after {}ms in state CONNECT)"
    assert flood.filter(made(100.0, text.format(0)))
    assert not flood.filter(made(101.0, text.format(17)))


def test_a_flood_of_different_lines_is_cut_and_counted_in_the_next_second() -> None:
    flood = log._Flood()
    shown = [flood.filter(made(100.0, f"entry={n}")) for n in range(80)]
    assert sum(shown) == 50
    after = made(101.0, "entry=80")
    assert flood.filter(after)
    assert after.getMessage() == "entry=80 (and 30 lines held back)"
