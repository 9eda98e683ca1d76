from support.ddl_tables import FRAMED

from fnm_bus.kafka.ddl.text import escaped_literal, heading, literal, quoted


def test_a_literal_doubles_its_quotes() -> None:
    assert literal("o'brien") == "'o''brien'"


def test_an_escaped_literal_keeps_quotes_and_backslashes() -> None:
    assert escaped_literal("o'b\\c") == r"'o\'b\\c'"


def test_a_path_has_each_name_in_quotes() -> None:
    assert quoted(("receipt", "event_id")) == '"receipt"."event_id"'


def test_a_heading_names_topic_and_record() -> None:
    assert heading(FRAMED["audit"], ["A note."]) == (
        "-- fastnetmon.audit.v1: fastnetmon.Audit\n-- A note.\n"
    )
