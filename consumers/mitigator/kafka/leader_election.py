"""Leader election: one of several mitigators is active.

Kafka assigns the command topic's only partition to one member of a group at a time.
That member is active, the others stand by. The election only decides who tries to
write. The fence of the transactional producer keeps two mitigators from writing.
"""

import json
from collections.abc import Mapping
from time import monotonic
from typing import Any, Final
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, TopicPartition

from fnm_bus.kafka.client import ConnectionState, build_consumer
from fnm_bus.kafka.client_errors import access_error
from fnm_bus.kafka.reader import UNREADABLE_CODES
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_TIMEOUTS: Final = {
    # A mitigator that hangs is replaced after this time; brokers allow 6 s or more.
    "session.timeout.ms": "6000",
    "heartbeat.interval.ms": "1500",
}
_STEADY: Final = "steady"
"""librdkafka's word for a member that has its assignment."""
_ABSENT: Final = 15.0
"""Seconds outside the group until that is reported as a problem."""
_LASTING: Final = UNREADABLE_CODES | {KafkaError.GROUP_AUTHORIZATION_FAILED}
"""Errors that last until a person acts; a new assignment ends them."""
_LEAVING: Final = 1.0
"""Seconds to revoke the assignment; a member without one leaves immediately."""


class LeaderElection:
    """One member.

    Args:
        group: name of the group; used for nothing else.
        topic: a topic of one partition.
    """

    def __init__(self, settings: Mapping[str, str], group: str, topic: str) -> None:
        is_classic = settings.get("group.protocol") != "consumer"
        # The name lasts as long as this object. If Kafka is unreachable for longer than
        # a session, librdkafka joins as a new member, and Kafka would first wait for
        # the old one. With the same name, Kafka replaces the old one.
        static = {**_TIMEOUTS, "group.instance.id": f"{group}-{uuid4()}"}
        self._settings: dict[str, Any] = {
            **(static if is_classic else {}),
            **settings,
            "group.id": group,
            "enable.auto.commit": "false",
            "auto.offset.reset": "latest",
        }
        self._topic = topic
        self._group = group
        self._connection = ConnectionState(self._settings)
        self._consumer: Consumer | None = None
        self._is_revoked = False
        self._last_error = ""
        self._lasting_error = ""
        self._member_at = monotonic()
        self.elected = False

    @property
    def problem(self) -> str:
        """Why it can neither be elected nor stand by, or ""."""
        if self._lasting_error or self._connection.rejection:
            return self._lasting_error or f"election: {self._connection.rejection}"
        absent = monotonic() - self._member_at
        if self._consumer is None or absent < _ABSENT:
            return ""
        error = self._connection.error or self._last_error
        suffix = f": {error}" if error else ""
        return f"not in the group for {absent:.0f} s: Kafka is unreachable{suffix}"

    def open(self) -> None:
        """Join the group.

        Raises:
            ConfigError: librdkafka refuses the settings.
        """
        self._is_revoked = False
        self._member_at = monotonic()
        self._connection.reset()
        self._consumer = build_consumer(
            self._settings, self._connection, self._on_statistics
        )
        self._consumer.subscribe(
            [self._topic],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_revoke,
        )

    def poll(self, timeout: float) -> bool:
        """Take part for up to *timeout* seconds; return whether this one is elected.

        Raises:
            ConfigError: librdkafka refuses the settings.
        """
        if self._consumer is not None:
            message = self._consumer.poll(timeout)
            if message is not None and (error := message.error()) is not None:
                self._connection.take_error(error)
                self._take_error(error)
            fatal = self._connection.fatal
            if fatal is not None:
                # After a late check of its session, librdkafka fences itself, but
                # continues as a member that it no longer is (its issue 3437).
                self._log_error(fatal.str())
                self.close()
                self.open()
        return self.elected

    def close(self) -> None:
        """Leave the group, so that another member is elected immediately."""
        consumer, self._consumer = self._consumer, None
        self.elected = False
        if consumer is None:
            return
        if self._connection.fatal is None:
            # A member with a name stays in the group when it closes (KIP-345). It
            # leaves when it unsubscribes.
            consumer.unsubscribe()
            self._is_revoked, end = False, monotonic() + _LEAVING
            while not self._is_revoked and monotonic() < end:
                consumer.poll(0.1)
        consumer.close()

    def _take_error(self, error: KafkaError) -> None:
        denied = access_error(
            error, self._settings, topic=self._topic, group=self._group
        )
        text = str(denied or error.str())
        self._log_error(text)
        if error.code() in _LASTING:
            self._lasting_error = f"election: {denied or f'{self._topic}: {text}'}"

    def _on_statistics(self, statistics: str) -> None:
        group = json.loads(statistics).get("cgrp", {})
        if group.get("state") == "up" and group.get("join_state") == _STEADY:
            self._member_at = monotonic()
            self._last_error = ""

    def _log_error(self, text: str) -> None:
        if text != self._last_error:
            self._last_error = text
            log.warning("election_error", error=text)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._lasting_error = ""
        if partitions:  # only the assignment matters; nothing is read
            consumer.assign(partitions)
            consumer.pause(partitions)
        self.elected = self.elected or _has_first(partitions)

    def _on_revoke(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._is_revoked = True
        if _has_first(partitions):
            self.elected = False


def _has_first(partitions: list[TopicPartition]) -> bool:
    """Return whether partition 0 is among them; further ones do not count."""
    return any(partition.partition == 0 for partition in partitions)
