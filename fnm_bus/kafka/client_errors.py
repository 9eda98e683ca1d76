"""Map librdkafka's errors to ours, each with its remedy."""

import re
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import KafkaError

from fnm_bus.config.secrets import without_secrets
from fnm_bus.errors import (
    AccessDenied,
    BrokerUnavailable,
    ConnectionRejected,
    TopicRefused,
)
from fnm_bus.kafka.names import (
    CLUSTER,
    GROUP,
    IDEMPOTENT_WRITE,
    READ,
    TOPIC,
    TRANSACTIONAL_ID,
    WRITE,
)

MISSING_TOPIC_CODES: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 - librdkafka's own name for it
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001 - as above
    }
)
"""Codes of errors about a topic or partition that does not exist."""

_ATTEMPT_DETAILS: Final = re.compile(r" \(after \d+ms in state [A-Z_]+\)")
_MECHANISMS: Final = re.compile(r"supported mechanisms: ([^()]*)")


def is_fatal(error: KafkaError) -> bool:
    """Return whether the client that reported *error* is unusable.

    The method `fatal` returns False for an error in the place of a record.
    """
    return error.fatal() or error.code() == KafkaError._FATAL  # noqa: SLF001 - its name


def topic_error(
    error: KafkaError, topic: str, operation: str, settings: Mapping[str, Any]
) -> TopicRefused:
    """Return our error for librdkafka's error about a topic."""
    if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return access_denied(operation, TOPIC, topic, settings)
    if error.code() in MISSING_TOPIC_CODES:
        return TopicRefused(
            f"{topic}: {error.str()}; `fnm-bus topics create` creates it"
        )
    return TopicRefused(f"{topic}: {error.str()}")


def access_error(  # noqa: PLR0913 - each resource that a right can be about
    error: KafkaError,
    settings: Mapping[str, Any],
    *,
    topic: str = "",
    operation: str = READ,
    group: str = "",
    transactional_id: str = "",
) -> AccessDenied | None:
    """Return the missing right that *error* reports; None for any other error.

    Args:
        error: librdkafka's.
        settings: of the client.
        topic: the topic that is read or written, if known.
        operation: on the topic.
        group: of the consumer.
        transactional_id: of the producer.
    """
    code = error.code()
    if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return access_denied(operation, TOPIC, topic, settings)
    if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
        return access_denied(READ, GROUP, group, settings)
    if code == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
        return access_denied(WRITE, TRANSACTIONAL_ID, transactional_id, settings)
    if code == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
        return access_denied(IDEMPOTENT_WRITE, CLUSTER, "kafka-cluster", settings)
    return None


def access_denied(
    operation: str, kind: str, name: str, settings: Mapping[str, Any]
) -> AccessDenied:
    """Return the error about a right that the client's user lacks."""
    return AccessDenied(
        f"{kind} {name or '(unknown)'}: {principal_of(settings)} has no {operation}"
        " right (authorization failed); `fnm-bus topics acls` prints the commands that"
        " give it"
    )


def principal_of(settings: Mapping[str, Any]) -> str:
    """Return Kafka's name for the client's user, as far as the settings show it."""
    user = settings.get("sasl.username") or settings.get("sasl.user")
    is_sasl = str(settings.get("security.protocol", "")).lower().startswith("sasl")
    return f"User:{user}" if user and is_sasl else "this client's user"


def explain_error(error: KafkaError, settings: Mapping[str, Any]) -> BrokerUnavailable:
    """Return our error for librdkafka's error about a connection, with the remedy."""
    text = _ATTEMPT_DETAILS.sub("", without_secrets(error.str(), settings))
    code = error.code()
    if code == KafkaError._RESOLVE:  # noqa: SLF001 - librdkafka's own name
        remedy = 'correct "bootstrap.servers" in [kafka], or the DNS'
        return BrokerUnavailable(f"no broker reachable: {text}; {remedy}")
    if code == KafkaError._AUTHENTICATION:  # noqa: SLF001 - as above
        return ConnectionRejected(_explain_authentication(text, settings))
    if code == KafkaError._SSL:  # noqa: SLF001 - as above
        return ConnectionRejected(f"{text}; `fnm-bus check` finds the reason")
    if code == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - as above
        return BrokerUnavailable(f"no broker reachable: {text}")
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
    return BrokerUnavailable(f"no broker reachable: {text}")


def _explain_authentication(text: str, settings: Mapping[str, Any]) -> str:
    mechanism = settings.get("sasl.mechanism", settings.get("sasl.mechanisms", ""))
    if "Unsupported SASL mechanism" in text:
        offered = _MECHANISMS.search(text)
        value = f" = {offered[1].strip()}" if offered else ""
        return (
            f"{text}; the broker does not offer {mechanism}: set"
            f' "sasl.mechanism"{value} in [kafka]'
        )
    user = settings.get("sasl.username") or settings.get("sasl.user") or ""
    return (
        f"{text}; unknown user or wrong password for {mechanism}: correct"
        f' "sasl.username" ({user}) in [kafka], or "sasl.password"'
    )
