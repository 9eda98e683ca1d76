"""Events as lines for people."""

from datetime import UTC, datetime

import pytest

from fnm_bus.cli import render
from fnm_bus.event import AttackDetails, DeadLetter, HostEvent, Receipt
from fnm_bus.event.json_value import bytes_as_text, event_as_json

AT = datetime(2026, 1, 1, 10, 30, 0, 123_000, tzinfo=UTC)
RECEIPT = Receipt(
    event_id="00000000-0000-5000-8000-000000000000",
    received_at=AT,
    sequence=1,
    sensor="fra1",
    producer_name="fnm-bus",
    producer_version="0",
    raw_digest="sha256:",
    raw_size=0,
    arguments=(),
)
TOPIC = "fastnetmon.host.v1"


def event(action: str = "ban", **details: object) -> HostEvent:
    return HostEvent(
        receipt=RECEIPT,
        action=action,
        ip="192.0.2.1",
        attack_details=AttackDetails(**details),
    )


def test_a_line_has_time_action_target_size_and_sensor() -> None:
    line = render.event_line(
        TOPIC,
        event(
            attack_uuid="12345678-1234-4234-8234-123456789abc",
            total_incoming_pps=1_234_567,
            total_incoming_traffic=1_000_000,
            total_outgoing_pps=3,
        ),
    )
    words = line.split()
    assert words[:4] == ["10:30:00.123", "host", "ban", "192.0.2.1"]
    assert words[4:] == ["1.2", "M", "8.0", "M", "12345678", "fra1"]


def test_bits_as_sent_are_preferred_to_bytes() -> None:
    line = render.event_line(
        TOPIC, event(total_incoming_traffic=1_000, total_incoming_traffic_bits=9_000)
    )
    assert "9.0 k" in line


def test_a_missing_value_is_a_dash() -> None:
    assert render.event_line(TOPIC, event()).split()[4:6] == ["-", "-"]


def test_columns_stand_below_their_headings() -> None:
    heading = render.heading()
    line = render.event_line(TOPIC, event(total_incoming_pps=5))
    assert line.index("ban") == heading.index("ACTION")
    assert line.index("192.0.2.1") == heading.index("TARGET")
    assert line.index("fra1") == heading.index("SENSOR")


@pytest.mark.parametrize("evil", ["\x1b[2J", "a\nb", "\u202e", "\x07"])
def test_an_event_cannot_steer_the_terminal(evil: str) -> None:
    line = render.event_line(TOPIC, event(action=evil))
    assert line.isprintable()


def test_a_known_action_has_a_color() -> None:
    assert render.color_of(event()) == ("ban", "red")
    assert render.color_of(event("ban\x1b[2J")) == ("ban\x1b[2J", "")


def test_a_dead_letter_shows_its_reason() -> None:
    letter = DeadLetter(
        sensor="fra1",
        entry="NAME",
        reason="/ip: wanted an address",
        field="/ip",
        expected="an address",
        actual="7",
        head=b"\xff",
        size=1,
        digest="sha256:",
        failed_at=AT,
        producer_name="fnm-bus",
        producer_version="0",
    )
    assert "/ip: wanted an address" in render.event_line(
        "fastnetmon.deadletter.v1", letter
    )
    assert event_as_json(letter)["head"] == "/w=="


def test_bytes_other_than_text_are_marked() -> None:
    assert bytes_as_text(b"key") == "key"
    assert bytes_as_text(b"\xff") == "base64:/w=="
    assert bytes_as_text(None) is None
