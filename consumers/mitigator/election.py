"""Election: which of several mitigators is the active one.

The command topic has one partition, and Kafka gives it to one member of a group at a
time: that one is active, the others stand by. This only decides who tries. What keeps
two from writing is the fence of the transactional producer.
"""

import logging
from collections.abc import Mapping
from time import monotonic
from typing import Any, Final
from uuid import uuid4

from confluent_kafka import Consumer, KafkaException, TopicPartition

from fnm_bus.errors import ConfigError

log = logging.getLogger(__name__)

_BRIEF: Final = {
    # A mitigator that hangs is replaced after this; brokers allow 6 s and more.
    "session.timeout.ms": "6000",
    "heartbeat.interval.ms": "1500",
}
_LEAVING = 1.0
"""Seconds to give the place back in; who has none yet just goes."""


class Election:
    """One member.

    Args:
        settings: librdkafka's settings.
        group: name of the group; used for nothing else.
        topic: a topic of one partition.
    """

    def __init__(self, settings: Mapping[str, str], group: str, topic: str) -> None:
        classic = settings.get("group.protocol") != "consumer"
        # One name as long as this lives: after a Kafka that was away for longer than a
        # session, librdkafka joins as a new member, and Kafka would first wait for the
        # old one. What has the name is known to be the old one.
        known = {**_BRIEF, "group.instance.id": f"{group}-{uuid4()}"}
        self._settings: dict[str, Any] = {
            "log_level": "2",
            **(known if classic else {}),
            **settings,
            "group.id": group,
            "enable.auto.commit": "false",
            "auto.offset.reset": "latest",
        }
        self._topic = topic
        self._consumer: Consumer | None = None
        self._told = False
        self.elected = False

    def open(self) -> None:
        """Become a member.

        Raises:
            ConfigError: librdkafka refuses the settings.
        """
        try:
            self._consumer = Consumer(self._settings)
        except KafkaException as exc:
            raise ConfigError(f"[kafka]: {exc.args[0].str()}") from exc
        self._consumer.subscribe(
            [self._topic],
            on_assign=self._won,
            on_revoke=self._lost,
            on_lost=self._lost,
        )

    def poll(self, timeout: float) -> bool:
        """Take part for up to *timeout* seconds; return whether this one is elected."""
        if self._consumer is not None:
            self._consumer.poll(timeout)
        return self.elected

    def close(self) -> None:
        """Leave, so that another one is elected at once."""
        if self._consumer is not None:
            # A member with a name keeps its place when it closes, as if it came back
            # (KIP-345); it leaves when it unsubscribes.
            self._consumer.unsubscribe()
            self._told = False
            end = monotonic() + _LEAVING
            while not self._told and monotonic() < end:
                self._consumer.poll(0.1)
            self._consumer.close()
            self._consumer = None
        self.elected = False

    def _won(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
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
