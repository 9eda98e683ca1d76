import json

import pytest

from fnm_bus.avro import schema
from fnm_bus.errors import SchemaError
from fnm_bus.kafka.ddl.columns import ColumnType, columns_of


@pytest.mark.parametrize("full_name", schema.RECORDS)
def test_every_record_has_its_fields_as_columns(full_name: str) -> None:
    fields = json.loads(schema.text(full_name))["fields"]

    columns = columns_of(full_name)

    assert [column.name for column in columns] == [field["name"] for field in fields]


def test_types_follow_the_schema() -> None:
    columns = {column.name: column.type for column in columns_of("fastnetmon.Audit")}

    assert columns["at"] == ColumnType("timestamp")
    assert columns["key"] == ColumnType("string", nullable=True)
    assert columns["checks"].word == "array"
    assert columns["checks"].items[0].word == "record"
    assert columns["dry_run"] == ColumnType("boolean")


def test_a_named_type_has_its_fields_at_each_use() -> None:
    columns = {column.name: column.type for column in columns_of("fastnetmon.Reason")}
    (want,) = columns["wants"].items
    inner = {column.name: column.type for column in want.columns}

    assert inner["flow"].nullable
    assert [column.name for column in inner["effect"].columns] == [
        "then",
        "communities",
    ]


def test_an_unknown_type_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    record = {
        "type": "record",
        "name": "Odd",
        "fields": [{"name": "rate", "type": "double"}],
    }
    monkeypatch.setattr(schema, "text", lambda _: json.dumps(record))

    with pytest.raises(SchemaError, match="no column type for 'double'"):
        columns_of("fastnetmon.Odd")
