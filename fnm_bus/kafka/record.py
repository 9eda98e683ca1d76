"""What Kafka stores: topic, key, value, headers."""

from typing import NamedTuple


class Record(NamedTuple):
    """One Kafka record, ready to publish.

    Attributes:
        topic: where it goes.
        key: decides the partition, so it decides the order; None spreads records.
        value: the framed Avro bytes; None is a tombstone in a compacted topic.
        headers: CloudEvents attributes in Kafka's binary mode, names to bytes.
        partition: where it goes whatever its key is; -1: by the key.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int = -1
