"""Topics of a real Kafka for an SQL engine."""

from uuid import uuid4

from confluent_kafka import Producer

from fnm_bus.avro.codec import Codec
from fnm_bus.avro.examples import example_records
from fnm_bus.avro.registry import Registry
from fnm_bus.avro.schema_ids import SchemaIds
from fnm_bus.event import AnyRecord
from fnm_bus.kafka.addressing import Topics
from fnm_bus.kafka.topic_admin import TopicAdmin
from fnm_bus.kafka.topics import planned_topics

Records = list[tuple[str, bytes, AnyRecord]]
"""Topic, key and record."""


def new_topics() -> Topics:
    """Return names that no other test has."""
    unique = uuid4().hex[:8]
    names = Topics.__dataclass_fields__
    return Topics(**{name: f"{unique}.{name}" for name in names})


def example_contents(topics: Topics) -> Records:
    """Return every example of every record; a mitigation's key is its own."""
    return [
        (topic, str(getattr(event, "key", name)).encode(), event)
        for topic, full_name in topics.of_all().items()
        for name, event in example_records(full_name).items()
    ]


def publish(kafka: str, topics: Topics, codec: Codec, contents: Records) -> None:
    """Make the topics, and publish the records."""
    TopicAdmin({"bootstrap.servers": kafka}).create(planned_topics(topics, 2, 1))
    publish_values(
        kafka,
        [(topic, key, codec.encode(event, topic)) for topic, key, event in contents],
    )


def publish_values(kafka: str, values: list[tuple[str, bytes, bytes]]) -> None:
    """Publish values to topics that exist."""
    producer = Producer({"bootstrap.servers": kafka})
    for topic, key, value in values:
        producer.produce(topic, value, key)
    assert producer.flush(30) == 0


def register(topics: Topics, registry: str) -> SchemaIds:
    """Register the schemas of the topics with Confluent's framing."""
    return Registry(registry).register(topics.of_framed())
