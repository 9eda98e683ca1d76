"""Commits: offsets on their way to Kafka, one commit at a time."""

import logging
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from fnm_bus.consume.partition import PartitionState

log = logging.getLogger(__name__)


class OffsetCommitter:
    """Commits what is done, until Kafka has it.

    Args:
        parts: the partitions that are ours, by topic and number.

    Attributes:
        asked: whether a commit has no answer yet.
    """

    def __init__(self, parts: Mapping[tuple[str, int], PartitionState]) -> None:
        self._parts = parts
        self.asked = False

    def wanted(self) -> list[TopicPartition]:
        """Return what can be committed and was not."""
        return [
            TopicPartition(it.topic, it.number, offset)
            for it in self._parts.values()
            if (offset := it.progress.committable) is not None
        ]

    def commit(self, consumer: Consumer, *, now: bool) -> None:
        """Commit what is done; *now* waits for the answer.

        Without *now* one commit is under way at a time, so a broker that is away makes
        no heap of them.
        """
        offsets = self.wanted()
        if not offsets or (self.asked and not now):
            return
        try:
            if now:
                for it in consumer.commit(offsets=offsets, asynchronous=False) or ():
                    self._confirm(it)
            else:
                consumer.commit(offsets=offsets, asynchronous=True)
                self.asked = True
        except KafkaException as exc:
            _told(exc.args[0])

    def answered(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        """Take the answer to a commit that nobody waited for."""
        self.asked = False
        if error is not None:
            _told(error)
            return
        for it in offsets:
            self._confirm(it)

    def _confirm(self, it: TopicPartition) -> None:
        part = self._parts.get((it.topic, it.partition))
        if it.error is not None:
            _told(it.error)
        elif part is not None:
            part.progress.confirm(it.offset)


def _told(error: KafkaError) -> None:
    # What is done and not committed is read again, and done once more; the next commit
    # says all of it anyhow.
    log.warning("offsets are not committed yet: %s", error.str())
