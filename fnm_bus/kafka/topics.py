"""Plan the topics, and compare existing topics with the plan."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from fnm_bus.kafka.addressing import Topics

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
