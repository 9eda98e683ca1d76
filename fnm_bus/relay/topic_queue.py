"""The drain's state of one topic: records in flight, waiting entries, retries.

Every topic has its own queue, so that a topic that refuses records delays no other.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from fnm_bus.spool.spool import Spool

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
"""Seconds without an attempt after a failure; doubled from the first to the longest."""


@dataclass(slots=True, eq=False)
class PendingEntry:
    """One entry that is not published yet.

    Attributes:
        rank: position in the order of the calls.
        name: the entry's name.
        spool: the spool that contains it; None for a dead letter of the quarantine.
        size: bytes on disk, or of the record if that is larger; 0 until read.
        stored_at: when it was stored (Unix time in seconds), 0 until read.
        attack: the attack of a status update, so that a newer one can replace it.
        without_samples: whether the record omits its packet samples, being too large.
        disk_error: the last logged error of the disk.
    """

    rank: int
    name: str
    spool: Spool | None
    size: int = 0
    stored_at: float = 0.0
    attack: tuple[str, str] | None = None
    without_samples: bool = False
    disk_error: str = ""


@dataclass(slots=True)
class TopicQueue:
    """The entries of one topic.

    Attributes:
        max_records: most records in flight.
        max_bytes: most bytes in flight.
        waiting: entries that wait for room, in order.
        refusal: the error if an operator has to act before Kafka takes records, or "".
    """

    max_records: int
    max_bytes: int
    in_flight: int = 0
    bytes_in_flight: int = 0
    waiting: deque[PendingEntry] = field(default_factory=deque)
    refusal: str = ""
    _failed: list[PendingEntry] = field(default_factory=list)
    _pause: float = 0.0
    _retry_at: float = 0.0
    _is_probing: bool = False

    @property
    def is_idle(self) -> bool:
        """Whether no entry waits, has failed or is in flight."""
        return not (self.in_flight or self.waiting or self._failed)

    @property
    def is_backing_off(self) -> bool:
        """Whether an entry has failed and was not tried again yet."""
        return bool(self._failed)

    def has_room(self) -> bool:
        """Return whether one more record may be sent now."""
        return (
            not self._failed
            and self.in_flight < (1 if self._is_probing else self.max_records)
            and self.bytes_in_flight < self.max_bytes
        )

    def sent(self, entry: PendingEntry) -> None:
        """Count *entry* as in flight."""
        self.in_flight += 1
        self.bytes_in_flight += entry.size

    def acknowledged(self, entry: PendingEntry) -> None:
        """Count *entry* as no longer in flight, after an acknowledgement or error."""
        self.in_flight -= 1
        self.bytes_in_flight -= entry.size

    def reset_backoff(self) -> None:
        """Return to the first pause, after a success."""
        self._pause = 0.0
        self._is_probing = False
        self.refusal = ""

    def retry_later(self, entry: PendingEntry, now: float) -> None:
        """Keep a failed *entry* for another attempt, and pause."""
        if not self._failed:
            self._pause = min(max(self._pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
            self._retry_at = now + self._pause
        self._failed.append(entry)

    def release_due(self, now: float) -> int:
        """Put failed entries back in their order; return their number.

        This happens after the pause, when no record is in flight. A retry while a newer
        record of its target is in flight would change their order. For the same reason
        the first entry is sent alone; the others follow after its acknowledgement.
        """
        if not self._failed or now < self._retry_at or self.in_flight:
            return 0
        retries = sorted(self._failed, key=lambda entry: entry.rank)
        self.waiting.extendleft(reversed(retries))
        self._failed.clear()
        self._is_probing = True
        return len(retries)

    def coalesce_status(self) -> list[PendingEntry]:
        """Remove and return waiting status updates that a newer one replaces."""
        newest: dict[tuple[str, str], PendingEntry] = {}
        for entry in self.waiting:
            if entry.attack is not None:
                newest[entry.attack] = entry
        replaced = [
            entry
            for entry in self.waiting
            if entry.attack is not None and newest[entry.attack] is not entry
        ]
        if replaced:
            removed = set(map(id, replaced))
            self.waiting = deque(
                entry for entry in self.waiting if id(entry) not in removed
            )
        return replaced
