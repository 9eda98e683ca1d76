"""Clients of Kafka: the one place that builds them and reads librdkafka's errors.

Every client reports to a `ConnectionState`, which knows whether a broker serves the
client and, if not, why. librdkafka reports during `poll`: a client that nobody polls
learns nothing.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from fnm_bus.config.secrets import without_secrets
from fnm_bus.errors import (
    AccessDenied,
    BrokerUnavailable,
    ConfigError,
    ConnectionRejected,
    TopicRefused,
)
from fnm_bus.kafka.names import (
    CLUSTER,
    DESCRIBE,
    GROUP,
    IDEMPOTENT_WRITE,
    READ,
    READER_GROUP,
    TOPIC,
    TRANSACTIONAL_ID,
    WRITE,
)

log = logging.getLogger(__name__)

_QUIET: Final = {"log_level": "2"}
"""What fails is raised, or reported to the ConnectionState; librdkafka's own line for
each attempt to connect repeats it."""
_STATISTICS: Final = "2000"
"""Milliseconds between two looks at whether a broker serves the client."""
_FIRST_ATTEMPT: Final = 0.5
"""Seconds of a new client's first request for metadata. Each further one takes twice as
long, since a cluster may be that slow; between two of them errors are taken."""
_ANSWER: Final = 10.0
"""Seconds for requests to the brokers."""
_MEMBERSHIP: Final = frozenset(
    {"group.protocol", "group.instance.id", "group.remote.assignor"}
)
"""Settings that make no sense for a consumer that joins no group."""
_ATTEMPT_DETAILS: Final = re.compile(r" \(after \d+ms in state [A-Z_]+\)")
_MECHANISMS: Final = re.compile(r"supported mechanisms: ([^()]*)")

MISSING: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 - librdkafka's own name for it
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001 - as above
    }
)
"""Codes of errors which report that a topic or a partition does not exist."""
_CONNECTION: Final = frozenset(
    {
        KafkaError._RESOLVE,  # noqa: SLF001 - librdkafka's own names
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._SSL,  # noqa: SLF001
        KafkaError._AUTHENTICATION,  # noqa: SLF001
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
    }
)


def is_fatal(error: KafkaError) -> bool:
    """Return whether a client that reported this is of no more use.

    An error in the place of a record does not say so itself: its `fatal` is False.
    """
    return error.fatal() or error.code() == KafkaError._FATAL  # noqa: SLF001 - its name


class ConnectionState:
    """What one client knows about its way to the brokers.

    Args:
        settings: librdkafka's settings of the client.

    Attributes:
        settings: likewise.
        error: why no broker serves the client now, or None.
        is_down: whether every broker was tried, and none serves the client.
        fatal: the error after which librdkafka gave the client up, or None.
        is_awaited: whether a caller waits for an answer and gets the error itself, so
            that it need not be logged.
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
        """Why the brokers reject this client until a person acts, or ""."""
        error = self.error
        return str(error) if isinstance(error, ConnectionRejected) else ""

    def current_error(self) -> BrokerUnavailable | None:
        """Return `error` as one that can be raised: each raise needs its own."""
        return None if self.error is None else type(self.error)(str(self.error))

    def reset(self) -> None:
        """Forget everything: a new client takes the place of the old one."""
        self._is_connected, self.is_down = False, False
        self.error, self.fatal = None, None

    def take_error(self, error: KafkaError) -> None:
        """Take an error that librdkafka reports (`error_cb`)."""
        if is_fatal(error):
            self.fatal = error
        if error.code() not in _CONNECTION:
            return
        reason = explain(error, self.settings)
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - its name
            self._is_connected, self.is_down = False, True
            self.error = self.error or reason
            self._log()
        elif not self._is_connected:
            self.error = reason
            if isinstance(reason, ConnectionRejected):
                self._log()

    def take_statistics(self, text: str) -> None:
        """Take librdkafka's statistics (`stats_cb`): whether a broker is connected."""
        brokers = json.loads(text).get("brokers", {}).values()
        if any(broker.get("state") == "UP" for broker in brokers):
            self.answered()
        else:
            self._is_connected = False

    def answered(self) -> None:
        """Note that a broker served the client."""
        self._is_connected, self.is_down = True, False
        if self.error is not None:
            self.error = None
            if self._logged:
                log.info("a broker answers again")
            self._logged = ""

    def _log(self) -> None:
        text = str(self.error)
        if text != self._logged and not self.is_awaited:
            self._logged = text
            log.warning("%s; trying again", text)


