"""A Kafka broker inside this process, for the demo and for tests.

The broker is librdkafka's mock cluster (rdkafka_mock.h). It listens on loopback, so
other processes on this machine can use it too. Differences from Kafka:

- It keeps records in memory and ends with its owner.
- It creates a topic, with four partitions, at the first request for it. It has no
  CreateTopics, no topic settings and no access rules.
- It does not fence: it accepts a transaction of a replaced instance, and delivers
  aborted records under `read_committed`. Only a real broker can test fencing.
"""

from typing import Final, Self

from confluent_kafka import Producer

_TIMEOUT: Final = 10.0
"""Seconds for the mock brokers' start; it takes milliseconds."""

_ONLY_ERRORS: Final = 3
"""librdkafka's log level (syslog's numbers); keeps a demo's output readable."""


class EmbeddedBroker:
    """Runs a mock cluster while the context is open.

    Args:
        brokers: number of brokers.

    Attributes:
        bootstrap: the brokers as `host:port,...`, for `bootstrap.servers`; "" outside
            the context.
    """

    def __init__(self, brokers: int = 1) -> None:
        self.bootstrap = ""
        self._settings: dict[str, str | int] = {
            "bootstrap.servers": "",
            "test.mock.num.brokers": brokers,
            "log_level": _ONLY_ERRORS,
        }
        self._owner: Producer | None = None

    def __enter__(self) -> Self:
        """Start the brokers.

        Raises:
            KafkaException: the brokers did not start.
        """
        self._owner = Producer(self._settings)
        started = self._owner.list_topics(timeout=_TIMEOUT).brokers
        self.bootstrap = ",".join(
            f"{broker.host}:{broker.port}" for _, broker in sorted(started.items())
        )
        return self

    def create_topics(self, *topics: str) -> None:
        """Create topics, by requests for their metadata."""
        for topic in topics:
            if self._owner is not None:
                self._owner.list_topics(topic, timeout=_TIMEOUT)

    def __exit__(self, *_error: object) -> None:
        """Stop the brokers and drop their records."""
        self._owner, self.bootstrap = None, ""
