"""A Kafka broker inside this process, for the demo and for tests.

It is librdkafka's mock cluster (rdkafka_mock.h). Other processes on this machine can
use it too: it listens on loopback. What it is not:

- It keeps records in memory and ends with its owner.
- It makes a topic, of four partitions, when a client first asks for it; it has no
  CreateTopics, no settings of topics and no access rules.
- It does not fence: it takes a transaction of an instance that was replaced, and
  delivers aborted records under `read_committed`. What depends on fencing is shown
  by a real broker only.
"""

from types import TracebackType
from typing import Final, Self

from confluent_kafka import KafkaException, Producer

from fnm_bus.errors import BrokerUnavailable

_WAIT: Final = 10.0
"""Seconds the mock brokers get to name themselves; it takes them milliseconds."""

_ONLY_ERRORS: Final = 3
"""librdkafka's log level (syslog's numbers), so that a demo's output stays readable."""


class EmbeddedBroker:
    """Runs a mock cluster for as long as the context is open.

    Args:
        brokers: how many brokers the cluster has.

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
            BrokerUnavailable: they did not come up.
        """
        settings: dict[str, str | int] = {
            "bootstrap.servers": "",
            "test.mock.num.brokers": self._brokers,
            "log_level": _ONLY_ERRORS,
        }
        try:
            owner = Producer(settings)
            found = owner.list_topics(timeout=_WAIT).brokers
        except KafkaException as exc:
            raise BrokerUnavailable(f"embedded broker: {exc.args[0].str()}") from exc
        self._bootstrap = ",".join(
            f"{found[number].host}:{found[number].port}" for number in sorted(found)
        )
        self._owner = owner
        return self

    def create_topics(self, *topics: str) -> None:
        """Make topics, as the mock cluster does when a producer asks for them.

        Raises:
            BrokerUnavailable: the context is not open, or the brokers do not answer.
        """
        if self._owner is None:
            raise BrokerUnavailable("the embedded broker is not running: use `with`")
        try:
            for topic in topics:
                self._owner.list_topics(topic, timeout=_WAIT)
        except KafkaException as exc:
            raise BrokerUnavailable(f"embedded broker: {exc.args[0].str()}") from exc

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the brokers; what they held is gone."""
        self._owner = None
