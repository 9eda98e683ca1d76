"""A topic scan ends with any partitions and records."""

from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition

from consumers.mitigation import topic_scan
from consumers.mitigation.topic_scan import scan_topics
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import BrokerUnavailable
from fnm_bus.event import Mitigation


class Message:
    """A record, or the end of a partition."""

    def __init__(
        self,
        partition: int,
        key: bytes | None = None,
        stamp: int = 0,
        value: bytes | None = b"v",
    ) -> None:
        self._place, self._key, self._stamp = partition, key, stamp
        self._value = value

    def error(self) -> KafkaError | None:
        ended = self._key is None
        return KafkaError(KafkaError._PARTITION_EOF) if ended else None

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return self._place

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def offset(self) -> int:
        return 0

    def timestamp(self) -> tuple[int, int]:
        return 2, self._stamp


class Consumer:
    """A fake consumer of a topic with two partitions.

    Attributes:
        messages: that it returns, once.
    """

    messages: tuple[Message, ...] = ()

    def __init__(self, *_arguments: object) -> None:
        self._left = list(self.messages)

    def list_topics(self, topic: str, timeout: float) -> Any:
        assert timeout > 0
        metadata = SimpleNamespace(error=None, partitions={0: None, 1: None})
        return SimpleNamespace(topics={topic: metadata})

    def assign(self, parts: list[TopicPartition]) -> None:
        assert len(parts) == 2

    def poll(self, _timeout: float) -> None:
        pass

    def consume(self, _most: int, _timeout: float) -> list[Message]:
        left, self._left = self._left, []
        return left

    def close(self) -> None:
        pass


@pytest.fixture
def consumer(monkeypatch: pytest.MonkeyPatch) -> type[Consumer]:
    monkeypatch.setattr(topic_scan, "build_reader", Consumer)
    monkeypatch.setattr(topic_scan, "_STALLED", 0.2)
    return Consumer


def test_partition_without_a_leader_is_an_error(
    consumer: type[Consumer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "messages", (Message(0, b"k"), Message(0)))
    moments = count()
    monkeypatch.setattr(topic_scan, "monotonic", lambda: next(moments) / 100)
    with pytest.raises(BrokerUnavailable, match=r"t/1"):
        scan_topics({}, ["t"], lambda: next(moments) >= 9_999)


def test_traffic_of_one_partition_hides_no_stalled_partition(
    consumer: type[Consumer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "consume", lambda *_: [Message(0, b"k")])
    moments = count()
    monkeypatch.setattr(topic_scan, "monotonic", lambda: next(moments) / 100)
    with pytest.raises(BrokerUnavailable, match=r"from t/1$"):
        scan_topics({}, ["t"], lambda: next(moments) >= 9_999)


@pytest.mark.parametrize("stamp", [2**62, -(2**62), -1, 0])
def test_records_with_an_impossible_time_are_read(
    consumer: type[Consumer], monkeypatch: pytest.MonkeyPatch, stamp: int
) -> None:
    messages = (Message(0, b"k", stamp), Message(0), Message(1))
    monkeypatch.setattr(consumer, "messages", messages)
    assert scan_topics({}, ["t"]).latest["t"][b"k"].value == b"v"


def test_of_two_partitions_the_later_record_counts(
    consumer: type[Consumer], monkeypatch: pytest.MonkeyPatch
) -> None:
    new, old = Message(0, b"k", 9, b"new"), Message(1, b"k", 5, b"old")
    monkeypatch.setattr(consumer, "messages", (new, Message(0), old, Message(1)))
    assert scan_topics({}, ["t"]).latest["t"][b"k"].value == b"new"


def test_within_a_partition_only_the_order_counts(
    consumer: type[Consumer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader whose clock is behind continues a partition with earlier times."""
    first, last = Message(0, b"k", 9, b"first"), Message(0, b"k", 5, b"last")
    monkeypatch.setattr(consumer, "messages", (first, last, Message(0), Message(1)))
    assert scan_topics({}, ["t"]).latest["t"][b"k"].value == b"last"


def test_where_older_records_of_a_key_are_is_known(
    consumer: type[Consumer], monkeypatch: pytest.MonkeyPatch
) -> None:
    new, old = Message(0, b"k", 9, b"new"), Message(1, b"k", 5, b"old")
    monkeypatch.setattr(consumer, "messages", (new, Message(0), old, Message(1)))
    scan = scan_topics({}, ["t"])
    assert scan.others == {"t": {b"k": (1,)}}
    assert scan.partitions == {"t": 2}


@pytest.mark.parametrize("order", [1, -1])
def test_at_one_time_the_higher_revision_counts(
    consumer: type[Consumer], monkeypatch: pytest.MonkeyPatch, order: int
) -> None:
    values = [Codec().encode(Mitigation(revision=number), "t") for number in (1, 2)]
    both = [Message(part, b"k", 5, value) for part, value in enumerate(values)][::order]
    monkeypatch.setattr(consumer, "messages", (*both, Message(0), Message(1)))
    assert scan_topics({}, ["t"]).latest["t"][b"k"].value == values[1]


def test_records_from_an_offset_on_do_not_count(
    consumer: type[Consumer], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, new = Message(0, b"read"), Message(1, b"new")
    monkeypatch.setattr(consumer, "messages", (read, new, Message(0), Message(1)))
    scan = scan_topics({}, ["t"], below={0: 1, 1: 0})
    assert scan.latest["t"].keys() == {b"read"}


@pytest.mark.parametrize("order", [1, -1])
def test_tombstone_ends_only_its_own_partitions_record(
    consumer: type[Consumer], monkeypatch: pytest.MonkeyPatch, order: int
) -> None:
    """The mitigator writes it to where the key was, after the key has moved."""
    left = [Message(0, b"k", 5, b"old"), Message(0, b"k", 9, None)]
    moved = [Message(1, b"k", 7, b"new")]
    messages = [*left, *moved] if order == 1 else [*moved, *left]
    monkeypatch.setattr(consumer, "messages", (*messages, Message(0), Message(1)))
    scan = scan_topics({}, ["t"])
    assert scan.latest["t"][b"k"].value == b"new"
    assert scan.others == {"t": {}}
