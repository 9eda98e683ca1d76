"""Message processor: one event or command from Kafka, or a dead letter for it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import KafkaException, Message

from consumers.metrics import MitigatorMetrics
from consumers.mitigation.clock import now as boottime
from consumers.mitigator.decisions.decide import apply_event
from consumers.mitigator.decisions.operator_commands import apply_command
from consumers.mitigator.decisions.received_command import ReceivedCommand
from consumers.mitigator.kafka.batch import Batch
from consumers.mitigator.kafka.breaker import Breaker
from consumers.mitigator.kafka.input_reader import MAX_EVENTS, PartitionId, partition_id
from consumers.mitigator.kafka.transaction import TransactionalJournal
from consumers.mitigator.state.state import State
from consumers.mitigator.state.transition import Transition
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import (
    BrokerUnavailable,
    ConfigError,
    InvalidRecord,
    RegistryError,
    SchemaError,
)
from fnm_bus.event import Command, Event, HostEvent, HostgroupEvent, StatusEvent
from fnm_bus.kafka.addressing import Topics, headers_for
from fnm_bus.kafka.dead_letter import build_dead_letter
from fnm_bus.kafka.reader import record_time
from fnm_bus.kafka.record import Record
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

ENVIRONMENT_ERRORS: Final = (KafkaException, MemoryError, OSError, BrokerUnavailable)
"""Errors that no event causes: nothing is committed."""
_MAX_KEY: Final = 1_000
_ISOLATED: Final = 2 * MAX_EVENTS
"""Messages with a transaction of their own after Kafka refused a record."""


@dataclass
class MessageProcessor:
    """Applies messages to the state.

    Attributes:
        unreadable: partitions that wait for the registry, with its error.
        current: the last message of the open transaction.
        isolated: number of messages that get a transaction of their own.
    """

    topics: Topics
    codec: Codec
    name: str
    metrics: MitigatorMetrics
    new_transition: Callable[[State], Transition]
    breaker: Breaker = field(default_factory=Breaker)
    unreadable: dict[PartitionId, str] = field(default_factory=dict)
    current: Message | None = None
    isolated: int = 0
    _refused: set[tuple[PartitionId, int]] = field(default_factory=set)

    def process(
        self,
        journal: TransactionalJournal,
        state: State,
        batch: Batch,
        message: Message,
    ) -> None:
        """Apply one message; an unusable one becomes a dead letter."""
        inputs = journal.inputs
        if inputs.is_paused(message):
            return
        partition = partition_id(message)
        if self.breaker.is_open(partition, boottime()):
            inputs.pause_at(message)
            return
        self.current = message
        transition = self.new_transition(state)
        try:
            self._apply(transition, journal, message)
            batch.add(transition)
        except RegistryError as exc:
            transition.rollback()
            log.warning("decoding_delayed", topic=message.topic(), error=exc)
            self.unreadable[partition] = str(exc)
            inputs.pause_at(message)
            return
        except (*ENVIRONMENT_ERRORS, ConfigError):
            raise
        except (InvalidRecord, SchemaError) as exc:
            transition.rollback()
            self._add_dead_letter(batch, message, str(exc))
        except Exception as exc:
            transition.rollback()
            log.exception(
                "message_failed", topic=message.topic(), offset=message.offset()
            )
            self.metrics.unexpected_errors.inc()
            self.breaker.count(partition, boottime())
            reason = f"unexpected {type(exc).__name__}: {exc}"
            self._add_dead_letter(batch, message, reason)
        journal.mark_done(message)

    def isolate_messages(self) -> None:
        """Find the message whose records Kafka refuses: alone in a transaction.

        The isolated message becomes a dead letter when it is read again.
        """
        if self.isolated and self.current is not None:
            self._refused.add(_origin(self.current))
        self.isolated = _ISOLATED
        self.current = None

    def problems(self) -> list[str]:
        """Return why partitions are not read now."""
        paused = self.breaker.open_partitions(boottime())
        names = ", ".join(f"{topic}/{number}" for topic, number in paused)
        problems = [f"too many unexpected errors: {names}"] if paused else []
        errors = (f"{topic}: {error}" for (topic, _), error in self.unreadable.items())
        return [*problems, *errors]

    def _apply(
        self, transition: Transition, journal: TransactionalJournal, message: Message
    ) -> None:
        if _origin(message) in self._refused:
            raise InvalidRecord("Kafka refuses the resulting records")
        event = self.codec.decode(message.value())
        self.metrics.events.labels(message.topic()).inc()
        topics = self.topics
        # The right to write to one topic must not grant the effects of another one.
        match event, message.topic():
            case HostEvent(), topics.host:
                apply_event(transition, event)
            case HostgroupEvent(), topics.hostgroup:
                apply_event(transition, event)
            case StatusEvent(), topics.status:
                bans = (topics.host, topics.hostgroup)
                apply_event(
                    transition, event, behind=lambda: journal.inputs.is_behind(bans)
                )
            case Command(), topics.command:
                at = record_time(message.timestamp()[1])
                received = ReceivedCommand(event, at, message.offset() or 0)
                apply_command(transition, received)
            case _, topic:
                raise InvalidRecord(f"a {type(event).__name__} on {topic}: wrong topic")
        if isinstance(event, Event):
            age = transition.moment.now - event.receipt.received_at
            self.metrics.delay.observe(max(age.total_seconds(), 0))

    def _add_dead_letter(self, batch: Batch, message: Message, reason: str) -> None:
        self.metrics.dead_letters.inc()
        log.warning(
            "dead_letter", topic=message.topic(), offset=message.offset(), reason=reason
        )
        self._refused.discard(_origin(message))
        (topic, number), offset = _origin(message)
        letter = build_dead_letter(message, reason, 1, self.name)
        event_id = f"{topic}/{number}@{offset}"
        headers = headers_for(letter, self.name, event_id, letter.failed_at)
        value = self.codec.encode(letter, self.topics.deadletter)
        key = (message.key() or b"")[:_MAX_KEY]
        batch.append(Record(self.topics.deadletter, key, value, headers))


def _origin(message: Message) -> tuple[PartitionId, int]:
    return partition_id(message), message.offset() or 0
