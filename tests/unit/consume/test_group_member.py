"""A member of a group: topics that it may not read any more."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition

from fnm_bus.consume.group_member import GroupMember

DENIED = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
END = KafkaError(KafkaError._PARTITION_EOF)


class Message:
    """A record, an error, or the end of a partition."""

    def __init__(self, error: KafkaError | None, topic: str = "events") -> None:
        self._error, self._topic = error, topic

    def error(self) -> KafkaError | None:
        return self._error

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 7

    def timestamp(self) -> tuple[int, int]:
        return 1, 0

    def key(self) -> None:
        return None

    def value(self) -> bytes:
        return b"v"


class Consumer:
    """Stands in for librdkafka's."""

    def __init__(self) -> None:
        self.left: list[Message] = []
        self.sought: list[tuple[str, int, int]] = []

    def poll(self, _seconds: float) -> Message:
        return self.left.pop(0)

    def seek(self, at: TopicPartition) -> None:
        self.sought.append((at.topic, at.partition, at.offset))


class Bench:
    """A member that has read one partition to its end, and is then refused."""

    def __init__(self) -> None:
        nothing: Any = lambda *_: None  # noqa: E731 - no name would tell more
        self.it = GroupMember(
            {},
            "g",
            ["events"],
            on_record=nothing,
            before_revoke=nothing,
            on_removed=nothing,
        )
        self.consumer = Consumer()
        self.it._consumer = self.consumer  # type: ignore[assignment]  # all that is used
        self.it._unchecked_topics.clear()
        self.it._on_assign(None, [TopicPartition("events", 0)])  # type: ignore[arg-type]
        self.poll(END)
        self.poll(DENIED)

    def poll(self, error: KafkaError | None) -> None:
        self.consumer.left.append(Message(error))
        assert self.it.poll(0.0)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_right_to_read_that_was_taken_away_is_a_refusal(bench: Bench) -> None:
    assert "no Read right" in bench.it.refusals["events"]


@pytest.mark.parametrize("answer", [END, None])
def test_a_topic_that_can_be_read_again_is_no_refusal(
    bench: Bench, answer: KafkaError | None
) -> None:
    bench.poll(answer)
    assert bench.it.refusals == {}


def test_a_refused_topic_is_fetched_again_from_the_same_offset(bench: Bench) -> None:
    """librdkafka would not report again that an idle partition was read to its end."""
    bench.it.check()
    assert bench.consumer.sought == [("events", 0, 7)]


def test_a_refusal_goes_with_the_last_partition_of_its_topic(bench: Bench) -> None:
    bench.it._on_lost(None, [TopicPartition("events", 0)])  # type: ignore[arg-type]
    assert bench.it.refusals == {}
