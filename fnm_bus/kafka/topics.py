"""Plan, create and describe topics, and grant rights on them."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # not in its __all__
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from fnm_bus.errors import AccessDenied, BrokerUnavailable, PublishError, TopicRefused
from fnm_bus.kafka.access import Right
from fnm_bus.kafka.client import ConnectionState, build_admin, metadata
from fnm_bus.kafka.client_errors import MISSING_TOPIC_CODES, access_denied, topic_error
from fnm_bus.kafka.names import CLUSTER, DESCRIBE, GROUP, TOPIC, TRANSACTIONAL_ID
from fnm_bus.kafka.publisher import classify_error
from fnm_bus.kafka.route import Topics

_DAY: Final = 86_400_000
_DELETE: Final = {"cleanup.policy": "delete", "retention.ms": str(30 * _DAY)}
# An attack_status repeats its ban's figures every few seconds, so it is soon obsolete.
_SHORT: Final = {"cleanup.policy": "delete", "retention.ms": str(7 * _DAY)}
# For the audit: decisions, commands and dead letters.
_LONG: Final = {"cleanup.policy": "delete", "retention.ms": str(365 * _DAY)}
# An enforcer reads the broker's time from the answer to its own record.
_AUDIT: Final = {**_LONG, "message.timestamp.type": "LogAppendTime"}
_COMPACT: Final = {
    "cleanup.policy": "compact",
    # Leases begin at the broker's time of a record, not at the producer's.
    "message.timestamp.type": "LogAppendTime",
    # Every mitigation is renewed every few minutes. Without these settings a new reader
    # would read a week of renewals before it has the wanted state.
    "segment.ms": str(3_600_000),
    "min.cleanable.dirty.ratio": "0.1",
    "max.compaction.lag.ms": str(6 * 3_600_000),
    # An enforcer that was down for less than this receives every tombstone.
    "delete.retention.ms": str(7 * _DAY),
}
_INVALID_REQUEST_CODES: Final = frozenset(
    {
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.INVALID_CONFIG,
        KafkaError.INVALID_PARTITIONS,
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.INVALID_REQUEST,
    }
)
"""Codes of refusals that the same request would meet again."""
_LOADING_CODES: Final = frozenset(
    {KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE}
)
"""Codes of a broker's answers about groups until their topic is loaded."""
_KINDS: Final = {
    TOPIC: ResourceType.TOPIC,
    GROUP: ResourceType.GROUP,
    TRANSACTIONAL_ID: ResourceType.TRANSACTIONAL_ID,
}
_SAFE_REPLICAS: Final = 3
"""From this number of replicas on, two must have a record to acknowledge it."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic, planned or existing.

    Attributes:
        name: its name.
        partitions: their number.
        replication: number of replicas of each partition.
        settings: the settings that fnm-bus depends on; None without the right
            DescribeConfigs.
        operations: operations that this user may do, in kafka-acls' words.
    """

    name: str
    partitions: int
    replication: int
    settings: Mapping[str, str] | None
    operations: frozenset[str] = frozenset()


def planned_topics(
    topics: Topics, partitions: int, replication: int
) -> tuple[TopicSpec, ...]:
    """Return the plan of all topics.

    Host and status topics have the same number of partitions, so that one consumer
    gets all events of a target. The command topic has one partition, which keeps the
    commands in order.
    """
    safe = {"min.insync.replicas": "2"} if replication >= _SAFE_REPLICAS else {}
    plan = (
        (topics.host, partitions, _DELETE),
        (topics.hostgroup, partitions, _DELETE),
        (topics.status, partitions, _SHORT),
        (topics.reason, partitions, _COMPACT),
        (topics.mitigation, partitions, _COMPACT),
        (topics.command, 1, _AUDIT),
        (topics.audit, partitions, _AUDIT),
        (topics.deadletter, 1, _LONG),
    )
    return tuple(
        TopicSpec(name, count, replication, {**settings, **safe})
        for name, count, settings in plan
    )


