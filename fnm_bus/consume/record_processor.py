"""Process one record: decode and check it, call the handler, send a dead letter."""

from datetime import UTC, datetime
from functools import partial
from typing import Final

from fnm_bus.avro.codec import Codec
from fnm_bus.consume.handler import AbortConsumer, Handler, RetryLater
from fnm_bus.consume.metrics import ConsumeMetrics
from fnm_bus.consume.partition import PartitionState
from fnm_bus.errors import FnmBusError, InvalidRecord
from fnm_bus.event import Event
from fnm_bus.event.identifiers import check_event
from fnm_bus.kafka.dead_letter import DeadLetterPublisher
from fnm_bus.kafka.reader import ConsumedRecord, decode_record
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_MAX_DEAD_LETTERS: Final = 100
"""Most dead letters of a partition that Kafka has not acknowledged."""
_LOGGED: Final = 1000
"""Characters of a reason in a log line."""


class RecordProcessor:
    """Processes records, and decides between a retry and a dead letter.

    Args:
        codec: decodes the values.
        handler: processes a record.
        dead_letters: publishes the dead letters.
        metrics: the loop's metrics.
        max_attempts: failures after which a record becomes a dead letter.
        tombstones: whether the handler receives records without a value.
    """

    def __init__(  # noqa: PLR0913 - the loop's options for one record
        self,
        codec: Codec,
        handler: Handler,
        dead_letters: DeadLetterPublisher,
        metrics: ConsumeMetrics,
        *,
        max_attempts: int,
        tombstones: bool,
    ) -> None:
        self._codec = codec
        self._handler = handler
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._max_attempts = max_attempts
        self._tombstones = tombstones

    def process(
        self, partition: PartitionState, record: ConsumedRecord
    ) -> RetryLater | None:
        """Process a record; return the delay if it has to be processed again.

        Raises:
            AbortConsumer: from the handler.
        """
        try:
            self._handle(partition, record)
        except AbortConsumer:
            raise
        except RetryLater as exc:
            return self._delay(partition, record, exc)
        except Exception as exc:  # noqa: BLE001 - a handler may raise anything
            if isinstance(exc, FnmBusError) and exc.retryable:
                return self._delay(partition, record, RetryLater(str(exc)))
            return self._process_failure(partition, record, exc)
        return None

    def _handle(self, partition: PartitionState, raw: ConsumedRecord) -> None:
        record = _validate(decode_record(raw, self._codec))
        finish = partial(partition.offsets.finish, record.offset)
        if record.value and record.error:
            self._send_dead_letter(partition, record, record.error)
        elif record.value or self._tombstones:
            deferred = self._handler(record)
            self._metrics.handled.labels(record.topic).inc()
            age = (datetime.now(UTC) - record.at).total_seconds()
            self._metrics.age.labels(record.topic).set(max(age, 0.0))
            if deferred is None:
                finish()
            else:
                deferred.on_release(finish)
        else:
            finish()

    def _process_failure(
        self, partition: PartitionState, record: ConsumedRecord, error: Exception
    ) -> RetryLater | None:
        self._metrics.errors.labels(record.topic).inc()
        partition.failures += 1
        reason = f"{type(error).__name__}: {error}"
        if partition.failures < self._max_attempts:
            return self._delay(partition, record, RetryLater(reason))
        reason = f"failed {partition.failures} times: {reason}"
        try:
            self._send_dead_letter(partition, record, reason)
        except RetryLater as exc:
            return self._delay(partition, record, exc)
        return None

    def _delay(
        self, partition: PartitionState, record: ConsumedRecord, delay: RetryLater
    ) -> RetryLater:
        """Count a delay, and log it if its reason is new."""
        self._metrics.retries.labels(record.topic).inc()
        if partition.delay_reason != str(delay):
            partition.delay_reason = str(delay)
            log.warning(
                "record_retried", record=_shown(record), reason=str(delay)[:_LOGGED]
            )
        return delay

    def _send_dead_letter(
        self, partition: PartitionState, record: ConsumedRecord, reason: str
    ) -> None:
        """Publish a dead letter; its record is finished when Kafka has it.

        Raises:
            RetryLater: too many dead letters of the partition are unpublished.
        """
        if partition.dead_letters >= _MAX_DEAD_LETTERS:
            raise RetryLater(f"{partition.dead_letters} dead letters are unpublished")

        def finish() -> None:
            partition.dead_letters -= 1
            partition.offsets.finish(record.offset)

        self._dead_letters.send(record, reason, max(partition.failures, 1), finish)
        partition.dead_letters += 1
        self._metrics.dead_letters.labels(record.topic).inc()
        log.warning("dead_letter", record=_shown(record), reason=reason[:_LOGGED])


def _validate(record: ConsumedRecord) -> ConsumedRecord:
    """Return *record*; if its event is invalid, with the error instead of the event."""
    if isinstance(record.event, Event):
        try:
            check_event(record.event)
        except InvalidRecord as exc:
            return record._replace(event=None, error=str(exc))
    return record


def _shown(record: ConsumedRecord) -> str:
    return f"{record.topic}[{record.partition}]@{record.offset}"
