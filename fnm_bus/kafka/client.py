"""Build Kafka clients, follow their connections, and request metadata.

Every client reports to a `ConnectionState`: whether a broker serves the client and, if
not, the reason. librdkafka reports only during `poll`.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from fnm_bus.config.secrets import without_secrets
from fnm_bus.errors import BrokerUnavailable, ConfigError, ConnectionRejected
from fnm_bus.kafka.client_errors import explain_error, is_fatal, topic_error
from fnm_bus.kafka.names import DESCRIBE, READER_GROUP
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_QUIET: Final = {"log_level": "2"}
"""Without librdkafka's own log lines: failures are raised, or reported to the
ConnectionState."""
_STATISTICS_INTERVAL: Final = "2000"
"""Milliseconds between two reports of the brokers' states."""
_FIRST_ATTEMPT: Final = 0.5
"""Seconds of a new client's first request for metadata. Each further attempt takes
twice as long, since a cluster can be slow; between two attempts errors are received."""
_REQUEST_TIMEOUT: Final = 10.0
"""Seconds for a request to the brokers."""
_MEMBERSHIP: Final = frozenset(
    {"group.protocol", "group.instance.id", "group.remote.assignor"}
)
"""Settings that are invalid for a consumer without a group."""
_CONNECTION_CODES: Final = frozenset(
    {
        KafkaError._RESOLVE,  # noqa: SLF001 - librdkafka's own names
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._SSL,  # noqa: SLF001
        KafkaError._AUTHENTICATION,  # noqa: SLF001
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
    }
)


class ConnectionState:
    """One client's connections to the brokers.

    Args:
        settings: librdkafka's settings of the client.

    Attributes:
        settings: as above.
        error: the reason if no broker serves the client now, or None.
        is_down: whether every broker was tried, and none serves the client.
        fatal: the error after which librdkafka stopped the client, or None.
        is_awaited: whether a caller gets the error itself, so it is not logged.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self._is_connected = False
        self._logged = ""
        self.error: BrokerUnavailable | None = None
        self.is_down = False
        self.fatal: KafkaError | None = None
        self.is_awaited = False

    @property
    def rejection(self) -> str:
        """The reason if the brokers reject this client until its settings change."""
        error = self.error
        return str(error) if isinstance(error, ConnectionRejected) else ""

    def current_error(self) -> BrokerUnavailable | None:
        """Return a copy of `error`, since each `raise` needs its own exception."""
        return None if self.error is None else type(self.error)(str(self.error))

    def reset(self) -> None:
        """Return to the initial state, for a new client."""
        self._is_connected, self.is_down = False, False
        self.error, self.fatal = None, None

    def take_error(self, error: KafkaError) -> None:
        """Process an error from librdkafka (`error_cb`)."""
        if is_fatal(error):
            self.fatal = error
        if error.code() not in _CONNECTION_CODES:
            return
        reason = explain_error(error, self.settings)
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - its name
            self._is_connected, self.is_down = False, True
            self.error = self.error or reason
            self._log()
        elif not self._is_connected:
            self.error = reason
            if isinstance(reason, ConnectionRejected):
                self._log()

    def take_statistics(self, text: str) -> None:
        """Process librdkafka's statistics (`stats_cb`): is a broker connected?"""
        brokers = json.loads(text).get("brokers", {}).values()
        if any(broker.get("state") == "UP" for broker in brokers):
            self.mark_connected()
        else:
            self._is_connected = False

    def mark_connected(self) -> None:
        """Record that a broker served the client."""
        self._is_connected, self.is_down = True, False
        if self.error is not None:
            self.error = None
            if self._logged:
                log.info("broker_reachable")
            self._logged = ""

    def _log(self) -> None:
        text = str(self.error)
        if text != self._logged and not self.is_awaited:
            self._logged = text
            log.warning("broker_unavailable", error=text, retried=True)


def build_producer(settings: Mapping[str, Any], state: ConnectionState) -> Producer:
    """Return a producer; librdkafka logs as its `log_level` allows.

    Raises:
        ConfigError: librdkafka refuses the settings.
    """
    complete = {**_QUIET, **settings, **_callbacks(state)}
    with _config_errors(settings):
        return Producer(complete, logger=logging.getLogger("librdkafka"))


def build_consumer(
    settings: Mapping[str, Any],
    state: ConnectionState,
    on_statistics: Callable[[str], None] | None = None,
) -> Consumer:
    """Return a consumer; *on_statistics* receives librdkafka's statistics, too.

    Raises:
        ConfigError: librdkafka refuses the settings.
    """
    complete = {**_QUIET, **settings, **_callbacks(state, on_statistics)}
    with _config_errors(settings):
        return Consumer(complete)


