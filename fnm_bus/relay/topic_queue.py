"""One topic as the drain sees it: what is in flight, what waits, when to try again.

Every topic has a gate of its own, so that one that refuses holds up no other.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from fnm_bus.spool.spool import Spool

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
"""Seconds without a try after a failure; doubled from the first to the longest."""


@dataclass(slots=True, eq=False)
class PendingEntry:
    """One document on its way.

    Attributes:
        rank: its place in the order of the calls.
        name: the entry's name.
        source: the spool that holds it; None for a dead letter of the quarantine.
        size: bytes on disk, or of the record if that is larger; 0 until read.
        stored_at: when it was stored (Unix time in seconds), 0 until read.
        attack: what a status update is about, so that a newer one can replace it.
        shrunk: whether it goes without its packet samples, being too large with them.
        trouble: what the disk refused last, so that it is said once.
    """

    rank: int
    name: str
    source: Spool | None
    size: int = 0
    stored_at: float = 0.0
    attack: tuple[str, str] | None = None
    shrunk: bool = False
    trouble: str = ""


@dataclass(slots=True)
class TopicQueue:
    """The traffic of one topic.

    Attributes:
        max_records: most records in flight.
        max_bytes: most bytes in flight.
        waiting: what may not go yet, in order.
        refusal: why a person has to act before the topic takes records, or "".
    """

    max_records: int
    max_bytes: int
    in_flight: int = 0
    bytes_in_flight: int = 0
    waiting: deque[PendingEntry] = field(default_factory=deque)
    refusal: str = ""
    _failed: list[PendingEntry] = field(default_factory=list)
    _pause: float = 0.0
    _until: float = 0.0
    _trying: bool = False

    @property
    def idle(self) -> bool:
        """Whether nothing waits, nothing failed and nothing is in flight."""
        return not (self.in_flight or self.waiting or self._failed)

    def blocked(self) -> bool:
        """Return whether something failed and has not been tried again."""
        return bool(self._failed)

    def has_room(self) -> bool:
        """Return whether one more record may go in flight now."""
        return (
            not self._failed
            and self.in_flight < (1 if self._trying else self.max_records)
            and self.bytes_in_flight < self.max_bytes
        )

    def left(self, item: PendingEntry) -> None:
        """Note that *item* is in flight."""
        self.in_flight += 1
        self.bytes_in_flight += item.size

    def answered(self, item: PendingEntry) -> None:
        """Note that *item* is in flight no more, whatever the answer."""
        self.in_flight -= 1
        self.bytes_in_flight -= item.size

    def succeeded(self) -> None:
        """Forget earlier failures: the next pause is short again."""
        self._pause = 0.0
        self._trying = False
        self.refusal = ""

    def failed(self, item: PendingEntry, now: float) -> None:
        """Keep *item* for another try, and pause."""
        if not self._failed:
            self._pause = min(max(self._pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
            self._until = now + self._pause
        self._failed.append(item)

    def reopen(self, now: float) -> int:
        """Put what failed back in its order; return how many that were.

        Only when the pause is over and nothing is in flight: an item tried again
        while a younger one of its target is under way would change their order. For
        the same reason one goes alone, and the others follow when it is taken.
        """
        if not self._failed or now < self._until or self.in_flight:
            return 0
        again = sorted(self._failed, key=lambda item: item.rank)
        self.waiting.extendleft(reversed(again))
        self._failed.clear()
        self._trying = True
        return len(again)

    def thin(self) -> list[PendingEntry]:
        """Take out and return every waiting status update that a newer one replaces."""
        newest: dict[tuple[str, str], PendingEntry] = {}
        for item in self.waiting:
            if item.attack is not None:
                newest[item.attack] = item
        replaced = [
            item
            for item in self.waiting
            if item.attack is not None and newest[item.attack] is not item
        ]
        if replaced:
            gone = set(map(id, replaced))
            self.waiting = deque(i for i in self.waiting if id(i) not in gone)
        return replaced
