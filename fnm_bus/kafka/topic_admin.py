"""Create and describe topics, and grant rights on them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
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
from fnm_bus.kafka.topics import TopicSpec

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
    {
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
    }
)
"""Codes of a broker's answers about groups until their topic is loaded."""
_KINDS: Final = {
    TOPIC: ResourceType.TOPIC,
    GROUP: ResourceType.GROUP,
    TRANSACTIONAL_ID: ResourceType.TRANSACTIONAL_ID,
}


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
                *(topic.name, topic.partitions, topic.replication),
                config=dict(topic.settings or {}),
            )
            for topic in topics
        ]
        # Kept until all requests are answered: closing the client would fail them.
        client, state = self._connect()
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
        client, state = self._connect()
        answers = client.describe_topics(
            TopicCollection(list(names)),
            include_authorized_operations=True,
            request_timeout=self._timeout,
        )
        visible: dict[str, TopicSpec] = {}
        refused: dict[str, TopicRefused] = {}
        for name, answer in answers.items():
            try:
                visible[name] = _topic_spec(name, answer.result())
            except KafkaException as exc:
                refused[name] = self._refusal(exc, name, state)
        configs = self._configs(client, list(visible))
        return refused | {
            name: replace(topic, settings=configs[name])
            for name, topic in visible.items()
        }

    def group_rights(self, names: Sequence[str]) -> dict[str, frozenset[str]]:
        """Return group → operations that this user may do.

        Raises:
            ConfigError: librdkafka refuses the settings.
            BrokerUnavailable: no broker answers.
        """
        if not names:
            return {}
        client, _state = self._connect()
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
        client, _state = self._connect()
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
        configs: dict[str, Mapping[str, str] | None] = dict.fromkeys(names)
        for resource, answer in answers.items():
            try:
                entries = answer.result()
                configs[resource.name] = {k: v.value for k, v in entries.items()}
            except KafkaException as exc:
                if exc.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    raise _error(exc, resource.name) from exc
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

    def _connect(self) -> tuple[AdminClient, ConnectionState]:
        """Return a client that a broker has answered."""
        state = ConnectionState(self._settings)
        client = build_admin(self._settings, state)
        metadata(client, None, state, is_new=True, timeout=self._timeout)
        return client, state


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
    return AclBinding(
        _KINDS[right.kind],
        right.name,
        ResourcePatternType.LITERAL,
        principal,
        "*",
        AclOperation[operation],
        AclPermissionType.ALLOW,
    )


def _error(error: KafkaException, name: str) -> PublishError:
    """Return our error for librdkafka's error about a topic."""
    cause = error.args[0]
    if cause.code() in _INVALID_REQUEST_CODES:
        return TopicRefused(f"{name}: {cause.str()} ({cause.name()})")
    return classify_error(cause, name)
