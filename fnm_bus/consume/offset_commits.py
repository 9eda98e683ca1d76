"""Commit offsets to Kafka, one asynchronous commit at a time."""

from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from fnm_bus.consume.partition import PartitionState
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)


class OffsetCommitter:
    """Commits the offsets of finished records until Kafka has confirmed them.

    Args:
        partitions: the assigned partitions, by topic and number.

    Attributes:
        is_pending: whether Kafka has not answered the last commit yet.
    """

    def __init__(self, partitions: Mapping[tuple[str, int], PartitionState]) -> None:
        self._partitions = partitions
        self.is_pending = False

    def uncommitted(self) -> list[TopicPartition]:
        """Return the offsets that can be committed and are not."""
        return [
            TopicPartition(partition.topic, partition.number, offset)
            for partition in self._partitions.values()
            if (offset := partition.offsets.committable) is not None
        ]

    def commit(self, consumer: Consumer, *, now: bool) -> None:
        """Commit the offsets of finished records; *now* waits for the answer.

        Without *now* only one commit is pending at a time, so commits do not pile up
        while no broker is reachable.
        """
        offsets = self.uncommitted()
        if not offsets or (self.is_pending and not now):
            return
        try:
            if now:
                answer = consumer.commit(offsets=offsets, asynchronous=False)
                for committed in answer or ():
                    self._confirm(committed)
            else:
                consumer.commit(offsets=offsets, asynchronous=True)
                self.is_pending = True
        except KafkaException as exc:
            _log_failure(exc.args[0])

    def on_commit(
        self, error: KafkaError | None, offsets: list[TopicPartition]
    ) -> None:
        """Process the answer to an asynchronous commit."""
        self.is_pending = False
        if error is not None:
            _log_failure(error)
            return
        for committed in offsets:
            self._confirm(committed)

    def _confirm(self, committed: TopicPartition) -> None:
        partition = self._partitions.get((committed.topic, committed.partition))
        if committed.error is not None:
            _log_failure(committed.error)
        elif partition is not None:
            partition.offsets.mark_committed(committed.offset)


def _log_failure(error: KafkaError) -> None:
    # The next commit contains these offsets, too; without one, records are read again.
    log.warning("commit_failed", error=error.str(), retried=True)
