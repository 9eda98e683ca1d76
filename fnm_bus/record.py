"""What Kafka stores: topic, key, value, headers."""

from typing import NamedTuple


class Record(NamedTuple):
    """One Kafka record, ready to publish.

    Attributes:
        topic: where it goes.
        key: decides the partition, so it decides the order; None spreads records.
        value: the framed Avro bytes; None is a tombstone in a compacted topic.
        headers: CloudEvents attributes in Kafka's binary mode, names to bytes.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
