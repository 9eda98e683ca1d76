"""The positions at which a reader starts, and added partitions."""

from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING

from consumers.enforcers.wanted_reader import TopicFollower
from fnm_bus.avro.codec import Codec
from fnm_bus.kafka.reader import TopicReader


class FakeConsumer:
    """A fake of librdkafka's consumer with one end for each partition."""

    def __init__(self, end: int) -> None:
        self._end = end

    def get_watermark_offsets(self, _partition: Any, timeout: float) -> tuple[int, int]:
        assert timeout > 0
        return 0, self._end


class FakePartition:
    def __init__(self, partition: int = 0) -> None:
        self.topic, self.partition, self.offset = "t", partition, -99


@pytest.mark.parametrize(("from_beginning", "first"), [(True, -99), (False, 40)])
def test_new_connection_resumes_at_last_offset(
    monkeypatch: pytest.MonkeyPatch, *, from_beginning: bool, first: int
) -> None:
    monkeypatch.setattr(TopicReader, "_partitions", lambda *_: [FakePartition()])
    follower = TopicFollower({}, "t", Codec(), from_beginning=from_beginning)

    def first_offset(end: int) -> int:
        (partition,) = follower._open()._partitions(FakeConsumer(end), "t")
        return int(partition.offset)

    assert first_offset(40) == first
    # A lost connection skips no command that was published meanwhile.
    assert first_offset(45) == first
    follower._positions["t", 0] = 43
    assert first_offset(50) == 43


@pytest.mark.parametrize("from_beginning", [True, False])
def test_added_partition_is_read_from_its_beginning(
    monkeypatch: pytest.MonkeyPatch, *, from_beginning: bool
) -> None:
    partitions = [FakePartition()]
    monkeypatch.setattr(TopicReader, "_partitions", lambda *_: partitions)
    follower = TopicFollower({}, "t", Codec(), from_beginning=from_beginning)
    reader = follower._open()
    reader._partitions(FakeConsumer(40), "t")
    follower._was_open = True
    monkeypatch.setattr(reader, "_consumer", object())
    assert not reader.has_grown()
    partitions.append(FakePartition(1))
    assert reader.has_grown()
    (_, new) = follower._open()._partitions(FakeConsumer(40), "t")
    assert new.offset == (-99 if from_beginning else OFFSET_BEGINNING)


def test_partition_without_position_skips_old_commands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        TopicReader, "_partitions", lambda *_: [FakePartition(), FakePartition(1)]
    )
    follower = TopicFollower({}, "t", Codec(), from_beginning=False)
    follower._positions["t", 0] = 40  # the other partition has no position
    (_, other) = follower._open()._partitions(FakeConsumer(50), "t")
    assert other.offset == 50
