"""A Kafka broker inside this process, for the demo and for tests.

The broker is librdkafka's mock cluster (rdkafka_mock.h). It listens on loopback, so
other processes on this machine can use it too. Differences from Kafka:

- It keeps records in memory and ends with its owner.
- It creates a topic, with four partitions, at the first request for it. It has no
  CreateTopics, no topic settings and no access rules.
- It does not fence: it accepts a transaction of a replaced instance, and delivers
  aborted records under `read_committed`. Only a real broker can test fencing.
"""

from types import TracebackType
from typing import Final, Self

from confluent_kafka import KafkaException, Producer

from fnm_bus.errors import BrokerUnavailable

_TIMEOUT: Final = 10.0
"""Seconds for the mock brokers' start; it takes milliseconds."""

_ONLY_ERRORS: Final = 3
"""librdkafka's log level (syslog's numbers); keeps a demo's output readable."""


class EmbeddedBroker:
    """Runs a mock cluster while the context is open.

    Args:
        brokers: number of brokers.

    Raises:
        ValueError: *brokers* is not positive.
    """

    def __init__(self, brokers: int = 1) -> None:
        if brokers < 1:
            raise ValueError(f"a cluster of {brokers} brokers: wanted at least 1")
        self._brokers = brokers
        self._owner: Producer | None = None
        self._bootstrap = ""

    @property
    def bootstrap(self) -> str:
        """The brokers as `host:port,...`, for `bootstrap.servers`.

        Raises:
            BrokerUnavailable: the context is not open.
        """
        if self._owner is None:
            raise BrokerUnavailable("the embedded broker is not running: use `with`")
        return self._bootstrap

    def __enter__(self) -> Self:
        """Start the brokers.

        Raises:
            BrokerUnavailable: the brokers did not start.
        """
        settings: dict[str, str | int] = {
            "bootstrap.servers": "",
            "test.mock.num.brokers": self._brokers,
            "log_level": _ONLY_ERRORS,
        }
        try:
            owner = Producer(settings)
            started = owner.list_topics(timeout=_TIMEOUT).brokers
        except KafkaException as exc:
            raise BrokerUnavailable(f"embedded broker: {exc.args[0].str()}") from exc
        self._bootstrap = ",".join(
            f"{started[number].host}:{started[number].port}"
            for number in sorted(started)
        )
        self._owner = owner
        return self

    def create_topics(self, *topics: str) -> None:
        """Create topics, by requests for their metadata.

        Raises:
            BrokerUnavailable: the context is not open, or a request timed out.
        """
        if self._owner is None:
            raise BrokerUnavailable("the embedded broker is not running: use `with`")
        try:
            for topic in topics:
                self._owner.list_topics(topic, timeout=_TIMEOUT)
        except KafkaException as exc:
            raise BrokerUnavailable(f"embedded broker: {exc.args[0].str()}") from exc

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the brokers and drop their records."""
        self._owner = None
