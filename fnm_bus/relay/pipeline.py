"""Make the record of one spool entry: parse ▶ event ▶ address ▶ codec.

Pure: the same entry with the same sequence always gives the same record. A consumer can
therefore distinguish a duplicate from a second notification by its `event_id`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

from fnm_bus import __version__
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import InvalidNotification, InvalidRecord, SchemaError
from fnm_bus.event import DeadLetter, Event, Receipt, StatusEvent
from fnm_bus.event.parse import FieldMismatch, parse
from fnm_bus.kafka.addressing import (
    Topics,
    derived_id,
    event_id,
    headers_for,
    headers_of,
    key_of,
    topic_of,
)
from fnm_bus.kafka.record import DEAD_LETTER_HEAD, Record, digest
from fnm_bus.spool.entry import DocumentSummary
from fnm_bus.spool.spool import Entry

_VALID: Final = (
    b'{"action":"ban","ip":"192.0.2.1","attack_details":{"attack_uuid":"check"}}',
    b'{"action":"ban","alert_scope":"hostgroup","hostgroup_name":"check"}',
    b'{"action":"attack_status","alert_scope":"host","ip":"192.0.2.1"}',
)
"""A valid document of each kind."""


class PreparedRecord(NamedTuple):
    """The record of an entry.

    Attributes:
        record: the record.
        event: its value.
        mismatches: secondary fields of a wrong type or range.
    """

    record: Record
    event: Event
    mismatches: tuple[FieldMismatch, ...]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Makes records of the entries of one sensor.

    Attributes:
        sensor: the stable name of the FastNetMon.
        topics: the names of the topics.
        codec: frames the Avro bytes.
    """

    sensor: str
    topics: Topics
    codec: Codec

    def check(self) -> tuple[Record, ...]:
        """Return the records of valid documents, one of each kind.

        This reads all schemas, so that no later call reads a file that an upgrade has
        half written.

        Raises:
            SchemaError: a schema is missing or broken, or refuses a valid document.
        """
        at = datetime(2000, 1, 1, tzinfo=UTC)
        entries = [
            Entry("check", (), document, at, len(document), "") for document in _VALID
        ]
        try:
            records = [self.prepare(entry, 0).record for entry in entries]
            letter = self.dead_letter(entries[0], {"reason": "check"}, at)
        except (InvalidNotification, InvalidRecord) as exc:
            raise SchemaError(
                f"this installation refuses a valid document: {exc}; if an upgrade is"
                " not running, install fnm-bus again"
            ) from exc
        return (*records, letter)

    def prepare(self, entry: Entry, sequence: int) -> PreparedRecord:
        """Return the record of *entry*; *sequence* orders the calls of a target.

        Raises:
            InvalidNotification: the document can never become an event.
            InvalidRecord: the event does not fit its schema.
        """
        receipt = Receipt(
            event_id=event_id(self.sensor, entry.name),
            received_at=entry.stored_at,
            sequence=sequence,
            sensor=self.sensor,
            producer_name="fnm-bus",
            producer_version=__version__,
            raw_digest=digest(entry.document),
            raw_size=len(entry.document),
            arguments=entry.arguments,
        )
        event, mismatches = parse(entry.document, entry.arguments, receipt)
        return PreparedRecord(self.record(event), event, mismatches)

    def record(self, event: Event) -> Record:
        """Return the record of *event*."""
        topic = topic_of(event, self.topics)
        return Record(
            topic, key_of(event), self.codec.encode(event, topic), headers_of(event)
        )

    def without_samples(self, event: Event) -> Record:
        """Return the record of *event*, marked as truncated, without packet samples."""
        return self.record(
            msgspec.structs.replace(
                event, packet_dump=(), packet_dump_detailed=(), truncated=True
            )
        )

    def dead_letter(
        self, entry: Entry, reason: Mapping[str, str], failed_at: datetime
    ) -> Record:
        """Return the record about a document that cannot become an event."""
        whole = entry.oversized or DocumentSummary(
            len(entry.document), digest(entry.document)
        )
        letter = DeadLetter(
            sensor=self.sensor,
            entry=entry.name,
            reason=reason.get("reason", ""),
            field=reason.get("field", ""),
            expected=reason.get("expected", ""),
            actual=reason.get("actual", ""),
            head=entry.document[:DEAD_LETTER_HEAD],
            size=whole.size,
            digest=whole.digest,
            arguments=entry.arguments,
            failed_at=failed_at,
            producer_name="fnm-bus",
            producer_version=__version__,
        )
        topic = self.topics.deadletter
        return Record(
            topic,
            entry.name.encode(),
            self.codec.encode(letter, topic),
            headers_for(
                letter,
                "relay",
                derived_id("deadletter", self.sensor, entry.name),
                failed_at,
            ),
        )


def attack_of(event: Event) -> tuple[str, str] | None:
    """Return the attack of a status update; None for any other event.

    Of two updates with the same attack, the newer one replaces the older one.
    """
    if not isinstance(event, StatusEvent):
        return None
    details = event.attack_details
    uuid = details.attack_uuid if details is not None else None
    return (event.ip or event.hostgroup_name or "", uuid or "")
