"""Prepare the record of one entry, in this process or in a child."""

from typing import Final

import msgspec

from fnm_bus.kafka.record import Record
from fnm_bus.relay.pipeline import Pipeline, attack_of
from fnm_bus.spool.entry import Entry

_MAX_LOGGED: Final = 5
"""Mismatches of one document that are logged one by one."""


class Preparation(msgspec.Struct, frozen=True):
    """An entry's record, and the entry's values that the drain needs.

    Attributes:
        record: the record; None for an entry of `hook check`.
        size: bytes on disk.
        stored_at: when the entry was stored (Unix time in seconds).
        attack: the attack of a status update; None for any other event.
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
    """Return the record of *entry*.

    Args:
        pipeline: parses, addresses and encodes.
        entry: as read from the spool.
        sequence: position among the calls of its target.
        without_samples: whether the record omits its packet samples.

    Raises:
        InvalidNotification: the document can never become an event.
        InvalidRecord: the event does not fit its schema.
    """
    size, stored_at = entry.size, entry.stored_at.timestamp()
    if entry.is_check:
        return Preparation(None, size, stored_at)
    record, event, mismatches = pipeline.prepare(entry, sequence)
    if without_samples:
        record = pipeline.without_samples(event)
    return Preparation(
        record,
        size,
        stored_at,
        attack_of(event),
        len(mismatches),
        tuple(map(str, mismatches[:_MAX_LOGGED])),
    )