def build_reader(settings: Mapping[str, Any], state: ConnectionState) -> Consumer:
    """Return a read-only consumer whose partitions are assigned by the caller.

    The consumer joins no group, commits no offset and creates no topic, even if
    *settings* enable that. It reports the end of each partition.

    Raises:
        ConfigError: librdkafka refuses the settings.
    """
    own = {
        "group.id": READER_GROUP,
        "enable.auto.commit": "false",
        "allow.auto.create.topics": "false",
        "enable.partition.eof": "true",
    }
    kept = {name: value for name, value in settings.items() if name not in _MEMBERSHIP}
    return build_consumer({"auto.offset.reset": "earliest", **kept, **own}, state)


def build_admin(settings: Mapping[str, Any], state: ConnectionState) -> AdminClient:
    """Return an admin client.

    Raises:
        ConfigError: librdkafka refuses the settings.
    """
    complete = {**_QUIET, **settings, "error_cb": state.take_error}
    with _config_errors(settings):
        return AdminClient(complete)


def partitions_of(
    client: Producer | Consumer | AdminClient,
    topic: str,
    state: ConnectionState,
    *,
    is_new: bool = False,
    timeout: float | None = None,
) -> list[int]:
    """Return the numbers of a topic's partitions, in order.

    Args:
        client: sends the request.
        topic: name of the topic.
        state: of *client*.
        is_new: whether *client* has neither subscription nor assignment. The client is
            then polled between two attempts, so a rejection is raised at once.
        timeout: seconds; 10 unless set.

    Raises:
        BrokerUnavailable: no broker is reachable; ConnectionRejected gives the reason.
        TopicRefused: the topic does not exist, or this user has no Describe right.
    """
    description = metadata(client, topic, state, is_new=is_new, timeout=timeout)
    topic_metadata = description.topics[topic]
    if topic_metadata.error is not None:
        raise topic_error(topic_metadata.error, topic, DESCRIBE, state.settings)
    return sorted(topic_metadata.partitions)


def metadata(
    client: Producer | Consumer | AdminClient,
    topic: str | None,
    state: ConnectionState,
    *,
    is_new: bool = False,
    timeout: float | None = None,
) -> Any:
    """Return the cluster's metadata about one topic, or about all.

    Raises:
        BrokerUnavailable: as `partitions_of`.
    """
    within = _REQUEST_TIMEOUT if timeout is None else timeout
    if not is_new:
        return _request_metadata(client, topic, state, within)
    end, attempt = monotonic() + within, _FIRST_ATTEMPT
    state.is_awaited = True
    try:
        while True:
            left = max(end - monotonic(), 0.01)
            is_last = left < 3 * attempt  # the next one would be shorter than planned
            seconds = left if is_last else attempt
            try:
                return _request_metadata(client, topic, state, seconds)
            except BrokerUnavailable as exc:
                client.poll(0)
                # If one broker rejects a client, another broker may still serve it.
                is_over = monotonic() >= end
                if is_over or (state.rejection and state.is_down):
                    raise (state.current_error() or exc) from exc
            if not is_last:  # one that failed early is repeated
                attempt *= 2
    finally:
        state.is_awaited = False


def _request_metadata(
    client: Producer | Consumer | AdminClient,
    topic: str | None,
    state: ConnectionState,
    timeout: float,
) -> Any:
    try:
        answer = client.list_topics(topic, timeout=timeout)
    except KafkaException as exc:
        text = f"no broker reachable: {exc.args[0].str()}"
        raise state.current_error() or BrokerUnavailable(text) from exc
    state.mark_connected()
    return answer


def _callbacks(
    state: ConnectionState, on_statistics: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Return the settings with which librdkafka reports to *state*."""

    def take_statistics(text: str) -> None:
        state.take_statistics(text)
        if on_statistics is not None:
            on_statistics(text)

    return {
        "error_cb": state.take_error,
        "stats_cb": take_statistics,
        "statistics.interval.ms": _STATISTICS_INTERVAL,
    }


@contextmanager
def _config_errors(settings: Mapping[str, Any]) -> Iterator[None]:
    """Raise a ConfigError without secrets when librdkafka refuses *settings*."""
    try:
        yield
    except KafkaException as exc:
        text = without_secrets(exc.args[0].str(), settings)
    except (TypeError, ValueError) as exc:
        text = without_secrets(str(exc), settings)
    else:
        return
    # Without the cause: its text may contain the secrets.
    raise ConfigError(f"[kafka]: {text}")
