"""A Kafka record: topic, key, value, headers."""

import hashlib
from typing import Final, NamedTuple

DEAD_LETTER_HEAD: Final = 4096
"""Bytes of a document or value in its dead letter; the original is stored elsewhere."""


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


def digest(data: bytes) -> str:
    """Return "sha256:" and the digest of *data* in hexadecimal."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
