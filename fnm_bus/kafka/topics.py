"""The topics as they should be, and as they are; and who may do what with them."""

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
# An attack_status repeats its ban's figures every few seconds: it is of no use later.
_SHORT: Final = {"cleanup.policy": "delete", "retention.ms": str(7 * _DAY)}
# What was decided, and what was asked for and could not be understood: for the audit.
_LONG: Final = {"cleanup.policy": "delete", "retention.ms": str(365 * _DAY)}
# The broker's answer to a record here tells an enforcer what time it is there.
_AUDIT: Final = {**_LONG, "message.timestamp.type": "LogAppendTime"}
_COMPACT: Final = {
    "cleanup.policy": "compact",
    # Leases run from the broker's time of a record, not from its writer's.
    "message.timestamp.type": "LogAppendTime",
    # Every mitigation is renewed every few minutes: without these, a new reader would
    # have to read a week of renewals before it knows what is wanted.
    "segment.ms": str(3_600_000),
    "min.cleanable.dirty.ratio": "0.1",
    "max.compaction.lag.ms": str(6 * 3_600_000),
    # An enforcer that was away for less than this sees every tombstone.
    "delete.retention.ms": str(7 * _DAY),
}
_WANTED_WRONG: Final = frozenset(
    {
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.INVALID_CONFIG,
        KafkaError.INVALID_PARTITIONS,
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.INVALID_REQUEST,
    }
)
"""Refusals of what was asked for; asking again as it is does not help."""
_NOT_YET: Final = frozenset(
    {KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE}
)
"""What a broker answers about groups until their topic is loaded."""
_KINDS: Final = {
    TOPIC: ResourceType.TOPIC,
    GROUP: ResourceType.GROUP,
    TRANSACTIONAL_ID: ResourceType.TRANSACTIONAL_ID,
}
_SAFE_REPLICAS: Final = 3
"""With so many replicas, two must have a record before it counts as taken."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic, wanted or found.

    Attributes:
        name: its name.
        partitions: how many it has.
        replication: on how many brokers each partition is.
        settings: those of its settings that matter to us; None: not visible without
            the right DescribeConfigs.
        operations: what is allowed to us, in kafka-acls' words.
    """

    name: str
    partitions: int
    replication: int
    settings: Mapping[str, str] | None
    operations: frozenset[str] = frozenset()


