"""The leases of the measures that an enforcer keeps in force.

There are two sources. The snapshot's leases hold from the start. The topic's records
count once the topic was read to its end: a later record may end an earlier one. A lease
of the snapshot without a record (the topic is empty or was created again) is kept until
it ends. If partitions are added to the topic, the leases in force replace the
snapshot's until every partition was read.

A record is stored with its lease and the broker's time; its end is computed on each
use. While the broker's time is unknown, records from before the start have no effect:
their age is unknown.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from msgspec.structs import replace

from consumers.enforcers.record_guard import MAX_LEASE
from consumers.enforcers.snapshot import Lease
from consumers.mitigation import clock
from consumers.mitigation.clock import BrokerClock
from consumers.mitigation.effects import effect_of, unite
from consumers.mitigation.measure import Measure, measure_of
from consumers.mitigation.states import WANTED
from fnm_bus.event import Mitigation

MAX_RECORDS: Final = 100_000
"""Maximum number of stored records."""


class WantedRecord(NamedTuple):
    """The latest record of a key whose mitigation is wanted here.

    Attributes:
        lease: seconds.
        stamp: the broker's time of the record, seconds since 1970.
        read_at: when the enforcer read the record, on `clock.now`; the broker stamped
            it earlier.
    """

    measure: Measure
    lease: float
    stamp: float
    read_at: float

    @property
    def latest_end(self) -> float:
        """Latest possible end of the lease, on `clock.now`."""
        return self.read_at + self.lease

    def end(self, broker_offset: float) -> float:
        """Return the end of the lease, on `clock.now`.

        Args:
            broker_offset: the broker's time minus `clock.now`.
        """
        return min(self.stamp - broker_offset, self.read_at) + self.lease


class LeaseTable:
    """The leases of one enforcer.

    Attributes:
        synced: whether every partition was read to its end, including added ones.
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
        self._restored_ended: set[str] = set()

    def restore(self, leases: Mapping[str, Lease]) -> None:
        """Add the leases of a snapshot."""
        self._restored.update(leases)

    def is_wanted_here(self, mitigation: Mitigation) -> bool:
        """Return whether this enforcer applies *mitigation*."""
        return (
            mitigation.state == WANTED
            and not mitigation.dry_run
            and mitigation.kind in self._kinds
            and mitigation.place in {"", self._name}
        )

    def has_room(self, key: str, now: float) -> bool:
        """Return whether a record of *key* can be stored."""
        if key in self._records or len(self._records) < MAX_RECORDS:
            return True
        self._delete_expired(now)
        return len(self._records) < MAX_RECORDS

    def apply_wanted(
        self, key: str, mitigation: Mitigation, stamp: float, now: float
    ) -> None:
        """Store a record that is wanted here.

        Args:
            key: the record's key.
            mitigation: the record's value.
            stamp: the broker's time of the record, seconds since 1970.
            now: time of reading, on `clock.now`.
        """
        # A record that is read after the end of the topic has just been written.
        self._read_live = self._read_live or self.synced
        lease = min(mitigation.lease_ms / 1000, MAX_LEASE)
        measure = measure_of(mitigation)
        self._records[key] = WantedRecord(measure, lease, stamp, now)
        self._restored_ended.discard(measure.key)

    def apply_end(self, key: str) -> bool:
        """Apply a record that ends *key*; return whether *key* had a lease."""
        had_lease = self._records.pop(key, None) is not None
        saved = key.removesuffix(f"|{self._name}")  # the snapshot's keys have no place
        other = saved if key != saved else f"{saved}|{self._name}"
        if saved in self._restored and other not in self._records:
            had_lease = True
            if self.synced:
                del self._restored[saved]
            else:
                self._restored_ended.add(saved)
        return had_lease

    def topic_complete(self) -> list[str]:
        """Let the topic's records count; return the keys that only the snapshot has."""
        self.synced = True
        for key in self._restored_ended:
            self._restored.pop(key, None)  # its lease may have expired
        self._restored_ended.clear()
        recorded = {record.measure.key for record in self._records.values()}
        return sorted(self._restored.keys() - recorded)

    def topic_grown(self, now: float) -> None:
        """Keep the leases at *now* until `topic_complete`: partitions were added.

        Until then a record's effect may be undone by an earlier record that is read
        later.
        """
        if self.synced:
            self._restored = self.active_at(now)
            self.synced = False

    def active_at(self, now: float) -> dict[str, Lease]:
        """Return measure's key → lease at *now*, and delete expired leases.

        If a measure is wanted both here and at every enforcer, the stronger effect
        counts.
        """
        self._delete_expired(now)
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
        """Return the broker's time minus `clock.now`; None: not known precisely."""
        if not (self._broker_clock.has_time or self._read_live):
            return None
        broker_time = self._broker_clock.time()
        return None if broker_time is None else broker_time - clock.now()

    def _delete_expired(self, now: float) -> None:
        # A correction of the broker's clock can extend a lease up to `latest_end`.
        records, restored = self._records.items(), self._restored.items()
        for key in [key for key, record in records if record.latest_end <= now]:
            record = self._records.pop(key)
            self._restored.pop(record.measure.key, None)
        for key in [key for key, lease in restored if lease.ends <= now]:
            del self._restored[key]
            self._restored_ended.discard(key)


def _unite(lease: Lease, other: Lease) -> Lease:
    """Return the stronger effect of two leases, until the earlier end."""
    measure = lease.measure
    effect = unite(effect_of(each.measure) for each in (lease, other))
    united = replace(measure, then=effect.then, communities=effect.communities)
    return Lease(united, min(lease.ends, other.ends))
