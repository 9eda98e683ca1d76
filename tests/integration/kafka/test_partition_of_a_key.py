"""The partition of a key, in librdkafka and here."""

from confluent_kafka import Producer

from consumers.mitigation.latest_record import partition_of
from fnm_bus.kafka.embedded_broker import EmbeddedBroker


def test_a_key_has_the_partition_of_librdkafka() -> None:
    keys = [f"blackhole|203.0.113.{number}/32".encode() for number in range(20)]
    partitions: dict[bytes, int] = {}
    with EmbeddedBroker() as broker:
        broker.create_topics("t")
        producer = Producer({"bootstrap.servers": broker.bootstrap})
        count = len(producer.list_topics("t", timeout=10).topics["t"].partitions)
        for key in keys:
            producer.produce(
                "t",
                key=key,
                value=b"",
                on_delivery=lambda _error, message: partitions.update(
                    {message.key(): message.partition()}
                ),
            )
        assert producer.flush(10) == 0
    assert partitions == {key: partition_of(key, count) for key in keys}
