"""A group member whose right to read a topic was revoked."""

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
    """Replaces librdkafka's consumer."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.sought: list[tuple[str, int, int]] = []

    def poll(self, _seconds: float) -> Message:
        return self.messages.pop(0)

    def seek(self, at: TopicPartition) -> None:
        self.sought.append((at.topic, at.partition, at.offset))


class DeniedMember:
    """A member that has read one partition to its end, and is then refused."""

    def __init__(self) -> None:
        nothing: Any = lambda *_: None  # noqa: E731 - a callback without effect
        self.member = GroupMember(
            {},
            "g",
            ["events"],
            on_record=nothing,
            before_revoke=nothing,
            on_removed=nothing,
        )
        self.consumer = Consumer()
        self.member._consumer = self.consumer  # type: ignore[assignment]  # all that is used
        self.member._unchecked_topics.clear()
        self.member._on_assign(None, [TopicPartition("events", 0)])  # type: ignore[arg-type]
        self.poll(END)
        self.poll(DENIED)

    def poll(self, error: KafkaError | None) -> None:
        self.consumer.messages.append(Message(error))
        assert self.member.poll(0.0)


@pytest.fixture
def denied() -> DeniedMember:
    return DeniedMember()


def test_a_revoked_read_right_is_a_refusal(denied: DeniedMember) -> None:
    assert "no Read right" in denied.member.refusals["events"]


@pytest.mark.parametrize("answer", [END, None])
def test_a_readable_topic_ends_its_refusal(
    denied: DeniedMember, answer: KafkaError | None
) -> None:
    denied.poll(answer)
    assert denied.member.refusals == {}


def test_a_refused_topic_is_fetched_again_from_the_same_offset(
    denied: DeniedMember,
) -> None:
    """librdkafka would not report again that an idle partition was read to its end."""
    denied.member.check()
    assert denied.consumer.sought == [("events", 0, 7)]


def test_a_refusal_ends_with_the_last_partition_of_its_topic(
    denied: DeniedMember,
) -> None:
    denied.member._on_lost(None, [TopicPartition("events", 0)])  # type: ignore[arg-type]
    assert denied.member.refusals == {}