class TopicAdmin:
    """Creates and describes topics and rights.

    Args:
        settings: librdkafka's settings.
        timeout: seconds for each request.
    """

    def __init__(self, settings: Mapping[str, str], timeout: float = 10.0) -> None:
        self._settings = settings
        self._timeout = timeout

    def create(self, topics: Sequence[TopicSpec]) -> list[str]:
        """Create missing topics; return the names of the created ones.

        Existing topics are not changed. Created topics are usable at once.

        Raises:
            ConfigError: librdkafka refuses the settings.
            BrokerUnavailable, TopicRefused: no broker answers, or Kafka refuses.
        """
        new = [
            NewTopic(
                topic.name,
                topic.partitions,
                topic.replication,
                config=dict(topic.settings or {}),
            )
            for topic in topics
        ]
        # Kept until all requests are answered: closing the client would fail them.
        client, state = self._client()
        metadata(client, None, state, is_new=True, timeout=self._timeout)
        answers = client.create_topics(new, request_timeout=self._timeout)
        created, refused = [], []
        for name, answer in answers.items():
            try:
                answer.result()
            except KafkaException as exc:
                if exc.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    refused.append(_error(exc, name))
            else:
                created.append(name)
        self._await_visible(client, state, created)
        # Last, since Kafka may refuse one topic and create the next one.
        for error in refused:
            if isinstance(error, BrokerUnavailable):
                raise error
        if refused:
            raise TopicRefused("\n".join(str(error) for error in refused))
        return created

    def find(self, topics: Sequence[TopicSpec]) -> dict[str, TopicSpec]:
        """Return the existing ones of *topics*, by name.

        Raises:
            ConfigError: librdkafka refuses the settings.
            BrokerUnavailable, TopicRefused: no broker answers, or Kafka refuses; the
                Describe right on a topic is missing.
        """
        existing = {}
        for name, topic in self.describe([topic.name for topic in topics]).items():
            if isinstance(topic, AccessDenied):
                raise topic
            if isinstance(topic, TopicSpec):
                existing[name] = topic
        return existing

    def describe(self, names: Sequence[str]) -> dict[str, TopicSpec | TopicRefused]:
        """Return each topic's description, or the reason if it is not visible.

        Raises:
            ConfigError: librdkafka refuses the settings.
            BrokerUnavailable: no broker answers.
        """
        if not names:
            return {}
        client, state = self._client()
        metadata(client, None, state, is_new=True, timeout=self._timeout)
        answers = client.describe_topics(
            TopicCollection(list(names)),
            include_authorized_operations=True,
            request_timeout=self._timeout,
        )
        topics: dict[str, TopicSpec | TopicRefused] = {}
        for name, answer in answers.items():
            try:
                topics[name] = _topic_spec(name, answer.result())
            except KafkaException as exc:
                topics[name] = self._refusal(exc, name, state)
        visible = [
            name for name, topic in topics.items() if isinstance(topic, TopicSpec)
        ]
        for name, settings in self._configs(client, visible).items():
            topic = topics[name]
            if isinstance(topic, TopicSpec):
                topics[name] = replace(topic, settings=settings)
        return topics

    def group_rights(self, names: Sequence[str]) -> dict[str, frozenset[str]]:
        """Return group → operations that this user may do.

        Raises:
            ConfigError: librdkafka refuses the settings.
            BrokerUnavailable: no broker answers.
        """
        if not names:
            return {}
        client, state = self._client()
        metadata(client, None, state, is_new=True, timeout=self._timeout)
        end = monotonic() + self._timeout
        rights: dict[str, frozenset[str]] = {}
        while missing := [name for name in names if name not in rights]:
            answers = client.describe_consumer_groups(
                missing,
                include_authorized_operations=True,
                request_timeout=self._timeout,
            )
            for name, answer in answers.items():
                try:
                    rights[name] = _operations(answer.result().authorized_operations)
                except KafkaException as exc:
                    code = exc.args[0].code()
                    if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
                        rights[name] = frozenset()
                    elif code not in _LOADING_CODES or monotonic() > end:
                        raise _error(exc, f"group {name}") from exc
        return rights

    def grant(self, principal: str, rights: Iterable[Right]) -> None:
        """Give *principal* additional *rights*, for every client address.

        Raises:
            ConfigError: librdkafka refuses the settings.
            BrokerUnavailable, AccessDenied: no broker answers, or Kafka refuses.
        """
        client, state = self._client()
        metadata(client, None, state, is_new=True, timeout=self._timeout)
        bindings = [_binding(principal, right) for right in rights]
        answers = client.create_acls(bindings, request_timeout=self._timeout)
        for binding, answer in answers.items():
            try:
                answer.result()
            except KafkaException as exc:
                if exc.args[0].code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
                    raise access_denied(
                        "Alter", CLUSTER, "kafka-cluster", self._settings
                    ) from exc
                raise _error(exc, binding.name) from exc

    def _configs(
        self, client: AdminClient, names: Sequence[str]
    ) -> dict[str, Mapping[str, str] | None]:
        """Return the settings of topics; None without the DescribeConfigs right."""
        if not names:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        answers = client.describe_configs(resources, request_timeout=self._timeout)
        configs: dict[str, Mapping[str, str] | None] = {}
        for resource, answer in answers.items():
            try:
                settings = answer.result()
            except KafkaException as exc:
                if exc.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    raise _error(exc, resource.name) from exc
                configs[resource.name] = None
            else:
                configs[resource.name] = {
                    key: entry.value for key, entry in settings.items()
                }
        return configs

    def _refusal(
        self, error: KafkaException, name: str, state: ConnectionState
    ) -> TopicRefused:
        cause = error.args[0]
        mapped = topic_error(cause, name, DESCRIBE, self._settings)
        if cause.code() in MISSING_TOPIC_CODES or isinstance(mapped, AccessDenied):
            return mapped
        raise state.current_error() or _error(error, name) from error

    def _await_visible(
        self, client: AdminClient, state: ConnectionState, created: Sequence[str]
    ) -> None:
        """Wait until a broker lists the topics that the controller created."""
        end = monotonic() + self._timeout
        while missing := set(created) - metadata(client, None, state).topics.keys():
            if monotonic() > end:
                raise BrokerUnavailable(f"created, but not listed: {sorted(missing)}")

    def _client(self) -> tuple[AdminClient, ConnectionState]:
        state = ConnectionState(self._settings)
        return build_admin(self._settings, state), state


