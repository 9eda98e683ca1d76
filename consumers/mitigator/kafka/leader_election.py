"""Election: which of several mitigators is the active one.

The command topic has one partition, and Kafka gives it to one member of a group at a
time: that one is active, the others stand by. This only decides who tries. What keeps
two from writing is the fence of the transactional producer.
"""

import json
import logging
from collections.abc import Mapping
from time import monotonic
from typing import Any, Final
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, TopicPartition

from fnm_bus.kafka.client import ConnectionState, build_consumer
from fnm_bus.kafka.client_errors import access_error
from fnm_bus.kafka.reader import UNREADABLE_CODES

log = logging.getLogger(__name__)

_BRIEF: Final = {
    # A mitigator that hangs is replaced after this; brokers allow 6 s and more.
    "session.timeout.ms": "6000",
    "heartbeat.interval.ms": "1500",
}
_STEADY: Final = "steady"
"""librdkafka's word for a member that knows what it holds."""
_ABSENT: Final = 15.0
"""Seconds without a place in the group from which on that is a problem."""
_LASTING: Final = UNREADABLE_CODES | {KafkaError.GROUP_AUTHORIZATION_FAILED}
"""Errors that last until somebody acts; a new assignment shows that it is over."""
_LEAVING = 1.0
"""Seconds to give the place back in; who has none yet just goes."""


class LeaderElection:
    """One member.

    Args:
        settings: librdkafka's settings.
        group: name of the group; used for nothing else.
        topic: a topic of one partition.

    Attributes:
        elected: whether this one is elected.
    """

    def __init__(self, settings: Mapping[str, str], group: str, topic: str) -> None:
        classic = settings.get("group.protocol") != "consumer"
        # One name as long as this lives: after a Kafka that was away for longer than a
        # session, librdkafka joins as a new member, and Kafka would first wait for the
        # old one. What has the name is known to be the old one.
        known = {**_BRIEF, "group.instance.id": f"{group}-{uuid4()}"}
        self._settings: dict[str, Any] = {
            **(known if classic else {}),
            **settings,
            "group.id": group,
            "enable.auto.commit": "false",
            "auto.offset.reset": "latest",
        }
        self._topic = topic
        self._group = group
        self._connection = ConnectionState(self._settings)
        self._consumer: Consumer | None = None
        self._told = False
        self._complaint = ""
        self._member_at = monotonic()
        self.elected = False
        self._refusal = ""

    @property
    def problem(self) -> str:
        """Why it can neither be elected nor stand by, or ""."""
        if self._refusal or self._connection.rejection:
            return self._refusal or f"election: {self._connection.rejection}"
        absent = monotonic() - self._member_at
        if self._consumer is None or absent < _ABSENT:
            return ""
        cause = self._connection.error or self._complaint
        reason = f": {cause}" if cause else ""
        return f"no place in the group for {absent:.0f} s: Kafka is away{reason}"

    def open(self) -> None:
        """Become a member.

        Raises:
            ConfigError: librdkafka refuses the settings.
        """
        self._told = False
        self._member_at = monotonic()
        self._connection.reset()
        self._consumer = build_consumer(self._settings, self._connection, self._observe)
        self._consumer.subscribe(
            [self._topic],
            on_assign=self._won,
            on_revoke=self._lost,
            on_lost=self._lost,
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
                # Where the end of its session is not looked at soon enough, librdkafka
                # shuts itself out: it goes on as a member that it no longer is (its
                # issue 3437).
                self._complain(fatal.str())
                self.close()
                self.open()
        return self.elected

    def close(self) -> None:
        """Leave, so that another one is elected at once."""
        consumer, self._consumer = self._consumer, None
        self.elected = False
        if consumer is None:
            return
        if self._connection.fatal is None:
            # A member with a name keeps its place when it closes, as if it came back
            # (KIP-345); it leaves when it unsubscribes.
            consumer.unsubscribe()
            self._told, end = False, monotonic() + _LEAVING
            while not self._told and monotonic() < end:
                consumer.poll(0.1)
        consumer.close()

    def _take_error(self, error: KafkaError) -> None:
        denied = access_error(
            error, self._settings, topic=self._topic, group=self._group
        )
        text = str(denied or error.str())
        self._complain(text)
        if error.code() in _LASTING:
            self._refusal = f"election: {denied or f'{self._topic}: {text}'}"

    def _observe(self, statistics: str) -> None:
        group = json.loads(statistics).get("cgrp", {})
        if group.get("state") == "up" and group.get("join_state") == _STEADY:
            self._member_at = monotonic()
            self._complaint = ""

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            self._complaint = text
            log.warning("election: %s", self._complaint)

    def _won(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._refusal = ""
        # Nothing is read here; to hold the partition is all.
        if partitions:
            consumer.assign(partitions)
            consumer.pause(partitions)
        # Should the topic have more partitions, only one of them counts.
        self.elected = self.elected or any(it.partition == 0 for it in partitions)

    def _lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._told = True
        if any(it.partition == 0 for it in partitions):
            self.elected = False
