"""Transaction: records and the offsets of their events, all or nothing.

Because of its fixed `transactional.id`, only the mitigator that opened last can write.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NoReturn

from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from consumers.errors import Fenced, RecordsRefused
from consumers.mitigation.clock import BrokerClock
from consumers.mitigation.clock import now as boottime
from consumers.mitigation.latest_record import partition_of
from consumers.mitigator.kafka.first_offsets import TIMEOUT
from consumers.mitigator.kafka.input_reader import (
    InputReader,
    PartitionId,
    partition_id,
)
from fnm_bus.errors import BrokerUnavailable
from fnm_bus.kafka.client import ConnectionState, build_producer
from fnm_bus.kafka.client_errors import access_error
from fnm_bus.kafka.names import WRITE
from fnm_bus.kafka.record import Record
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_ATTEMPTS: Final = 4
"""Commits that are tried; afterwards Kafka itself has aborted the transaction."""
_POLLS: Final = 10
"""Tenths of a second to wait for the answers to a failed transaction."""
_REFUSED: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.POLICY_VIOLATION,
        KafkaError.RECORD_LIST_TOO_LARGE,
    }
)
"""Errors of a record: the same record would be refused again."""
_PURGED: Final = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})  # noqa: SLF001 - their names


class TransactionalJournal:
    """One mitigator's transactions.

    Args:
        name: transactional id, and the group that keeps the offsets.
        clock: learns the broker's time from the answers to written records.
        compacted: topics with fixed numbers of partitions. Records go to their keys'
            partitions at `open`, until the state is read again.
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        name: str,
        topics: Sequence[str],
        clock: BrokerClock,
        compacted: Sequence[str] = (),
    ) -> None:
        self.inputs = InputReader(settings, name, topics)
        self._settings: dict[str, Any] = {
            **settings,
            "transactional.id": name,
            "transaction.timeout.ms": "30000",
            "linger.ms": "0",
        }
        self._settings.pop("group.protocol", None)
        self._name = name
        self._compacted = compacted
        self._counts: dict[str, int] = {}
        self._clock = clock
        self._producer: Producer | None = None
        self._connection = ConnectionState(self._settings)
        self._offsets: dict[PartitionId, int] = {}
        self._refused: tuple[KafkaError, str] | None = None

    def open(self, since: datetime | None) -> None:
        """Open the inputs as `InputReader.open` does; nothing is written."""
        # The first commit includes them: they show the owner of the transactional id.
        self._offsets |= self.inputs.open(since)
        self._counts = {
            topic: len(self.inputs.partitions(topic, is_new=True))
            for topic in self._compacted
        }

    def fence(self) -> None:
        """Exclude the mitigator that wrote before.

        Raises:
            ConfigError: librdkafka refuses the settings.
            Fenced: Kafka does not answer, or refuses.
        """
        self._producer = build_producer(self._settings, self._connection)
        try:
            self._producer.init_transactions(30)
        except KafkaException as exc:
            error = exc.args[0]
            raise access_error(
                error, self._settings, group=self._name, transactional_id=self._name
            ) or Fenced(f"no transactions: {error.str()}") from exc

    def check_partitions(self) -> None:
        """Check that no topic has other partitions than at `open`.

        Raises:
            BrokerUnavailable: a topic has other partitions, or no broker answers.
            TopicRefused: a topic was deleted.
        """
        self.inputs.check_partitions()
        self.check_counts(
            {topic: len(self.inputs.partitions(topic)) for topic in self._counts}
        )

    def check_counts(self, counts: Mapping[str, int]) -> None:
        """Check that compacted topics have these numbers of partitions.

        Raises:
            BrokerUnavailable: a topic had another number at `open`.
        """
        for topic, count in self._counts.items():
            if counts[topic] != count:
                raise BrokerUnavailable(
                    f"{topic} has other partitions now: {counts[topic]}, not {count}"
                )

    def mark_done(self, message: Message) -> None:
        """Add the offset of *message* to the next commit."""
        self._offsets[partition_id(message)] = (message.offset() or 0) + 1

    @property
    def has_offsets(self) -> bool:
        """Whether offsets wait for a commit."""
        return bool(self._offsets)

    def commit(self, records: Iterable[Record]) -> None:
        """Write *records* and the offsets of their events, all or nothing.

        Raises:
            Fenced: the transaction failed; the state has to be read again.
            RecordsRefused: the transaction failed because of one of the records.
        """
        producer = self._producer
        if producer is None:
            raise Fenced("not open")
        offsets = [
            TopicPartition(*key, offset) for key, offset in self._offsets.items()
        ]
        self._refused = None
        try:
            producer.begin_transaction()
            for record in records:
                self._produce(producer, record)
            if offsets:
                group = self.inputs.group_metadata()
                producer.send_offsets_to_transaction(offsets, group, TIMEOUT)
            _commit(producer)
            producer.poll(0)  # answers that came with the commit
        except KafkaException as exc:
            self._raise_failure(producer, exc)
        self._offsets.clear()

    def close(self) -> None:
        """Release every resource; uncommitted records do not count."""
        self.inputs.close()
        if self._producer is not None:
            # The next fence aborts an open transaction.
            self._producer.purge()
            self._producer = None
        self._offsets.clear()

    def _raise_failure(self, producer: Producer, failure: KafkaException) -> NoReturn:
        for _ in range(_POLLS):  # the error of one record explains the others
            if not len(producer):
                break
            producer.poll(0.1)
        error, topic = self._refused or (failure.args[0], "")
        if error.code() in _REFUSED:
            raise RecordsRefused(f"{topic}: {error.str()}") from failure
        denied = access_error(
            error,
            self._settings,
            topic=topic,
            operation=WRITE,
            group=self._name,
            transactional_id=self._name,
        )
        raise Fenced(str(denied or _describe(error, topic))) from failure

    def _partition(self, record: Record) -> int:
        count = self._counts.get(record.topic)
        if record.partition >= 0 or count is None:
            return record.partition
        return partition_of(record.key or b"", count)

    def _produce(self, producer: Producer, record: Record) -> None:
        sent_at = boottime()

        def on_delivery(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                # One refused record makes the transaction's other records fail.
                if error.code() not in _PURGED:
                    self._refused = error, record.topic
                return
            kind, stamp = message.timestamp()
            if kind == TIMESTAMP_LOG_APPEND_TIME:
                self._clock.learn(sent_at, boottime(), stamp / 1000)

        while True:
            try:
                producer.produce(
                    record.topic,
                    value=record.value,
                    key=record.key,
                    headers=list(record.headers),
                    partition=self._partition(record),
                    on_delivery=on_delivery,
                )
            except BufferError:
                producer.poll(0.1)
            else:
                return


def _commit(producer: Producer) -> None:
    for left in reversed(range(_ATTEMPTS)):
        try:
            producer.commit_transaction(TIMEOUT)
        except KafkaException as exc:
            # If the outcome is unknown, librdkafka requires the same call again.
            if not left or not exc.args[0].retriable():
                raise
            log.warning("commit_retried", error=exc.args[0].str())
        else:
            return


def _describe(error: KafkaError, topic: str) -> str:
    if error.code() in {KafkaError._FENCED, KafkaError.PRODUCER_FENCED}:  # noqa: SLF001 - its name
        return "another mitigator is active"
    prefix = f"{topic}: " if topic else ""
    return f"the transaction failed: {prefix}{error.str()}"
