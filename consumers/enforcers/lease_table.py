"""What an enforcer keeps in force, and until when.

Two views. The snapshot's view holds from the start. The topic's view counts once the
topic was read to its end: before that an old record may be followed by one that ends
it. Measures of the snapshot that the topic does not mention (it was created again, or
is empty) are kept until their leases end. When a topic was given more partitions, what
is in force takes the snapshot's place until all of them were read.

A record keeps its lease and the broker's time; its end is computed when it is asked
for. While the broker's time is unknown, records from before the start neither begin
nor end anything: their age is unknown.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from msgspec.structs import replace

from consumers.enforcers.guard import MAX_LEASE
from consumers.enforcers.snapshot import Lease
from consumers.mitigation import clock
from consumers.mitigation.clock import BrokerClock
from consumers.mitigation.effects import effect_of, unite
from consumers.mitigation.measure import Measure, measure_of
from consumers.mitigation.states import WANTED
from fnm_bus.event import Mitigation

MAX_RECORDS: Final = 100_000
"""Wanted measures that are remembered at most."""


class WantedRecord(NamedTuple):
    """The latest record of a key, when it wants a measure.

    Attributes:
        measure: what is wanted.
        lease: seconds that it lasts.
        stamp: the broker's time of the record, seconds since 1970.
        read_at: when it was read, on `clock.now`: the broker stamped it earlier.
    """

    measure: Measure
    lease: float
    stamp: float
    read_at: float

    @property
    def latest_end(self) -> float:
        """When it has ended for certain, on `clock.now`."""
        return self.read_at + self.lease

    def end(self, broker_offset: float) -> float:
        """Return when it ends, on `clock.now`.

        Args:
            broker_offset: the broker's time minus `clock.now`.
        """
        return min(self.stamp - broker_offset, self.read_at) + self.lease


class LeaseTable:
    """What the enforcer *name* keeps in force.

    Args:
        name: of the enforcer.
        kinds: of measures that it supports.
        broker_clock: what time it is at the broker.

    Attributes:
        synced: whether the end of every partition was reached, those that came later
            as well.
    """

    def __init__(
        self, name: str, kinds: frozenset[str], broker_clock: BrokerClock
    ) -> None:
        self.synced = False
        self._name = name
        self._kinds = kinds
        self._broker_clock = broker_clock
        self._read_live = False
        self._restored: dict[str, Lease] = {}
        self._records: dict[str, WantedRecord] = {}
        self._ended: set[str] = set()

    def restore(self, leases: Mapping[str, Lease]) -> None:
        """Begin with the leases of a snapshot."""
        self._restored.update(leases)

    def concerns(self, mitigation: Mitigation) -> bool:
        """Return whether this enforcer puts *mitigation* in force."""
        return (
            mitigation.state == WANTED
            and not mitigation.dry_run
            and mitigation.kind in self._kinds
            and mitigation.place in {"", self._name}
        )

    def has_room(self, key: str, now: float) -> bool:
        """Return whether a record of *key* can be remembered."""
        if key in self._records or len(self._records) < MAX_RECORDS:
            return True
        self._forget(now)
        return len(self._records) < MAX_RECORDS

    def want(self, key: str, mitigation: Mitigation, stamp: float, now: float) -> None:
        """Take a record that this enforcer puts in force.

        Args:
            key: the record's key.
            mitigation: what it holds.
            stamp: the broker's time of the record, seconds since 1970.
            now: when it was read, on `clock.now`.
        """
        # A record that is read after the end of the topic has just been written.
        self._read_live = self._read_live or self.synced
        lease = min(mitigation.lease_ms / 1000, MAX_LEASE)
        measure = measure_of(mitigation)
        self._records[key] = WantedRecord(measure, lease, stamp, now)
        self._ended.discard(measure.key)

    def end(self, key: str) -> bool:
        """Take a record that ends *key*; return whether anything was known of it."""
        known = self._records.pop(key, None) is not None
        saved = key.removesuffix(f"|{self._name}")  # the snapshot's keys have no place
        other = saved if key != saved else f"{saved}|{self._name}"
        if saved in self._restored and other not in self._records:
            known = True
            if self.synced:
                del self._restored[saved]
            else:
                self._ended.add(saved)
        return known

    def finish(self) -> list[str]:
        """Let the topic's view count; return the keys that only the snapshot has."""
        self.synced = True
        for key in self._ended:
            self._restored.pop(key, None)  # its lease may have run out since
        self._ended.clear()
        known = {record.measure.key for record in self._records.values()}
        return sorted(self._restored.keys() - known)

    def reopen(self, now: float) -> None:
        """Keep what is in force at *now* until `finish`: the topic has more partitions.

        What a record starts or ends meanwhile may be undone by one that is read later
        and was written earlier.
        """
        if self.synced:
            self._restored = self.active_at(now)
            self.synced = False

    def active_at(self, now: float) -> dict[str, Lease]:
        """Return measure's key → what is to be in force at *now*.

        Of a measure that is wanted here and at every enforcer, the stronger effect
        counts. What has ended is forgotten.
        """
        self._forget(now)
        leases = dict(self._restored)
        offset = self._offset()
        if not self.synced or offset is None:
            return leases
        recorded: dict[str, Lease] = {}
        for record in self._records.values():
            key = record.measure.key
            leases.pop(key, None)
            lease = Lease(record.measure, record.end(offset))
            if lease.ends > now:
                other = recorded.get(key)
                recorded[key] = _unite(lease, other) if other else lease
        return {**leases, **recorded}

    def _offset(self) -> float | None:
        """Return the broker's time minus `clock.now`; None: not precise enough."""
        if not (self._broker_clock.has_time or self._read_live):
            return None
        broker_time = self._broker_clock.time()
        return None if broker_time is None else broker_time - clock.now()

    def _forget(self, now: float) -> None:
        # The broker's clock may be corrected, so a record is kept while it may hold.
        for key in [k for k, it in self._records.items() if it.latest_end <= now]:
            record = self._records.pop(key)
            self._restored.pop(record.measure.key, None)
        for key in [k for k, it in self._restored.items() if it.ends <= now]:
            del self._restored[key]
            self._ended.discard(key)


def _unite(lease: Lease, other: Lease) -> Lease:
    """Return the stronger effect of two; it lasts until the first of them ends."""
    measure = lease.measure
    effect = unite(effect_of(one.measure) for one in (lease, other))
    united = replace(measure, then=effect.then, communities=effect.communities)
    return Lease(united, min(lease.ends, other.ends))
