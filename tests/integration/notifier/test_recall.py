"""Recall from a topic that got more partitions."""

from uuid import uuid4

import pytest
from confluent_kafka import Producer

from consumers.notifier.recall import reported_records
from fnm_bus.avro.codec import Codec
from fnm_bus.event import Mitigation
from fnm_bus.kafka.embedded_broker import EmbeddedBroker

KEY = "blackhole|203.0.113.7/32"


@pytest.mark.parametrize("order", [1, -1])
def test_later_record_of_two_partitions_is_recalled(order: int) -> None:
    codec, topic = Codec(), f"t{uuid4().hex[:8]}"
    old = (2, 1_000_000, Mitigation(key=KEY, kind="blackhole", state="wanted"))
    new = (0, 2_000_000, Mitigation(key=KEY, kind="blackhole", state="ended"))
    with EmbeddedBroker() as broker:
        broker.create_topics(topic)
        settings = {"bootstrap.servers": broker.bootstrap}
        producer = Producer(settings)
        for partition, stamp, record in (old, new)[::order]:
            producer.produce(
                topic,
                codec.encode(record, topic),
                key=KEY,
                partition=partition,
                timestamp=stamp,
            )
        producer.produce(topic, None, key=KEY, partition=2, timestamp=3_000_000)
        assert producer.flush(10) == 0
        records = reported_records(settings, topic, codec, dict.fromkeys(range(4), 9))
    events = [record.event for record in records]
    assert [e.state for e in events if isinstance(e, Mitigation)] == ["ended"]
