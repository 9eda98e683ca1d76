"""Publish to the audit topic what an enforcer did, and learn the broker's time."""

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, Message, Producer

from consumers.mitigation.clock import now as boottime
from fnm_bus import __version__
from fnm_bus.codec import Codec
from fnm_bus.errors import ConfigError
from fnm_bus.event import Audit

log = logging.getLogger(__name__)

_MOST: Final = "20000"


class AuditPublisher:
    """An enforcer's voice. Nothing it says is waited for.

    Args:
        settings: librdkafka's settings.
        topic: the audit topic.
        codec: encodes records.
        name: of the enforcer.

    Attributes:
        skew: seconds by which this clock was ahead of the broker's; None: not known.
        lost: reports that Kafka did not take.
    """

    def __init__(
        self, settings: Mapping[str, str], topic: str, codec: Codec, name: str
    ) -> None:
        self._settings: dict[str, Any] = {
            "log_level": "2",
            "acks": "all",
            "enable.idempotence": "true",
            "linger.ms": "5",
            # What is said late is of use, too; what is said hours late is in the log.
            "message.timeout.ms": "3600000",
            "queue.buffering.max.messages": _MOST,
            **settings,
        }
        self._topic = topic
        self._codec = codec
        self._name = name
        self._producer: Producer | None = None
        self.skew: float | None = None
        self._broker_began: float | None = None
        self.lost = 0

    def open(self) -> None:
        """Begin to connect.

        Raises:
            ConfigError: librdkafka refuses the settings.
        """
        try:
            self._producer = Producer(self._settings, logger=log)
        except Exception as exc:
            raise ConfigError(f"[kafka]: {exc}") from exc

    def tell(
        self, what: str, text: str, *, key: str | None = None, dry_run: bool = False
    ) -> None:
        """Say something, in the log and to Kafka."""
        level = logging.WARNING if what == "failed" else logging.INFO
        log.log(level, "%s: %s %s", what, key or self._name, text)
        audit = Audit(
            at=datetime.now(UTC),
            by=self._name,
            what=what,
            key=key,
            text=text,
            dry_run=dry_run,
            producer_version=__version__,
        )
        if self._producer is None:
            return
        asked = boottime()

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self.lost += 1
            else:
                self._learn(asked, message)

        try:
            self._producer.produce(
                self._topic,
                value=self._codec.encode(audit, self._topic),
                key=(key or self._name).encode(),
                on_delivery=delivered,
            )
        except BufferError:
            self.lost += 1
        self._producer.poll(0)

    def broker_time(self) -> datetime | None:
        """Return what time it is at the broker, however our clock was set; or None."""
        if self._broker_began is None:
            return None
        return datetime.fromtimestamp(self._broker_began + boottime(), UTC)

    def poll(self) -> None:
        """Learn what became of what was said."""
        if self._producer is not None:
            self._producer.poll(0)

    def flush(self, seconds: float) -> None:
        """Wait until all is said, for up to *seconds*."""
        if self._producer is not None:
            self._producer.flush(seconds)

    def close(self) -> None:
        """Wait shortly for what is in flight."""
        self.flush(2)
        self._producer = None

    def _learn(self, asked: float, message: Message) -> None:
        kind, stamp = message.timestamp()
        if kind != TIMESTAMP_LOG_APPEND_TIME:
            return  # the writer's own time says nothing
        answered = boottime()
        if answered - asked < 1:  # the broker's time lies between the two
            self._broker_began = stamp / 1000 - (asked + answered) / 2
            self.skew = time.time() - answered - self._broker_began
