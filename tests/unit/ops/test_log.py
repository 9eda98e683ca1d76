"""Log lines on stderr."""

import json
import logging

import pytest

from fnm_bus.ops import log

pytestmark = pytest.mark.usefixtures("restored_log")


def logged(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_line_has_time_level_module_event_and_fields(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure("info", "console")
    log.get_logger("fnm_bus.relay.drain").warning("topic_refused", topic="x", count=3)
    (line,) = logged(capsys)
    timestamp, rest = line.split(" ", 1)
    assert timestamp.endswith("Z")
    assert rest == "warning relay.drain: topic_refused topic=x count=3"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("two words", 'reason="two words"'),
        ("", 'reason=""'),
        ('a="b"', r'reason="a=\"b\""'),
        ("a\nb\x1b[2J", r'reason="a\nb\u001b[2J"'),
        ("\u202e", r"reason=\u202e"),
    ],
)
def test_a_value_cannot_pass_for_another_field_or_line(
    value: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("info", "console")
    log.get_logger("fnm_bus.relay.drain").warning("quarantined", reason=value)
    (line,) = logged(capsys)
    assert line.endswith(f"quarantined {text}")


def test_a_field_without_a_value_is_omitted(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", "console")
    log.get_logger("x").warning("wanted", mitigation=None)
    (line,) = logged(capsys)
    assert line.endswith("x: wanted")


def test_a_library_s_message_cannot_steer_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure("info", "console")
    logging.getLogger("fnm_bus.relay.drain").warning("got %s", "a\nb\x1b[2J\u202e")
    (line,) = logged(capsys)
    assert line.endswith(r"got a\nb\x1b[2J\u202e")


def test_json_has_one_object_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", "json")
    log.get_logger("fnm_bus.relay.drain").warning("quarantined", reason="a\nb")
    logging.getLogger("httpx2").warning("got %s", "a\nb")
    lines = [json.loads(line) for line in logged(capsys)]
    assert all(line.pop("timestamp").endswith("Z") for line in lines)
    assert lines == [
        {
            "level": "warning",
            "logger": "fnm_bus.relay.drain",
            "event": "quarantined",
            "reason": "a\nb",
        },
        {"level": "warning", "logger": "httpx2", "event": "got a\nb"},
    ]


@pytest.mark.parametrize("get_logger", [log.get_logger, logging.getLogger])
def test_an_exception_is_described_on_the_same_line(
    get_logger: type[logging.Logger], capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("info", "console")
    try:
        raise ValueError("broken\nin two")  # noqa: TRY301 - an exception to log
    except ValueError:
        get_logger("fnm_bus.relay.service").exception("turn_failed")
    (line,) = logged(capsys)
    assert r"""turn_failed exception="ValueError('broken\\nin two')" """ in line
    assert r"Traceback (most recent call last):\n" in line
    assert "an exception to log" in line


def test_less_severe_lines_are_omitted(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("warning", "console")
    log.get_logger("fnm_bus.relay.service").info("draining")
    assert logged(capsys) == []


def test_a_line_has_the_number_of_suppressed_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log.configure("info", "console")
    for _ in range(3):
        log.get_logger("x").info("refused", topic="y")
    monkeypatch.setattr(log, "_REPEAT_PAUSE", 0.0)
    log.get_logger("x").info("refused", topic="y")
    assert [line.split(": ")[1] for line in logged(capsys)] == [
        "refused topic=y",
        "refused topic=y suppressed=2",
    ]


def record_at(created: float, text: str) -> logging.LogRecord:
    record = logging.LogRecord("fnm_bus.x", logging.INFO, "", 0, text, (), None)
    record.created = created
    return record


def test_a_repeated_line_is_logged_every_half_minute_and_counted() -> None:
    flood = log._FloodFilter()
    assert flood.filter(record_at(100.0, "refused"))
    assert not any(flood.filter(record_at(101.0 + n, "refused")) for n in range(5))
    record = record_at(131.0, "refused")
    assert flood.filter(record)
    assert record.__dict__["suppressed"] == 5


def test_attempts_of_different_duration_are_repetitions() -> None:
    flood = log._FloodFilter()
    text = "FAIL kafka:9092: Connection refused (after {}ms in state CONNECT)"
    assert flood.filter(record_at(100.0, text.format(0)))
    assert not flood.filter(record_at(101.0, text.format(17)))


def test_a_flood_of_different_lines_is_limited_and_counted() -> None:
    flood = log._FloodFilter()
    shown = [flood.filter(record_at(100.0, f"entry={n}")) for n in range(80)]
    assert sum(shown) == 50
    record = record_at(101.0, "entry=80")
    assert flood.filter(record)
    assert record.__dict__["suppressed"] == 30
