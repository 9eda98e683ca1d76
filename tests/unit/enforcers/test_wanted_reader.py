"""The reading threads: they restart, resume, and have bounded queues."""

import queue
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Self

import pytest
from support.process import wait_until

from consumers.enforcers import wanted_reader
from consumers.enforcers.wanted_reader import PartitionsAdded, TopicEnd, TopicFollower
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import (
    BrokerUnavailable,
    ConfigError,
    ConnectionRejected,
    TopicRefused,
)
from fnm_bus.kafka.client import ConnectionState
from fnm_bus.kafka.reader import ConsumedRecord


class FakeTopicReader:
    """A fake of `ResumingReader` that returns records and raises exceptions.

    Attributes:
        at_end: whether the topic was read to its end.
        opened: number of times that a reader was opened.
        error: raised by each reading while it is set.
        partitions: number of the topic's partitions.
        grown: whether a partition was added.
        connection: the state of the connection to the brokers.
    """

    def __init__(self) -> None:
        self.items: queue.Queue[ConsumedRecord | BaseException] = queue.Queue()
        self.at_end = True
        self.opened = 0
        self.error: BaseException | None = None
        self.grown = False
        self.partitions = 1
        self.connection = ConnectionState({})

    def __enter__(self) -> Self:
        self.opened += 1
        self.partitions += self.grown
        self.grown = False
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def has_grown(self) -> bool:
        return self.grown

    def read(self, _seconds: float) -> Iterator[ConsumedRecord]:
        if self.error is not None:
            raise self.error
        try:
            item = self.items.get(timeout=0.02)
        except queue.Empty:
            return
        if isinstance(item, BaseException):
            raise item
        yield item


def record(offset: int) -> ConsumedRecord:
    return ConsumedRecord("t", 0, offset, datetime.now(UTC), b"k", (), b"v", None, "")


@pytest.fixture
def topic_reader(monkeypatch: pytest.MonkeyPatch) -> FakeTopicReader:
    fake = FakeTopicReader()
    monkeypatch.setattr(TopicFollower, "_open", lambda _self: fake)
    monkeypatch.setattr(wanted_reader, "_RESTART_PAUSE", 0.05)
    return fake


@pytest.fixture
def follower(topic_reader: FakeTopicReader) -> Iterator[TopicFollower]:
    del topic_reader  # the follower opens the fake
    follower = TopicFollower({}, "t", Codec(), from_beginning=True)
    follower.start()
    yield follower
    follower.stop()


def take_items(follower: TopicFollower, count: int) -> list[Any]:
    items: list[Any] = []

    def has_enough() -> bool:
        items.extend(follower.take(0.02))
        return len(items) >= count

    wait_until(has_enough, 10, f"{count} items")
    return items


