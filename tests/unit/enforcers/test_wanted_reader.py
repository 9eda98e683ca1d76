"""The threads that read: they start again, resume, and never grow."""

import queue
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Self

import pytest
from confluent_kafka import OFFSET_BEGINNING
from support.process import wait_until

from consumers.enforcers import wanted_reader
from consumers.enforcers.wanted_reader import (
    CommandReader,
    PartitionsAdded,
    TopicEnd,
    TopicFollower,
    WantedStateReader,
)
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import (
    BrokerUnavailable,
    ConfigError,
    ConnectionRejected,
    TopicRefused,
)
from fnm_bus.kafka.client import ConnectionState
from fnm_bus.kafka.reader import ConsumedRecord, TopicReader


class Script:
    """Stands in for `Reader`: gives what a test puts, and raises exceptions.

    Attributes:
        at_end: whether the topic was read to its end.
        opened: how often a reader was opened.
        partitions: how many the topic had then.
        grown: whether the topic was given more partitions.
        connection: what the reader knows of its way to the brokers.
    """

    def __init__(self) -> None:
        self.items: queue.Queue[ConsumedRecord | BaseException] = queue.Queue()
        self.at_end = True
        self.opened = 0
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
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    made = Script()
    monkeypatch.setattr(TopicFollower, "_open", lambda _self: made)
    monkeypatch.setattr(wanted_reader, "_RESTART_PAUSE", 0.05)
    return made


@pytest.fixture
def follower(script: Script) -> Iterator[WantedStateReader]:
    del script  # it is what the follower opens
    made = WantedStateReader({}, "t", Codec())
    made.start()
    yield made
    made.stop()


def taken(follower: TopicFollower, count: int) -> list[Any]:
    found: list[Any] = []

    def enough() -> bool:
        found.extend(follower.take(0.02))
        return len(found) >= count

    wait_until(enough, 10, f"{count} items")
    return found


@pytest.mark.parametrize("error", [RuntimeError("a bug"), MemoryError()])
def test_a_thread_that_fails_is_unhealthy_until_it_reads_again(
    script: Script, follower: WantedStateReader, error: BaseException
) -> None:
    assert taken(follower, 1) == [TopicEnd()]
    assert follower.healthy
    script.items.put(error)
    wait_until(lambda: not follower.healthy, 10, "the end of the thread")
    script.items.put(record(7))
    (found,) = taken(follower, 1)
    assert found.offset == 7
    wait_until(lambda: follower.healthy, 10, "a thread that reads")
    assert script.opened == 2
    assert follower.restarts == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_without_an_exception_is_started_again(
    script: Script, follower: WantedStateReader
) -> None:
    assert taken(follower, 1) == [TopicEnd()]
    script.items.put(SystemExit())
    wait_until(lambda: not follower.healthy, 10, "the end of the thread")
    script.items.put(record(7))
    assert [it.offset for it in taken(follower, 1)] == [7]
    wait_until(lambda: follower.healthy, 10, "a thread that reads")


def test_kafka_that_is_unreachable_is_no_fault_of_the_thread(
    script: Script, follower: WantedStateReader
) -> None:
    assert taken(follower, 1) == [TopicEnd()]
    script.items.put(BrokerUnavailable("nobody answers"))
    script.items.put(record(7))
    assert [it.offset for it in taken(follower, 1)] == [7]
    assert follower.healthy
    assert follower.restarts == 0


def test_rejected_credentials_make_it_unhealthy(
    script: Script, follower: WantedStateReader
) -> None:
    for _ in range(10):
        script.items.put(ConnectionRejected("unknown user or wrong password"))
    wait_until(lambda: follower.problem != "", 10, "a connection that is rejected")
    assert not follower.healthy
    wait_until(lambda: follower.healthy, 10, "a connection that is accepted")
    assert follower.problem == ""


def test_a_connection_that_is_rejected_while_it_reads_makes_it_unhealthy(
    script: Script, follower: WantedStateReader
) -> None:
    script.connection.error = ConnectionRejected("wrong password")
    wait_until(lambda: not follower.healthy, 10, "a connection that is rejected")
    script.connection.answered()
    wait_until(lambda: follower.healthy, 10, "a connection that is accepted")


def test_a_topic_that_must_not_be_read_makes_it_unhealthy(
    script: Script, follower: WantedStateReader
) -> None:
    assert taken(follower, 1) == [TopicEnd()]
    for _ in range(20):
        script.items.put(TopicRefused("t: unknown"))
    wait_until(lambda: not follower.healthy, 10, "a topic that is refused")
    wait_until(lambda: follower.healthy, 10, "a topic that can be read again")
    assert follower.restarts == 0


