"""What every entry goes through, and whether the installation is able to do it."""

import pytest

from fnm_bus.avro.codec import Codec
from fnm_bus.errors import InvalidRecord, SchemaError
from fnm_bus.event import AnyRecord
from fnm_bus.kafka.route import Topics
from fnm_bus.relay.pipeline import Pipeline


def test_a_check_makes_a_record_for_each_topic_of_the_relay() -> None:
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


def test_schemas_that_refuse_a_valid_document_are_an_error_of_the_installation() -> (
    None
):
    with pytest.raises(SchemaError, match="this installation refuses"):
        Pipeline("fra1", Topics(), Misfit()).check()
