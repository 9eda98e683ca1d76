"""An entry becomes a record: one function, so that another process can run it."""

from typing import Final

import msgspec

from fnm_bus.kafka.record import Record
from fnm_bus.relay.pipeline import Pipeline, attack_of
from fnm_bus.spool.entry import Entry

_SHOWN: Final = 5
"""Mismatches of one document that are logged one by one."""


class Preparation(msgspec.Struct, frozen=True):
    """What the drain needs of an entry.

    Attributes:
        record: what is published; None for an entry of `hook check`.
        size: bytes on disk.
        stored_at: when the entry was stored (Unix time in seconds).
        attack: what a status update is about; None for any other event.
        mismatch_count: secondary fields of a wrong type or range.
        mismatches: the first few of them, a line each.
    """

    record: Record | None
    size: int
    stored_at: float
    attack: tuple[str, str] | None = None
    mismatch_count: int = 0
    mismatches: tuple[str, ...] = ()


def prepare(
    pipeline: Pipeline, entry: Entry, sequence: int, *, without_samples: bool
) -> Preparation:
    """Return what *entry* becomes.

    Args:
        pipeline: parses, routes and encodes.
        entry: as read from the spool.
        sequence: its place among the calls of its target.
        without_samples: whether the record goes without its packet samples.

    Raises:
        InvalidNotification: the document can never become an event.
        InvalidRecord: the event does not fit its schema.
    """
    size, stored_at = entry.size, entry.stored_at.timestamp()
    if entry.is_check:
        return Preparation(None, size, stored_at)
    record, event, drift = pipeline.prepare(entry, sequence)
    if without_samples:
        record = pipeline.without_samples(event)
    return Preparation(
        record,
        size,
        stored_at,
        attack_of(event),
        len(drift),
        tuple(map(str, drift[:_SHOWN])),
    )
