"""Election: which of several mitigators is the active one.

The command topic has one partition, and Kafka gives it to one member of a group at a
time: that one is active, the others stand by. This only decides who tries. What keeps
two from writing is the fence of the transactional producer.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from fnm_bus.errors import ConfigError

log = logging.getLogger(__name__)

_BRIEF: Final = {
    # A mitigator that hangs is replaced after this; brokers allow 6 s and more.
    "session.timeout.ms": "6000",
    "heartbeat.interval.ms": "1500",
}


class Election:
    """One member.

    Args:
        settings: librdkafka's settings.
        group: name of the group; used for nothing else.
        topic: a topic of one partition.
    """

    def __init__(self, settings: Mapping[str, str], group: str, topic: str) -> None:
        consumer_protocol = settings.get("group.protocol") == "consumer"
        self._settings: dict[str, Any] = {
            "log_level": "2",
            **({} if consumer_protocol else _BRIEF),
            **settings,
            "group.id": group,
            "enable.auto.commit": "false",
            "auto.offset.reset": "latest",
        }
        self._topic = topic
        self._consumer: Consumer | None = None
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
        if any(it.partition == 0 for it in partitions):
            self.elected = False
