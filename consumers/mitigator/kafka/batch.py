"""Batch: the encoded records of several transitions, for one Kafka transaction."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import Final
from uuid import uuid4

from consumers.mitigator.state.transition import Transition
from fnm_bus.avro.codec import Codec
from fnm_bus.event import AnyRecord, Audit
from fnm_bus.kafka.addressing import Topics, headers_for
from fnm_bus.kafka.record import Record

MAX_BYTES: Final = 4_000_000
"""Bytes of records in one transaction."""
_RUN: Final = uuid4().hex
_NUMBERS: Final = count(1)
"""Both together identify a record: `ce_id`."""


@dataclass(slots=True)
class Batch:
    """Records of one transaction."""

    topics: Topics
    codec: Codec
    source: str
    audits: list[Audit] = field(default_factory=list)
    _latest: dict[tuple[str, bytes], Record] = field(default_factory=dict)
    _others: list[Record] = field(default_factory=list)
    _size: int = 0

    def add(self, transition: Transition) -> None:
        """Add the records of a transition; the latest record of a key replaces others.

        Raises:
            InvalidRecord: a record does not fit its schema; nothing was added.
        """
        at = transition.moment.now
        compacted, others = [], []
        for reason_key, reason in transition.reasons.items():
            key = reason_key.encode()
            compacted.append(self._record(self.topics.reason, key, reason, at))
        for mitigation_key, mitigation in transition.mitigations.items():
            key = mitigation_key.encode()
            compacted.append(self._record(self.topics.mitigation, key, mitigation, at))
        for audit in transition.audits:
            key = (audit.key or audit.target or "").encode()
            others.append(self._record(self.topics.audit, key, audit, at))
        for record in compacted:
            topic_and_key = record.topic, record.key or b""
            self._size -= _size(self._latest.get(topic_and_key))
            self._latest[topic_and_key] = record
            self._size += _size(record)
        for record in others:
            self.append(record)
        self.audits += transition.audits

    def append(self, record: Record) -> None:
        """Add a record for a topic without compaction."""
        self._others.append(record)
        self._size += _size(record)

    @property
    def is_full(self) -> bool:
        """Whether to commit the batch before the next event."""
        return self._size >= MAX_BYTES

    def __bool__(self) -> bool:
        return bool(self._latest or self._others)

    def records(self) -> Iterator[Record]:
        """Yield the records."""
        yield from self._latest.values()
        yield from self._others

    def _record(
        self, topic: str, key: bytes, content: AnyRecord | None, at: datetime
    ) -> Record:
        if content is None:
            return Record(topic, key, None)
        number = next(_NUMBERS)
        headers = headers_for(content, self.source, f"{_RUN}-{number}", at)
        return Record(topic, key, self.codec.encode(content, topic), headers)


def _size(record: Record | None) -> int:
    if record is None:
        return 0
    return len(record.key or b"") + len(record.value or b"")
