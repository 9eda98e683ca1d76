"""The topics as they should be, and as they are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # not in its __all__
    AclOperation,
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from fnm_bus.errors import BrokerUnavailable, ConfigError, PublishError, TopicRefused
from fnm_bus.publish import classify
from fnm_bus.route import Topics

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
_SAFE_REPLICAS: Final = 3
"""With so many replicas, two must have a record before it counts as taken."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic, wanted or found.

    Attributes:
        name: its name.
        partitions: how many it has.
        replication: on how many brokers each partition is.
        settings: those of its settings that matter to us.
    """

    name: str
    partitions: int
    replication: int
    settings: Mapping[str, str]


def wanted(topics: Topics, partitions: int, replication: int) -> tuple[Topic, ...]:
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
        Topic(name, count, replication, {**settings, **safe})
        for name, count, settings in plan
    )


class Admin:
    """Creates and describes topics.

    Args:
        settings: librdkafka's settings.
        timeout: seconds for each request.
    """

    def __init__(self, settings: Mapping[str, str], timeout: float = 10.0) -> None:
        # What fails is raised; each attempt to connect is no news.
        self._settings: dict[str, Any] = {"log_level": "2", **settings}
        self._timeout = timeout

    def create(self, topics: Sequence[Topic]) -> list[str]:
        """Create what is missing; return the names of what was created.

        What exists already is not changed. What was created can be used at once.

        Raises:
            ConfigError: librdkafka refuses the settings.
            BrokerUnavailable, TopicRefused: Kafka does not answer, or refuses.
        """
        new = [
            NewTopic(it.name, it.partitions, it.replication, config=dict(it.settings))
            for it in topics
        ]
        # Kept until all is answered: its end would be the answer to what is open.
        client = self._client()
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
        self._wait(client, made)
        # Last, since one may be refused and the next one be made.
        for error in refused:
            if isinstance(error, BrokerUnavailable):
                raise error
        if refused:
            raise TopicRefused("\n".join(str(it) for it in refused))
        return made

    def find(self, topics: Sequence[Topic]) -> dict[str, Topic]:
        """Return those of *topics* that exist, as they are, by name.

        Raises:
            ConfigError: librdkafka refuses the settings.
            BrokerUnavailable, TopicRefused: Kafka does not answer, or refuses.
        """
        client = self._client()
        known = self._known(client)
        there = [topic for topic in topics if topic.name in known]
        resources = [ConfigResource(ResourceType.TOPIC, it.name) for it in there]
        answers = (
            client.describe_configs(resources, request_timeout=self._timeout)
            if resources
            else {}
        )
        found = {}
        for resource, answer in answers.items():
            try:
                settings = answer.result()
            except KafkaException as exc:
                raise _error(exc, resource.name) from exc
            partitions = known[resource.name].partitions
            found[resource.name] = Topic(
                resource.name,
                len(partitions),
                min((len(it.replicas) for it in partitions.values()), default=0),
                {key: entry.value for key, entry in settings.items()},
            )
        return found

    def writable(self, names: Sequence[str]) -> dict[str, bool]:
        """Return for each topic whether Kafka's access rules let us write to it.

        Raises:
            ConfigError: librdkafka refuses the settings.
            BrokerUnavailable, TopicRefused: Kafka does not answer, or refuses.
        """
        if not names:
            return {}
        client = self._client()
        answers = client.describe_topics(
            TopicCollection(list(names)),
            include_authorized_operations=True,
            request_timeout=self._timeout,
        )
        found = {}
        for name, answer in answers.items():
            try:
                allowed = answer.result().authorized_operations
            except KafkaException as exc:
                raise _error(exc, name) from exc
            found[name] = AclOperation.WRITE in (allowed or ())
        return found

    def _wait(self, client: AdminClient, made: Sequence[str]) -> None:
        """Wait until a broker tells of the topics that the controller has made."""
        end = monotonic() + self._timeout
        while missing := set(made) - self._known(client).keys():
            if monotonic() > end:
                raise BrokerUnavailable(f"made, but not to be seen: {sorted(missing)}")

    def _known(self, client: AdminClient) -> Mapping[str, Any]:
        try:
            return client.list_topics(timeout=self._timeout).topics
        except KafkaException as exc:
            raise _error(exc, "topics") from exc

    def _client(self) -> AdminClient:
        try:
            return AdminClient(self._settings)
        except KafkaException as exc:
            raise ConfigError(f"[kafka]: {exc.args[0].str()}") from exc


def differences(topic: Topic, found: Topic | None) -> Iterator[str]:
    """Yield what is not as wanted, a phrase each."""
    if found is None:
        yield "missing"
        return
    if found.partitions != topic.partitions:
        yield f"partitions: {found.partitions}, wanted {topic.partitions}"
    if found.replication < topic.replication:
        yield f"replication: {found.replication}, wanted {topic.replication}"
    for key, value in topic.settings.items():
        if found.settings.get(key) != value:
            yield f"{key}: {found.settings.get(key)}, wanted {value}"


def _error(error: KafkaException, name: str) -> PublishError:
    """Return what librdkafka's error about a topic means to us."""
    cause = error.args[0]
    if cause.code() in _WANTED_WRONG:
        return TopicRefused(f"{name}: {cause.str()} ({cause.name()})")
    return classify(cause, name)