@pytest.mark.parametrize("error", [RuntimeError("a bug"), MemoryError(), SystemExit()])
def test_failed_reading_is_unhealthy_until_it_succeeds_again(
    topic_reader: FakeTopicReader, follower: TopicFollower, error: BaseException
) -> None:
    assert take_items(follower, 1) == [TopicEnd()]
    assert follower.is_healthy
    topic_reader.error = error
    wait_until(lambda: not follower.is_healthy, 10, "a failure")
    topic_reader.error = None
    topic_reader.items.put(record(7))
    (items,) = take_items(follower, 1)
    assert items.offset == 7
    wait_until(lambda: follower.is_healthy, 10, "a thread that reads")
    assert topic_reader.opened == follower.restarts + 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_ended_thread_is_started_again(
    topic_reader: FakeTopicReader,
    follower: TopicFollower,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert take_items(follower, 1) == [TopicEnd()]
    thread: Any = follower._thread
    with monkeypatch.context() as patch:
        patch.setattr(wanted_reader, "log", None)
        topic_reader.items.put(RuntimeError("a bug"))
        wait_until(lambda: not thread.is_alive(), 10, "the end of the thread")
    topic_reader.items.put(record(7))
    assert [item.offset for item in take_items(follower, 1)] == [7]
    wait_until(lambda: follower.is_healthy, 10, "a thread that reads")
    assert follower.restarts == 1


def test_unreachable_kafka_keeps_follower_healthy(
    topic_reader: FakeTopicReader, follower: TopicFollower
) -> None:
    assert take_items(follower, 1) == [TopicEnd()]
    topic_reader.items.put(BrokerUnavailable("no answer"))
    topic_reader.items.put(record(7))
    assert [item.offset for item in take_items(follower, 1)] == [7]
    assert follower.is_healthy
    assert follower.restarts == 0


def test_rejected_credentials_make_follower_unhealthy(
    topic_reader: FakeTopicReader, follower: TopicFollower
) -> None:
    for _ in range(10):
        topic_reader.items.put(ConnectionRejected("unknown user or wrong password"))
    wait_until(lambda: follower.problem != "", 10, "a connection that is rejected")
    assert not follower.is_healthy
    wait_until(lambda: follower.is_healthy, 10, "a connection that is accepted")
    assert follower.problem == ""


def test_connection_rejected_during_reading_makes_follower_unhealthy(
    topic_reader: FakeTopicReader, follower: TopicFollower
) -> None:
    topic_reader.connection.error = ConnectionRejected("wrong password")
    wait_until(lambda: not follower.is_healthy, 10, "a connection that is rejected")
    topic_reader.connection.mark_connected()
    wait_until(lambda: follower.is_healthy, 10, "a connection that is accepted")


def test_refused_topic_makes_follower_unhealthy(
    topic_reader: FakeTopicReader, follower: TopicFollower
) -> None:
    assert take_items(follower, 1) == [TopicEnd()]
    for _ in range(20):
        topic_reader.items.put(TopicRefused("t: unknown"))
    wait_until(lambda: not follower.is_healthy, 10, "a topic that is refused")
    wait_until(lambda: follower.is_healthy, 10, "a topic that can be read again")
    assert follower.restarts == 0


def test_topic_with_added_partitions_is_opened_again(
    topic_reader: FakeTopicReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wanted_reader, "_PARTITION_CHECK_INTERVAL", 0.0)
    follower = TopicFollower({}, "t", Codec(), from_beginning=True)
    follower.start()
    assert take_items(follower, 1) == [TopicEnd()]
    topic_reader.grown = True
    wait_until(lambda: topic_reader.opened >= 2, 10, "another connection")
    assert follower.is_healthy
    follower.stop()


def test_added_partitions_are_reported_before_their_records(
    topic_reader: FakeTopicReader, follower: TopicFollower
) -> None:
    assert take_items(follower, 1) == [TopicEnd()]
    topic_reader.grown = True
    topic_reader.items.put(BrokerUnavailable("no answer"))
    topic_reader.items.put(record(7))
    more, read, end = take_items(follower, 3)
    assert (more, read.offset, end) == (PartitionsAdded(), 7, TopicEnd())


def test_late_tombstone_requires_another_partition_check(
    topic_reader: FakeTopicReader,
    follower: TopicFollower,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kafka was unreachable, or the machine was suspended, while the topic grew."""
    assert take_items(follower, 1) == [TopicEnd()]
    topic_reader.grown = True
    monkeypatch.setattr(wanted_reader, "_PARTITION_CHECK_INTERVAL", 0.0)
    tombstone = record(7)._replace(value=None)
    topic_reader.items.put(tombstone)
    assert take_items(follower, 1)[0] == PartitionsAdded()
    assert topic_reader.opened == 2


def test_topic_end_is_reported_once(
    topic_reader: FakeTopicReader, follower: TopicFollower
) -> None:
    assert take_items(follower, 1) == [TopicEnd()]
    topic_reader.items.put(BrokerUnavailable("no answer"))
    wait_until(lambda: topic_reader.opened == 2, 10, "another connection")
    topic_reader.items.put(record(1))
    assert TopicEnd() not in take_items(follower, 1)


def test_configuration_error_is_raised(
    topic_reader: FakeTopicReader, follower: TopicFollower
) -> None:
    topic_reader.items.put(ConfigError("[kafka]"))
    with pytest.raises(ConfigError):
        wait_until(lambda: follower.take(0.02) is None, 10, "the error")


def test_queue_is_bounded(
    topic_reader: FakeTopicReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wanted_reader, "_MAX_QUEUED", 3)
    follower = TopicFollower({}, "t", Codec(), from_beginning=True)
    for number in range(10):
        topic_reader.items.put(record(number))
    follower.start()
    wait_until(follower._queue.full, 10, "a full queue")
    assert topic_reader.items.qsize() >= 5
    items = take_items(follower, 11)
    follower.stop()
    assert [item.offset for item in items if item != TopicEnd()] == list(range(10))
