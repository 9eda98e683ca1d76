import pytest
from support.ddl_tables import FRAMED

from fnm_bus.kafka.ddl import duckdb
from fnm_bus.kafka.ddl.topic_table import TopicTable


@pytest.mark.parametrize("table", FRAMED.values(), ids=FRAMED)
def test_a_view_has_every_column_with_its_type(table: TopicTable) -> None:
    statement = duckdb.table(table)

    for column in table.columns:
        assert f'CAST("{column.name}" AS ' in statement


def test_an_event_is_shown_once() -> None:
    statement = duckdb.table(FRAMED["host"])

    assert 'PARTITION BY "receipt"."event_id" ORDER BY archive_row ASC' in statement


def test_a_compacted_key_shows_its_newest_record() -> None:
    statement = duckdb.table(FRAMED["mitigation"])

    assert 'PARTITION BY "key" ORDER BY archive_row DESC' in statement


def test_records_without_identity_are_all_shown() -> None:
    assert "QUALIFY" not in duckdb.table(FRAMED["audit"])


def test_the_comment_has_the_command_that_makes_the_archive() -> None:
    assert (
        "fnm-bus tail fastnetmon.host.v1 --from-beginning --until-end --avro host.avro"
        in duckdb.table(FRAMED["host"])
    )
