import json
import re
from dataclasses import replace

import pytest
from support.ddl_tables import FRAMED, SOURCE

from fnm_bus.avro import schema
from fnm_bus.errors import SchemaError
from fnm_bus.kafka.ddl import spark
from fnm_bus.kafka.ddl.topic_table import TopicTable


@pytest.mark.parametrize("table", FRAMED.values(), ids=FRAMED)
def test_the_schemas_read_as_the_record_does(table: TopicTable) -> None:
    texts = re.findall(r"'(\{.*?\})'[,)]", spark.table(table, SOURCE))

    assert texts
    for text in texts:
        avro = json.loads(text)
        assert schema.fingerprint_of(avro) == schema.fingerprint(table.full_name)


def test_framed_records_are_chosen_by_their_schema_id() -> None:
    source = replace(
        SOURCE,
        writers={
            "fastnetmon.host.v1": {
                7: schema.text("fastnetmon.HostEvent"),
                4660: schema.text("fastnetmon.HostEvent"),
            }
        },
    )

    statements = spark.table(FRAMED["host"], source)

    assert "WHERE substring(value, 1, 5) = X'0000000007'" in statements
    assert "UNION ALL" in statements
    assert "WHERE substring(value, 1, 5) = X'0000001234'" in statements
    assert "from_avro(substring(value, 6), " in statements


def test_single_objects_are_chosen_by_their_fingerprint() -> None:
    statements = spark.table(FRAMED["mitigation"], SOURCE)
    header = f"c301{schema.fingerprint('fastnetmon.Mitigation').hex()}"

    assert f"WHERE substring(value, 1, 10) = X'{header}'" in statements
    assert "from_avro(substring(value, 11), " in statements


def test_a_topic_without_a_pinned_schema_id_is_an_error() -> None:
    with pytest.raises(SchemaError, match=r"no schema id is pinned for fastnetmon\.ho"):
        spark.table(FRAMED["host"], replace(SOURCE, writers={}))


def test_a_literal_keeps_quotes_and_backslashes() -> None:
    topic = replace(FRAMED["mitigation"], topic="o'b\\c")

    assert r"'subscribe' 'o\'b\\c'" in spark.table(topic, SOURCE)
