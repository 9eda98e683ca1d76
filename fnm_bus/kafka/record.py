"""A Kafka record: topic, key, value, headers."""

from typing import NamedTuple


class Record(NamedTuple):
    """One Kafka record, ready to publish.

    Attributes:
        topic: the destination.
        key: selects the partition, and so the order; None spreads records.
        value: the framed Avro bytes; None is a tombstone in a compacted topic.
        headers: CloudEvents attributes in Kafka's binary mode, names to bytes.
        partition: overrides the key's partition; -1 for the key's.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int = -1