def _topic_spec(name: str, description: Any) -> TopicSpec:
    replicas = (len(partition.replicas) for partition in description.partitions)
    return TopicSpec(
        name,
        len(description.partitions),
        min(replicas, default=0),
        None,
        _operations(description.authorized_operations),
    )


def _operations(operations: Iterable[AclOperation] | None) -> frozenset[str]:
    """Return operations in kafka-acls' words, such as DescribeConfigs."""
    return frozenset(
        operation.name.replace("_", " ").title().replace(" ", "")
        for operation in operations or ()
    )


def _binding(principal: str, right: Right) -> AclBinding:
    operation = re.sub(r"(?<!^)(?=[A-Z])", "_", right.operation).upper()
    kind = _KINDS[right.kind]
    return AclBinding(
        kind,
        right.name,
        ResourcePatternType.LITERAL,
        principal,
        "*",
        AclOperation[operation],
        AclPermissionType.ALLOW,
    )


def topic_differences(topic: TopicSpec, existing: TopicSpec | None) -> Iterator[str]:
    """Yield a phrase for each difference from the plan *topic*."""
    if existing is None:
        yield "missing"
        return
    if existing.partitions != topic.partitions:
        yield f"partitions: {existing.partitions}, wanted {topic.partitions}"
    if existing.replication < topic.replication:
        yield f"replication: {existing.replication}, wanted {topic.replication}"
    if topic.settings is None or existing.settings is None:
        return
    for key, value in topic.settings.items():
        if existing.settings.get(key) != value:
            yield f"{key}: {existing.settings.get(key)}, wanted {value}"


def _error(error: KafkaException, name: str) -> PublishError:
    """Return our error for librdkafka's error about a topic."""
    cause = error.args[0]
    if cause.code() in _INVALID_REQUEST_CODES:
        return TopicRefused(f"{name}: {cause.str()} ({cause.name()})")
    return classify_error(cause, name)
