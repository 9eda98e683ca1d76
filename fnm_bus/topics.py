"""The topics as they should be, and as they are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # not in its __all__
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from fnm_bus.errors import BrokerUnavailable, PublishError, TopicRefused
from fnm_bus.publish import classify
from fnm_bus.route import Topics

_DAY: Final = 86_400_000
_DELETE: Final = {"cleanup.policy": "delete", "retention.ms": str(30 * _DAY)}
_LONG: Final = {"cleanup.policy": "delete", "retention.ms": str(365 * _DAY)}
_COMPACT: Final = {
    "cleanup.policy": "compact",
    # Every mitigation is renewed every few minutes: without these, a new reader would
    # have to read a week of renewals before it knows what is wanted.
    "segment.ms": str(3_600_000),
    "min.cleanable.dirty.ratio": "0.1",
    "max.compaction.lag.ms": str(6 * 3_600_000),
    # An enforcer that was away for less than this sees every tombstone.
    "delete.retention.ms": str(7 * _DAY),
}
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
        (topics.status, partitions, {**_DELETE, "retention.ms": str(7 * _DAY)}),
        (topics.mitigation, partitions, _COMPACT),
        (topics.command, 1, _LONG),
        (topics.audit, partitions, _LONG),
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

        What exists already is not changed.

        Raises:
            BrokerUnavailable, TopicRefused: Kafka does not answer, or refuses.
        """
        new = [
            NewTopic(it.name, it.partitions, it.replication, config=dict(it.settings))
            for it in topics
        ]
        client = AdminClient(self._settings)
        answers = client.create_topics(new, request_timeout=self._timeout)
        return [
            name
            for name, answer in answers.items()
            if self._done(name, answer, KafkaError.TOPIC_ALREADY_EXISTS)
        ]

    def find(self, topics: Sequence[Topic]) -> dict[str, Topic]:
        """Return those of *topics* that exist, as they are, by name.

        Raises:
            BrokerUnavailable, TopicRefused: Kafka does not answer, or refuses.
        """
        client = AdminClient(self._settings)
        try:
            known = client.list_topics(timeout=self._timeout).topics
        except KafkaException as exc:
            raise _unavailable(exc) from exc
        there = [topic for topic in topics if topic.name in known]
        resources = [ConfigResource(ResourceType.TOPIC, it.name) for it in there]
        answers = (
            client.describe_configs(resources, request_timeout=self._timeout)
            if resources
            else {}
        )
        found = {}
        for resource, answer in answers.items():
            settings = self._result(resource.name, answer)
            partitions = known[resource.name].partitions
            found[resource.name] = Topic(
                resource.name,
                len(partitions),
                min((len(it.replicas) for it in partitions.values()), default=0),
                {key: entry.value for key, entry in settings.items()},
            )
        return found

    def _done(self, name: str, answer: Any, harmless: int) -> bool:
        try:
            answer.result(self._timeout + 1)
        except KafkaException as exc:
            if exc.args[0].code() == harmless:
                return False
            raise classify(exc.args[0], name) from exc
        return True

    def _result(self, name: str, answer: Any) -> Any:
        try:
            return answer.result(self._timeout + 1)
        except KafkaException as exc:
            raise classify(exc.args[0], name) from exc


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


def _unavailable(error: KafkaException) -> PublishError:
    cause = error.args[0]
    kind = (
        TopicRefused
        if cause.code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED
        else (BrokerUnavailable)
    )
    return kind(f"{cause.str()} ({cause.name()})")
