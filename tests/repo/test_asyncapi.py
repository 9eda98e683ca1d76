"""The AsyncAPI document describes the records that the programs publish."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from fnm_bus.avro import schema
from fnm_bus.avro.examples import example_records
from fnm_bus.event import Event
from fnm_bus.kafka.addressing import Topics, headers_for, topic_of

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "asyncapi.yaml"
DOCUMENT: dict[str, Any] = YAML(typ="safe").load(PAGE.read_text("utf-8"))
AT = datetime(2026, 11, 22, tzinfo=UTC)


def message_of(full_name: str) -> dict[str, Any]:
    message: dict[str, Any] = DOCUMENT["components"]["messages"][
        full_name.removeprefix("fastnetmon.")
    ]
    return message


def test_every_topic_is_a_channel() -> None:
    addresses = [channel["address"] for channel in DOCUMENT["channels"].values()]
    topics = Topics()
    names = [getattr(topics, kind) for kind in Topics.__dataclass_fields__]
    assert sorted(addresses) == sorted(names)


@pytest.mark.parametrize("full_name", schema.RECORDS)
def test_headers_of_every_example_are_described(full_name: str) -> None:
    [trait] = message_of(full_name)["traits"]
    name = trait["$ref"].rpartition("/")[2]
    headers = DOCUMENT["components"]["messageTraits"][name]["headers"]
    seen: set[str] = set()
    for record in example_records(full_name).values():
        published = {header for header, _ in headers_for(record, "x", "7", AT)}
        assert set(headers["required"]) <= published
        seen |= published
    assert seen == headers["properties"].keys()


@pytest.mark.parametrize("full_name", schema.RECORDS)
def test_records_with_a_schema_id_are_marked(full_name: str) -> None:
    binding = message_of(full_name)["bindings"]["kafka"]
    is_framed = full_name in Topics().of_framed().values()
    assert ("schemaIdLocation" in binding) is is_framed


@pytest.mark.parametrize("name", ["Command", "DeadLetter"])
def test_key_that_a_record_may_lack_is_optional(name: str) -> None:
    assert message_of(name)["bindings"]["kafka"]["key"]["type"] == ["string", "null"]


def test_each_event_is_on_the_channel_of_its_topic() -> None:
    by_address = {
        channel["address"]: list(channel["messages"])
        for channel in DOCUMENT["channels"].values()
    }
    for full_name in Topics().of_events().values():
        for event in example_records(full_name).values():
            assert isinstance(event, Event)
            name = full_name.removeprefix("fastnetmon.")
            assert by_address[topic_of(event, Topics())] == [name]
