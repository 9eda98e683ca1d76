"""A topic as a table: its columns, its time, and the identity of its rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from fnm_bus.kafka.addressing import Topics
from fnm_bus.kafka.ddl.columns import Column, columns_of
from fnm_bus.kafka.topics import planned_topics

Path = tuple[str, ...]
"""Names of fields, from the record to a value in it."""

_EVENT_TIME: Final[Path] = ("receipt", "received_at")
_EVENT_IDENTITY: Final[tuple[Path, ...]] = (("receipt", "event_id"),)

_KEYS: Final[Mapping[str, tuple[Path, tuple[Path, ...]]]] = MappingProxyType(
    {
        "host": (_EVENT_TIME, _EVENT_IDENTITY),
        "hostgroup": (_EVENT_TIME, _EVENT_IDENTITY),
        "status": (_EVENT_TIME, _EVENT_IDENTITY),
        "reason": (
            ("received_at",),
            (("sensor",), ("scope",), ("target",), ("part",)),
        ),
        "mitigation": (("changed_at",), (("key",),)),
        "command": (("requested_at",), (("command_id",),)),
        "audit": (("at",), ()),
        "deadletter": (("failed_at",), ()),
    }
)


@dataclass(frozen=True, slots=True)
class TopicTable:
    """One topic as a table.

    Attributes:
        name: name of the table: the topic's name in the settings, such as `host`.
        topic: name of the topic.
        full_name: full name of its records.
        columns: the fields of the record.
        time: path of the record's time.
        identity: paths of the values that are equal if a record is published again, or
            if a newer record replaces it; empty if no field identifies a record.
        compacted: whether the newest record of a key replaces the others.
        framed: whether the values have Confluent's framing; else they are Avro single
            objects.
    """

    name: str
    topic: str
    full_name: str
    columns: tuple[Column, ...]
    time: Path
    identity: tuple[Path, ...]
    compacted: bool
    framed: bool


def topic_tables(topics: Topics, *, registry: bool) -> tuple[TopicTable, ...]:
    """Return the tables of all topics, in the order of the flow.

    Args:
        topics: the names of the topics.
        registry: whether the relay writes with the ids of a schema registry.
    """
    records = topics.of_all()
    framed = topics.of_framed() if registry else {}
    compacted = {
        spec.name
        for spec in planned_topics(topics, 1, 1)
        if (spec.settings or {}).get("cleanup.policy") == "compact"
    }
    return tuple(
        TopicTable(
            name,
            topic,
            records[topic],
            columns_of(records[topic]),
            time,
            identity,
            topic in compacted,
            topic in framed,
        )
        for name, (time, identity) in _KEYS.items()
        for topic in [getattr(topics, name)]
    )