def planned_topics(
    topics: Topics, partitions: int, replication: int
) -> tuple[TopicSpec, ...]:
    """Return all topics as they should be.

    Host and status topics have the same number of partitions, so that one consumer
    gets all of one target. The command topic has one: commands have an order.
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
        """Create what is missing; return the names of what was created.

        What exists already is not changed. What was created can be used at once.

        Raises:
            ConfigError: librdkafka refuses the settings.
            BrokerUnavailable, TopicRefused: Kafka does not answer, or refuses.
        """
        new = [
            NewTopic(
                it.name, it.partitions, it.replication, config=dict(it.settings or {})
            )
            for it in topics
        ]
        # Kept until all is answered: its end would be the answer to what is open.
        client, state = self._client()
        metadata(client, None, state, is_new=True, timeout=self._timeout)
        answers = client.create_topics(new, request_timeout=self._timeout)
        made, refused = [], []
        for name, answer in answers.items():
            try:
                answer.result()
            except KafkaException as exc:
                if exc.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    refused.append(_error(exc, name))
            else:
                made.append(name)
        self._wait(client, state, made)
        # Last, since one may be refused and the next one be made.
        for error in refused:
            if isinstance(error, BrokerUnavailable):
                raise error
        if refused:
            raise TopicRefused("\n".join(str(it) for it in refused))
        return made

    def find(self, topics: Sequence[TopicSpec]) -> dict[str, TopicSpec]:
        """Return those of *topics* that exist, as they are, by name.

        Raises:
            ConfigError: librdkafka refuses the settings.
            BrokerUnavailable, TopicRefused: Kafka does not answer, or refuses; one of
                them must not be seen.
        """
        found = {}
        for name, topic in self.describe([topic.name for topic in topics]).items():
            if isinstance(topic, AccessDenied):
                raise topic
            if isinstance(topic, TopicSpec):
                found[name] = topic
        return found

    def describe(self, names: Sequence[str]) -> dict[str, TopicSpec | TopicRefused]:
        """Return each topic as it is, or why it cannot be seen.

        Raises:
            ConfigError: librdkafka refuses the settings.
            BrokerUnavailable: Kafka does not answer.
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
        found: dict[str, TopicSpec | TopicRefused] = {}
        for name, answer in answers.items():
            try:
                found[name] = _described(name, answer.result())
            except KafkaException as exc:
                found[name] = self._refusal(exc, name, state)
        visible = [
            name for name, topic in found.items() if isinstance(topic, TopicSpec)
        ]
        for name, settings in self._configs(client, visible).items():
            topic = found[name]
            if isinstance(topic, TopicSpec):
                found[name] = replace(topic, settings=settings)
        return found

    def group_rights(self, names: Sequence[str]) -> dict[str, frozenset[str]]:
        """Return for each consumer group the operations that are allowed to us.

        Raises:
            ConfigError: librdkafka refuses the settings.
            BrokerUnavailable: Kafka does not answer.
        """
        if not names:
            return {}
        client, state = self._client()
        metadata(client, None, state, is_new=True, timeout=self._timeout)
        end = monotonic() + self._timeout
        found: dict[str, frozenset[str]] = {}
        while missing := [name for name in names if name not in found]:
            answers = client.describe_consumer_groups(
                missing,
                include_authorized_operations=True,
                request_timeout=self._timeout,
            )
            for name, answer in answers.items():
                try:
                    found[name] = _operations(answer.result().authorized_operations)
                except KafkaException as exc:
                    code = exc.args[0].code()
                    if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
                        found[name] = frozenset()
                    elif code not in _NOT_YET or monotonic() > end:
                        raise _error(exc, f"group {name}") from exc
        return found

    def grant(self, principal: str, rights: Iterable[Right]) -> None:
        """Let *principal* have *rights*, on every host; what it has it keeps.

        Raises:
            ConfigError: librdkafka refuses the settings.
            BrokerUnavailable, AccessDenied: Kafka does not answer, or refuses.
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
        """Return the settings of topics; None where they must not be seen."""
        if not names:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        answers = client.describe_configs(resources, request_timeout=self._timeout)
        found: dict[str, Mapping[str, str] | None] = {}
        for resource, answer in answers.items():
            try:
                settings = answer.result()
            except KafkaException as exc:
                if exc.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    raise _error(exc, resource.name) from exc
                found[resource.name] = None
            else:
                found[resource.name] = {
                    key: entry.value for key, entry in settings.items()
                }
        return found

    def _refusal(
        self, error: KafkaException, name: str, state: ConnectionState
    ) -> TopicRefused:
        cause = error.args[0]
        mapped = topic_error(cause, name, DESCRIBE, self._settings)
        if cause.code() in MISSING_TOPIC_CODES or isinstance(mapped, AccessDenied):
            return mapped
        raise state.current_error() or _error(error, name) from error

    def _wait(
        self, client: AdminClient, state: ConnectionState, made: Sequence[str]
    ) -> None:
        """Wait until a broker tells of the topics that the controller has made."""
        end = monotonic() + self._timeout
        while missing := set(made) - metadata(client, None, state).topics.keys():
            if monotonic() > end:
                raise BrokerUnavailable(f"made, but not to be seen: {sorted(missing)}")

    def _client(self) -> tuple[AdminClient, ConnectionState]:
        state = ConnectionState(self._settings)
        return build_admin(self._settings, state), state


def _described(name: str, description: Any) -> TopicSpec:
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


def topic_differences(topic: TopicSpec, found: TopicSpec | None) -> Iterator[str]:
    """Yield what is not as wanted, a phrase each."""
    if found is None:
        yield "missing"
        return
    if found.partitions != topic.partitions:
        yield f"partitions: {found.partitions}, wanted {topic.partitions}"
    if found.replication < topic.replication:
        yield f"replication: {found.replication}, wanted {topic.replication}"
    if topic.settings is None or found.settings is None:
        return
    for key, value in topic.settings.items():
        if found.settings.get(key) != value:
            yield f"{key}: {found.settings.get(key)}, wanted {value}"


def _error(error: KafkaException, name: str) -> PublishError:
    """Return what librdkafka's error about a topic means to us."""
    cause = error.args[0]
    if cause.code() in _WANTED_WRONG:
        return TopicRefused(f"{name}: {cause.str()} ({cause.name()})")
    return classify_error(cause, name)