def test_a_topic_with_more_partitions_is_opened_again(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wanted_reader, "_PARTITION_CHECK_INTERVAL", 0.0)
    follower = WantedStateReader({}, "t", Codec())
    follower.start()
    assert taken(follower, 1) == [TopicEnd()]
    script.grown = True
    wait_until(lambda: script.opened >= 2, 10, "another connection")
    assert follower.healthy
    follower.stop()


def test_more_partitions_are_reported_before_their_records_and_then_the_end(
    script: Script, follower: WantedStateReader
) -> None:
    assert taken(follower, 1) == [TopicEnd()]
    script.grown = True
    script.items.put(BrokerUnavailable("nobody answers"))
    script.items.put(record(7))
    more, read, end = taken(follower, 3)
    assert (more, read.offset, end) == (PartitionsAdded(), 7, TopicEnd())


def test_a_tombstone_long_after_the_last_look_is_read_after_another_one(
    script: Script, follower: WantedStateReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka was unreachable, or the machine was suspended, while the topic grew."""
    assert taken(follower, 1) == [TopicEnd()]
    script.grown = True
    monkeypatch.setattr(wanted_reader, "_PARTITION_CHECK_INTERVAL", 0.0)
    tombstone = record(7)._replace(value=None)
    script.items.put(tombstone)
    assert taken(follower, 1)[0] == PartitionsAdded()
    assert script.opened == 2


def test_the_end_of_the_topic_is_reported_once(
    script: Script, follower: WantedStateReader
) -> None:
    assert taken(follower, 1) == [TopicEnd()]
    script.items.put(BrokerUnavailable("nobody answers"))
    wait_until(lambda: script.opened == 2, 10, "another connection")
    script.items.put(record(1))
    assert TopicEnd() not in taken(follower, 1)


def test_a_wrong_configuration_ends_the_program(
    script: Script, follower: WantedStateReader
) -> None:
    script.items.put(ConfigError("[kafka]"))
    with pytest.raises(ConfigError):
        wait_until(lambda: follower.take(0.02) is None, 10, "the error")


def test_the_queue_is_bounded(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wanted_reader, "_MAX_QUEUED", 3)
    follower = WantedStateReader({}, "t", Codec())
    for number in range(10):
        script.items.put(record(number))
    follower.start()
    wait_until(follower._queue.full, 10, "a full queue")
    assert script.items.qsize() >= 5
    found = taken(follower, 11)
    follower.stop()
    assert [it.offset for it in found if it != TopicEnd()] == list(range(10))


class _Consumer:
    """Stands in for librdkafka's, for the partitions of a reader."""

    def __init__(self, end: int) -> None:
        self._end = end

    def get_watermark_offsets(self, _place: Any, timeout: float) -> tuple[int, int]:
        assert timeout > 0
        return 0, self._end


class _Place:
    def __init__(self, partition: int = 0) -> None:
        self.topic, self.partition, self.offset = "t", partition, -99


@pytest.mark.parametrize(
    ("kind", "first"), [(WantedStateReader, -99), (CommandReader, 40)]
)
def test_a_new_connection_goes_on_where_the_last_one_was(
    monkeypatch: pytest.MonkeyPatch, kind: type[Any], first: int
) -> None:
    monkeypatch.setattr(TopicReader, "_of", lambda *_: [_Place()])
    follower = kind({}, "t", Codec())

    def begins(end: int) -> int:
        (place,) = follower._open()._of(_Consumer(end), "t")
        return int(place.offset)

    assert begins(40) == first
    # A lost connection skips no command that was published meanwhile.
    assert begins(45) == first
    follower._positions["t", 0] = 43
    assert begins(50) == 43


@pytest.mark.parametrize("kind", [WantedStateReader, CommandReader])
def test_a_partition_that_is_new_is_read_from_its_beginning(
    monkeypatch: pytest.MonkeyPatch, kind: type[Any]
) -> None:
    places = [_Place()]
    monkeypatch.setattr(TopicReader, "_of", lambda *_: places)
    follower = kind({}, "t", Codec())
    reader = follower._open()
    reader._of(_Consumer(40), "t")
    follower._was_open = True
    monkeypatch.setattr(reader, "_consumer", object())
    assert not reader.has_grown()
    places.append(_Place(1))
    assert reader.has_grown()
    (_, new) = follower._open()._of(_Consumer(40), "t")
    assert new.offset == (-99 if kind is WantedStateReader else OFFSET_BEGINNING)


def test_a_first_connection_that_fails_obeys_no_old_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(TopicReader, "_of", lambda *_: [_Place(), _Place(1)])
    follower = CommandReader({}, "t", Codec())
    follower._positions["t", 0] = 40  # of the other partition nothing is known yet
    (_, other) = follower._open()._of(_Consumer(50), "t")
    assert other.offset == 50


def test_a_follower_that_was_not_started_is_not_unhealthy() -> None:
    assert CommandReader({}, "t", Codec()).healthy