def build_producer(
    settings: Mapping[str, Any],
    state: ConnectionState,
    logger: logging.Logger | None = None,
) -> Producer:
    """Return a producer; librdkafka logs to *logger* what its `log_level` allows.

    Raises:
        ConfigError: librdkafka refuses the settings.
    """
    complete = {**_QUIET, **settings, **_watched(state)}
    with _mapped(settings):
        return Producer(complete, logger=logger or log)


def build_consumer(
    settings: Mapping[str, Any],
    state: ConnectionState,
    on_statistics: Callable[[str], None] | None = None,
) -> Consumer:
    """Return a consumer; *on_statistics* gets librdkafka's statistics, too.

    Raises:
        ConfigError: librdkafka refuses the settings.
    """
    complete = {**_QUIET, **settings, **_watched(state, on_statistics)}
    with _mapped(settings):
        return Consumer(complete)


def build_reader(settings: Mapping[str, Any], state: ConnectionState) -> Consumer:
    """Return a consumer that is assigned partitions by hand, and changes nothing.

    It joins no group, commits no offset and creates no topic, whatever *settings* say.
    It sees the end of each partition.

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
    with _mapped(settings):
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
        client: asks.
        topic: its name.
        state: of *client*.
        is_new: whether *client* has neither subscription nor assignment. Then its
            errors are taken while it waits, so a client that the brokers reject is
            reported at once.
        timeout: seconds; 10 unless set.

    Raises:
        BrokerUnavailable: no broker answers; ConnectionRejected tells why, if known.
        TopicRefused: the topic does not exist, or this user may not see it.
    """
    known = metadata(client, topic, state, is_new=is_new, timeout=timeout)
    found = known.topics[topic]
    if found.error is not None:
        raise topic_error(found.error, topic, DESCRIBE, state.settings)
    return sorted(found.partitions)


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
    within = _ANSWER if timeout is None else timeout
    if not is_new:
        return _metadata(client, topic, state, within)
    end, attempt = monotonic() + within, _FIRST_ATTEMPT
    state.is_awaited = True
    try:
        while True:
            left = max(end - monotonic(), 0.01)
            is_last = left < 3 * attempt  # the next one would be shorter than planned
            try:
                return _metadata(client, topic, state, left if is_last else attempt)
            except BrokerUnavailable as exc:
                client.poll(0)
                # Of several brokers the next one may serve a client that one rejects.
                is_over = monotonic() >= end
                if is_over or (state.rejection and state.is_down):
                    raise (state.current_error() or exc) from exc
            if not is_last:  # one that failed early is repeated
                attempt *= 2
    finally:
        state.is_awaited = False


def _metadata(
    client: Producer | Consumer | AdminClient,
    topic: str | None,
    state: ConnectionState,
    timeout: float,
) -> Any:
    try:
        answer = client.list_topics(topic, timeout=timeout)
    except KafkaException as exc:
        text = f"no broker answers: {exc.args[0].str()}"
        raise state.current_error() or BrokerUnavailable(text) from exc
    state.answered()
    return answer


def topic_error(
    error: KafkaError, topic: str, operation: str, settings: Mapping[str, Any]
) -> TopicRefused:
    """Return what an error about a topic means to us."""
    if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return denied(operation, TOPIC, topic, settings)
    if error.code() in MISSING:
        return TopicRefused(
            f"{topic}: {error.str()}; `fnm-bus topics create` creates it"
        )
    return TopicRefused(f"{topic}: {error.str()}")


def access_error(  # noqa: PLR0913 - what may be missing
    error: KafkaError,
    settings: Mapping[str, Any],
    *,
    topic: str = "",
    operation: str = READ,
    group: str = "",
    transactional_id: str = "",
) -> AccessDenied | None:
    """Return which right is missing according to *error*; None if it is about none.

    Args:
        error: librdkafka's.
        settings: of the client.
        topic: that is read or written, if it is known.
        operation: on the topic.
        group: of the consumer.
        transactional_id: of the producer.
    """
    code = error.code()
    if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return denied(operation, TOPIC, topic, settings)
    if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
        return denied(READ, GROUP, group, settings)
    if code == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
        return denied(WRITE, TRANSACTIONAL_ID, transactional_id, settings)
    if code == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
        return denied(IDEMPOTENT_WRITE, CLUSTER, "kafka-cluster", settings)
    return None


