import socket

import pytest
from confluent_kafka import Consumer, Producer

from fnm_bus.kafka.embedded_broker import EmbeddedBroker


def addresses(bootstrap: str) -> list[tuple[str, int]]:
    pairs = (text.rsplit(":", 1) for text in bootstrap.split(","))
    return [(host, int(port)) for host, port in pairs]


def test_a_record_is_read_as_published() -> None:
    with EmbeddedBroker() as broker:
        producer = Producer({"bootstrap.servers": broker.bootstrap})
        producer.produce("t", value=b"value", key=b"key", headers=[("a", b"b")])
        assert producer.flush(10) == 0
        consumer = Consumer(
            {
                "bootstrap.servers": broker.bootstrap,
                "group.id": "g",
                "auto.offset.reset": "earliest",
            }
        )
        consumer.subscribe(["t"])
        message = consumer.poll(30)
        consumer.close()
    assert message is not None
    assert (message.key(), message.value()) == (b"key", b"value")
    assert message.headers() == [("a", b"b")]


def test_every_broker_is_named_and_listens_on_loopback() -> None:
    with EmbeddedBroker(brokers=3) as broker:
        listening = addresses(broker.bootstrap)
        assert len(set(listening)) == 3
        assert {host for host, _ in listening} == {"127.0.0.1"}
        for address in listening:
            socket.create_connection(address, timeout=5).close()


def test_nothing_listens_after_the_context() -> None:
    with EmbeddedBroker() as broker:
        (address,) = addresses(broker.bootstrap)
    assert broker.bootstrap == ""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)
