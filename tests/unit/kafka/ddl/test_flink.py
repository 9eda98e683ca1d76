import pytest
from support.ddl_tables import FRAMED, SINGLE, SOURCE, names_in, typed_names

from fnm_bus.kafka.ddl import flink
from fnm_bus.kafka.ddl.topic_table import TopicTable

ADDED = {"record_key", "single_object", "fingerprint"}
COMPUTED = {"event_time"}


@pytest.mark.parametrize("table", [*FRAMED.values(), *SINGLE.values()])
def test_a_table_has_every_field_in_the_order_of_the_schema(
    table: TopicTable,
) -> None:
    names = typed_names(flink.table(table, SOURCE), "`")

    assert [name for name in names if name not in ADDED | COMPUTED] == names_in(
        table.columns
    )


def test_times_are_microseconds_in_a_bigint() -> None:
    statement = flink.table(FRAMED["host"], SOURCE)

    assert "`received_at` BIGINT" in statement
    assert "TIMESTAMP(" not in statement
    assert (
        "`event_time` AS TO_TIMESTAMP_LTZ(`receipt`.`received_at` / 1000, 3)"
        in statement
    )
    assert "WATERMARK FOR `event_time`" in statement


def test_a_compacted_topic_is_an_upsert_table_by_its_key() -> None:
    statement = flink.table(FRAMED["mitigation"], SOURCE)

    assert "'connector' = 'upsert-kafka'" in statement
    assert "PRIMARY KEY (`record_key`) NOT ENFORCED" in statement
    assert "WATERMARK" not in statement
    assert "scan.startup.mode" not in statement


def test_framed_values_are_read_by_the_writers_schema() -> None:
    statement = flink.table(FRAMED["host"], SOURCE)

    assert "'value.format' = 'avro-confluent'" in statement
    assert "'value.avro-confluent.url' = 'http://registry:8081'" in statement
    # A column that may be null also reads a record that lacks its field.
    assert "NOT NULL" not in statement


def test_a_single_object_has_its_header_as_columns() -> None:
    statement = flink.table(SINGLE["host"], SOURCE)

    assert "'value.format' = 'avro'" in statement
    assert "(\n  `single_object` BIGINT NOT NULL,\n  `fingerprint` DOUBLE" in statement
    assert "`action` STRING NOT NULL" in statement
    assert "`alert_scope` STRING,\n" in statement
    assert "registry:8081" not in statement


def test_transactions_that_were_aborted_are_not_read() -> None:
    statement = flink.table(FRAMED["mitigation"], SOURCE)

    assert "'properties.isolation.level' = 'read_committed'" in statement