def denied(
    operation: str, kind: str, name: str, settings: Mapping[str, Any]
) -> AccessDenied:
    """Return the error about a right that this client's user lacks."""
    return AccessDenied(
        f"{kind} {name or '(unknown)'}: {principal_of(settings)} has no {operation}"
        " right (authorization failed); `fnm-bus topics acls` prints the commands that"
        " give it"
    )


def principal_of(settings: Mapping[str, Any]) -> str:
    """Return Kafka's name for this client's user, as far as the settings show it."""
    user = settings.get("sasl.username") or settings.get("sasl.user")
    is_sasl = str(settings.get("security.protocol", "")).lower().startswith("sasl")
    return f"User:{user}" if user and is_sasl else "this client's user"


def explain(error: KafkaError, settings: Mapping[str, Any]) -> BrokerUnavailable:
    """Return what an error of a connection means, and what to do."""
    text = _ATTEMPT_DETAILS.sub("", without_secrets(error.str(), settings))
    code = error.code()
    if code == KafkaError._RESOLVE:  # noqa: SLF001 - librdkafka's own name
        remedy = 'correct "bootstrap.servers" in [kafka], or the DNS'
        return BrokerUnavailable(f"no broker answers: {text}; {remedy}")
    if code == KafkaError._AUTHENTICATION:  # noqa: SLF001 - as above
        return ConnectionRejected(_explain_authentication(text, settings))
    if code == KafkaError._SSL:  # noqa: SLF001 - as above
        return ConnectionRejected(f"{text}; `fnm-bus check` finds the reason")
    if code == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - as above
        return BrokerUnavailable(f"no broker answers: {text}")
    return _explain_transport(text, settings)


def _explain_transport(text: str, settings: Mapping[str, Any]) -> BrokerUnavailable:
    if "PLAINTEXT broker listener" in text:
        protocol = str(settings.get("security.protocol", "")).upper()
        return ConnectionRejected(
            f'{text}; "security.protocol" = "{protocol}" uses TLS, and this port does'
            " not: correct the port or the protocol in [kafka]"
        )
    if "Connection refused" in text:
        text += '; start Kafka, or correct "bootstrap.servers" in [kafka]'
    return BrokerUnavailable(f"no broker answers: {text}")


def _explain_authentication(text: str, settings: Mapping[str, Any]) -> str:
    mechanism = settings.get("sasl.mechanism", settings.get("sasl.mechanisms", ""))
    if "Unsupported SASL mechanism" in text:
        offered = _MECHANISMS.search(text)
        wanted = f" = {offered[1].strip()}" if offered else ""
        return (
            f"{text}; the broker does not offer {mechanism}: set"
            f' "sasl.mechanism"{wanted} in [kafka]'
        )
    user = settings.get("sasl.username") or settings.get("sasl.user") or ""
    return (
        f"{text}; unknown user or wrong password for {mechanism}: correct"
        f' "sasl.username" ({user}) in [kafka], or "sasl.password"'
    )


def _watched(
    state: ConnectionState, on_statistics: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Return the settings by which librdkafka reports to *state*."""

    def take(text: str) -> None:
        state.take_statistics(text)
        if on_statistics is not None:
            on_statistics(text)

    return {
        "error_cb": state.take_error,
        "stats_cb": take,
        "statistics.interval.ms": _STATISTICS,
    }


@contextmanager
def _mapped(settings: Mapping[str, Any]) -> Iterator[None]:
    """Turn librdkafka's refusal of *settings* into a ConfigError without secrets."""
    try:
        yield
    except KafkaException as exc:
        text = without_secrets(exc.args[0].str(), settings)
    except (TypeError, ValueError) as exc:
        text = without_secrets(str(exc), settings)
    else:
        return
    # Without the cause: its text may hold what was masked.
    raise ConfigError(f"[kafka]: {text}")
