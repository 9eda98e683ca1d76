from dataclasses import replace

import pytest
from support.ddl_tables import FRAMED, SINGLE, SOURCE, names_in, typed_names

from fnm_bus.kafka.ddl import clickhouse
from fnm_bus.kafka.ddl.topic_table import TopicTable


@pytest.mark.parametrize("table", FRAMED.values(), ids=FRAMED)
def test_each_table_has_every_field_of_each_tuple(table: TopicTable) -> None:
    tables = clickhouse.table(table, SOURCE).split("CREATE ")[1:]
    with_columns = [text for text in tables if text.startswith("TABLE")]

    assert len(with_columns) == (2 if table.framed else 1)
    for text in with_columns:
        assert typed_names(text, '"') == names_in(table.columns)


def test_events_pass_from_the_queue_to_a_table_without_duplicates() -> None:
    statements = clickhouse.table(FRAMED["host"], SOURCE)

    assert "kafka_format = 'AvroConfluent'" in statements
    assert "kafka_topic_list = 'fastnetmon.host.v1'" in statements
    assert 'ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM("receipt"' in statements
    assert 'ORDER BY ("receipt"."event_id")' in statements
    assert (
        "CREATE MATERIALIZED VIEW host_view TO host AS SELECT * FROM host_queue"
        in statements
    )


def test_a_record_without_identity_is_identified_by_its_offset() -> None:
    statements = clickhouse.table(FRAMED["audit"], SOURCE)

    assert "ORDER BY (kafka_partition, kafka_offset)" in statements
    assert "_offset AS kafka_offset" in statements


@pytest.mark.parametrize("name", ["reason", "mitigation", "command"])
def test_single_objects_come_from_an_archive(name: str) -> None:
    statements = clickhouse.table(FRAMED[name], SOURCE)

    assert "ENGINE = Kafka" not in statements
    assert f"--avro {name}.avro" in statements
    assert f"file('{name}.avro', 'Avro')" in statements


def test_the_rows_of_a_compacted_key_share_a_partition() -> None:
    assert "PARTITION BY" not in clickhouse.table(FRAMED["mitigation"], SOURCE)


def test_without_a_registry_events_come_from_an_archive() -> None:
    assert "file('host.avro', 'Avro')" in clickhouse.table(SINGLE["host"], SOURCE)


def test_a_backslash_in_a_setting_does_not_end_its_literal() -> None:
    source = replace(SOURCE, registry_url="http://registry:8081\\")

    assert r"url = 'http://registry:8081\\'," in clickhouse.table(
        FRAMED["host"], source
    )
