"""Records of entries, and the check of the installation."""

import pytest

from fnm_bus.avro.codec import Codec
from fnm_bus.errors import InvalidRecord, SchemaError
from fnm_bus.event import AnyRecord
from fnm_bus.kafka.addressing import Topics
from fnm_bus.relay.pipeline import Pipeline


def test_check_returns_a_record_for_each_topic_of_the_relay() -> None:
    topics = Topics()
    records = Pipeline("fra1", topics, Codec()).check()
    assert [record.topic for record in records] == [
        topics.host,
        topics.hostgroup,
        topics.status,
        topics.deadletter,
    ]


class Misfit(Codec):
    """A codec whose schemas are not those of the code."""

    def encode(self, event: AnyRecord, topic: str) -> bytes:
        raise InvalidRecord(f"{topic}: no field {type(event).__name__}")


def test_schemas_that_refuse_valid_documents_are_a_schema_error() -> None:
    with pytest.raises(SchemaError, match="this installation refuses"):
        Pipeline("fra1", Topics(), Misfit()).check()
