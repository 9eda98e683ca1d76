"""Records with unusual headers, and readers with silent partitions."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from fnm_bus.avro.codec import Codec
from fnm_bus.errors import BrokerUnavailable
from fnm_bus.kafka.dead_letter import build_dead_letter
from fnm_bus.kafka.reader import TopicReader, decode_record, raw_record, record_headers


class Odd:
    """A message whose header has a name that is no UTF-8.

    confluent-kafka then raises SystemError once, and returns names that are NULL after.
    """

    def headers(self) -> Any:
        raise SystemError("returned a result with an exception set")

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return 7

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_700_000_000_000

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes:
        return b"v"


class Untouchable(Odd):
    """A message whose headers must not be asked for."""

    def headers(self) -> Any:
        pytest.fail("headers were read")


def test_headers_are_read_only_on_request() -> None:
    read = raw_record(Untouchable())  # type: ignore[arg-type]  # only these methods are used
    assert read.headers == ()


def test_unreadable_headers_are_omitted() -> None:
    odd: Any = Odd()
    read = raw_record(odd)
    assert record_headers(odd) == ()
    assert (read.topic, read.partition, read.offset, read.key) == ("t", 3, 7, b"k")
    assert read.value == b"v"
    assert read.headers == ()
    assert decode_record(read, Codec()).error


def test_a_record_with_such_headers_can_become_a_dead_letter() -> None:
    letter = build_dead_letter(Odd(), "why", 1, "p")  # type: ignore[arg-type]  # as above
    assert letter.origin_offset == 7


def test_valid_headers_are_returned_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Odd, "headers", lambda _self: [("a", b"1"), ("a", None)])
    odd: Any = Odd()
    assert record_headers(odd) == (("a", b"1"), ("a", None))


class Busy:
    """Replaces librdkafka's consumer: partition 3 of two has all the traffic."""

    def __init__(self, *_settings: object) -> None:
        pass

    def list_topics(self, topic: str, timeout: float) -> Any:
        assert timeout > 0
        known = SimpleNamespace(error=None, partitions={3: None, 99: None})
        return SimpleNamespace(topics={topic: known})

    def assign(self, parts: list[Any]) -> None:
        assert len(parts) == 2

    def poll(self, _timeout: float) -> Any:
        return Message()

    def close(self) -> None:
        pass


class Message(Odd):
    """A record of partition 3."""

    def error(self) -> None:
        return None


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Iterator[TopicReader]:
    monkeypatch.setattr("fnm_bus.kafka.reader.build_reader", Busy)
    with TopicReader({}, ["t"], Codec(), from_beginning=True) as reader:
        yield reader


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Advance the monotonic clock a second with each call."""
    passed = [0.0]

    def monotonic() -> float:
        passed[0] += 1.0
        return passed[0]

    monkeypatch.setattr("fnm_bus.kafka.reader.monotonic", monotonic)
    return passed


def test_traffic_of_one_partition_hides_no_leaderless_one(
    busy: TopicReader, moments: list[float]
) -> None:
    del moments
    for _ in busy.read(100.0):
        pass
    with pytest.raises(BrokerUnavailable, match=r"from t\[99\]$"):
        busy.check()


def test_a_slow_caller_does_not_count_as_silence(
    busy: TopicReader, moments: list[float]
) -> None:
    next(busy.read(100.0))
    moments[0] += 600.0
    next(busy.read(100.0))
    busy.check()
