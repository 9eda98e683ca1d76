"""LeaseTable: what an enforcer is to keep standing, and until when.

Two views. The snapshot's holds from the first moment. The topic's counts once all of
it was read: before that an old record may still be followed by the one that ends it.
What the snapshot knows and the topic does not say a word about (it was made anew, or is
empty) is held until its lease ends; only a record or the lease ends anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from consumers.enforcers.snapshot import Lease
from consumers.mitigation.measure import measure_of
from consumers.mitigation.states import WANTED
from fnm_bus.event import Mitigation


@dataclass(slots=True)
class LeaseTable:
    """What is to stand, as the enforcer *name* sees it.

    Attributes:
        name: of the enforcer.
        kinds: of measures that it can do.
        complete: whether the end of every partition was seen.
    """

    name: str
    kinds: frozenset[str]
    complete: bool = False
    _kept: dict[str, Lease] = field(default_factory=dict)
    _read: dict[str, Lease] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    def restore(self, leases: Mapping[str, Lease]) -> None:
        """Begin with what a snapshot knew."""
        self._kept.update(leases)

    def apply(
        self, key: str, mitigation: Mitigation | None, age: float, now: float
    ) -> bool:
        """Take a record; return whether it is about something this enforcer does.

        Args:
            key: the record's key.
            mitigation: what it holds, or None for a tombstone.
            age: seconds since the broker took the record; never negative.
            now: seconds on a clock that does not jump.
        """
        self._seen.add(key)
        before = self._read.pop(key, None)
        if mitigation is None or not self._meant(mitigation):
            return before is not None or key in self._kept
        ends = now + mitigation.lease_ms / 1000 - age
        if ends > now:
            self._read[key] = Lease(measure_of(mitigation), ends)
        return True

    def finish(self) -> list[str]:
        """Let the topic count from now on; return what only the snapshot knows."""
        self.complete = True
        for key in self._seen:
            self._kept.pop(key, None)
        return sorted(self._kept)

    def wanted(self, now: float) -> dict[str, Lease]:
        """Return what is to stand now; what has ended is dropped for good."""
        for view in (self._kept, self._read):
            for key in [key for key, it in view.items() if it.ends <= now]:
                del view[key]
        return {**self._kept, **self._read} if self.complete else dict(self._kept)

    def next_end(self) -> float | None:
        """Return when the next lease ends, or None."""
        views = (self._kept, self._read) if self.complete else (self._kept,)
        return min((it.ends for view in views for it in view.values()), default=None)

    def _meant(self, mitigation: Mitigation) -> bool:
        return (
            mitigation.state == WANTED
            and not mitigation.dry_run
            and mitigation.kind in self.kinds
            and (not mitigation.enforcers or self.name in mitigation.enforcers)
        )
