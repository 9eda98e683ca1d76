"""The state of a broker and a directory, to prove that a command changed nothing."""

import hashlib
from pathlib import Path
from typing import Any

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

_TIMEOUT = 30


def kafka_state(bootstrap: str) -> dict[str, Any]:
    """Return all topics with the end of each partition, and all groups.

    Kafka keeps the offsets and members of groups, and the producers with a
    transactional id, in topics of its own: so their ends tell of these, too.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap})
    topics = admin.list_topics(timeout=_TIMEOUT).topics
    partitions = [
        TopicPartition(name, number)
        for name, topic in topics.items()
        for number in topic.partitions
    ]
    ends = {
        f"{at.topic}[{at.partition}]": answer.result(_TIMEOUT).offset
        for at, answer in admin.list_offsets(
            dict.fromkeys(partitions, OffsetSpec.latest())
        ).items()
    }
    groups = admin.list_consumer_groups().result(_TIMEOUT)
    return {
        "topics": sorted(topics),
        "ends": ends,
        "groups": sorted(group.group_id for group in groups.valid),
    }


def file_state(root: Path) -> dict[str, tuple[object, ...]]:
    """Return name, kind, rights, time and digest of everything below a directory."""
    state: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        facts = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        state[str(path.relative_to(root))] = (
            facts.st_mode,
            facts.st_uid,
            facts.st_gid,
            facts.st_mtime_ns,
            hashlib.sha256(content).hexdigest(),
        )
    return state
