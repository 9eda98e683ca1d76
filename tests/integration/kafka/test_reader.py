"""A reader, its partitions, and a broker that becomes unreachable."""

import logging
import os
import shutil
import subprocess
import time
from uuid import uuid4

import pytest
from confluent_kafka import Producer

from fnm_bus.avro.codec import Codec
from fnm_bus.errors import BrokerUnavailable, ConfigError
from fnm_bus.event import HostEvent, Receipt
from fnm_bus.kafka import client
from fnm_bus.kafka.embedded_broker import EmbeddedBroker
from fnm_bus.kafka.reader import ConsumedRecord, TopicReader

BAN = HostEvent(receipt=Receipt(event_id="id"), action="ban", ip="192.0.2.1")
CODEC = Codec()


def settings(bootstrap: str) -> dict[str, str]:
    return {"bootstrap.servers": bootstrap, "allow.auto.create.topics": "true"}


def put(bootstrap: str, topic: str, partition: int) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(
        topic,
        CODEC.encode(BAN, topic),
        key="192.0.2.1",
        partition=partition,
        headers=[("ce_id", b"id")],
        timestamp=1_700_000_000_123,
    )
    assert producer.flush(30) == 0


def read_to_the_end(reader: TopicReader) -> list[ConsumedRecord]:
    records, end = [], time.monotonic() + 30
    while not reader.at_end:
        records += reader.read(0.2)
        assert time.monotonic() < end, "no end was seen"
    return records


def keep_reading(reader: TopicReader) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        list(reader.read(0.2))
        reader.check()


@pytest.fixture
def topic(embedded_broker: str) -> str:
    """A topic with one record in each of two partitions."""
    name = f"t{uuid4().hex[:8]}"
    for partition in (0, 1):
        put(embedded_broker, name, partition)
    return name


def test_all_partitions_are_read_from_the_beginning_to_the_end(
    embedded_broker: str, topic: str
) -> None:
    with TopicReader(
        settings(embedded_broker), [topic], CODEC, from_beginning=True, headers=True
    ) as reader:
        records = read_to_the_end(reader)
    assert sorted((record.partition, record.offset) for record in records) == [
        (0, 0),
        (1, 0),
    ]
    first = records[0]
    assert (first.event, first.error, first.topic) == (BAN, "", topic)
    assert (first.key, first.headers) == (b"192.0.2.1", (("ce_id", b"id"),))
    assert first.at.isoformat() == "2023-11-14T22:13:20.123000+00:00"


def test_without_from_beginning_only_new_records_are_read(
    embedded_broker: str, topic: str
) -> None:
    with TopicReader(settings(embedded_broker), [topic], CODEC) as reader:
        assert read_to_the_end(reader) == []
        put(embedded_broker, topic, 1)
        (record,) = next(filter(None, (list(reader.read(1)) for _ in range(30))))
    assert (record.partition, record.offset) == (1, 1)


def test_headers_are_read_on_request_only(embedded_broker: str, topic: str) -> None:
    with TopicReader(
        settings(embedded_broker), [topic], CODEC, from_beginning=True
    ) as reader:
        assert {record.headers for record in read_to_the_end(reader)} == {()}


@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed")
def test_a_record_with_an_invalid_header_name_has_no_headers(
    embedded_broker: str, topic: str
) -> None:
    """After N records, Python has specialized the call."""
    kcat = ["kcat", "-b", embedded_broker, "-P", "-t", topic, "-p", "0"]
    for name, count in ((b"a=1", 100), (b"\xff=1", 1), (b"b=2", 1)):
        values = b"garbage\n" * count
        subprocess.run(
            [*kcat, "-H", os.fsdecode(name)], input=values, check=True, timeout=30
        )
    with TopicReader(
        settings(embedded_broker), [topic], CODEC, from_beginning=True, headers=True
    ) as reader:
        records = [
            record for record in read_to_the_end(reader) if record.partition == 0
        ]
    assert [record.headers for record in records[-3:]] == [
        (("a", b"1"),),
        (),
        (("b", b"2"),),
    ]


def test_reading_commits_nothing(embedded_broker: str, topic: str) -> None:
    for _ in range(2):
        with TopicReader(
            settings(embedded_broker), [topic], CODEC, from_beginning=True
        ) as reader:
            assert len(read_to_the_end(reader)) == 2


def test_an_unreachable_broker_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client, "_REQUEST_TIMEOUT", 1.0)
    caplog.set_level(logging.WARNING)
    with EmbeddedBroker() as broker:
        put(broker.bootstrap, "t", 0)
        reader = TopicReader(settings(broker.bootstrap), ["t"], CODEC)
        reader.__enter__()
    try:
        with pytest.raises(BrokerUnavailable, match="no broker reachable"):
            keep_reading(reader)
    finally:
        reader.__exit__(None, None, None)
    assert "{'error': 'no broker reachable: " in caplog.text


def test_a_setting_that_librdkafka_refuses_is_named() -> None:
    reader = TopicReader({"colour": "blue"}, ["t"], CODEC)
    with pytest.raises(ConfigError, match=r"\[kafka\]: .*colour"):
        reader.__enter__()
