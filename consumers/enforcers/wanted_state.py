"""The wanted state of one enforcer: leases and a pause, from checked records.

One record never stops the others: a record that cannot be decoded has no effect, and a
record that the guard refuses is ignored. Both are counted.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from consumers.enforcers import record_guard
from consumers.enforcers.audit_publisher import AuditPublisher
from consumers.enforcers.backend import Backend
from consumers.enforcers.lease_table import MAX_RECORDS, LeaseTable
from consumers.enforcers.pause import PauseState
from consumers.enforcers.record_guard import Refusal
from consumers.enforcers.snapshot import Lease, Snapshot
from consumers.enforcers.wanted_reader import PartitionsAdded, TopicEnd, TopicItem
from consumers.metrics import EnforcerMetrics
from consumers.mitigation import clock
from consumers.mitigation.clock import BrokerClock
from consumers.mitigation.latest_record import Origin, supersedes
from consumers.mitigation.measure import Network
from consumers.mitigation.states import PAUSE
from fnm_bus.event import Command, Mitigation
from fnm_bus.kafka.reader import ConsumedRecord
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_LOGGED: Final = 300
"""Characters of a reason in the log."""

_MAX_REFUSED: Final = 10_000
"""Maximum number of keys whose refusal is stored, so that it is logged once."""
_MAX_ORIGINS: Final = 100_000
"""Maximum number of keys whose latest record's origin is stored."""
_MAX_KEY: Final = 2000
"""Maximum length of a key in an audit record, in characters."""


class WantedState:
    """The wanted state of one enforcer.

    Args:
        own_networks: where measures are allowed; None: not checked, in a dry run.
    """

    def __init__(
        self,
        backend: Backend,
        own_networks: Sequence[Network] | None,
        broker_clock: BrokerClock,
        audit: AuditPublisher,
        metrics: EnforcerMetrics,
    ) -> None:
        self._name = backend.name
        self._own_networks = own_networks
        self._broker_clock = broker_clock
        self._audit = audit
        self._metrics = metrics
        self._leases = LeaseTable(backend.name, backend.kinds, broker_clock)
        self._pause = PauseState()
        self._was_paused = False
        self._refused: OrderedDict[str, str] = OrderedDict()
        self._origins: OrderedDict[str, Origin] = OrderedDict()

    @property
    def synced(self) -> bool:
        """Whether every partition of the mitigation topic was read to its end."""
        return self._leases.synced

    @property
    def paused(self) -> bool:
        """Whether everything has to be withdrawn."""
        return self._was_paused or self._pause.in_effect(synced=self.synced)

    @property
    def pause_command(self) -> int | None:
        """Offset of the pause command that was not answered, or None."""
        return self._pause.command_offset

    def active_at(self, now: float) -> dict[str, Lease]:
        """Return measure's key → lease at *now*; empty while paused."""
        leases = self._leases.active_at(now)
        return {} if self.paused else leases

    def restore(self, saved: Snapshot, *, leases: bool) -> None:
        """Start with a snapshot."""
        self._pause.command_offset = saved.pause_command
        kept = {}
        for key, lease in saved.leases.items() if leases else ():
            # own_networks may have become narrower since.
            refusal = record_guard.check_measure(lease.measure, self._own_networks)
            if refusal is None:
                kept[key] = lease
            else:
                self._refuse(key, refusal)
        self._leases.restore(kept)

    def apply_commands(self, records: Iterable[TopicItem]) -> bool:
        """Apply pause commands; return whether one pauses."""
        paused = False
        for record in records:
            if not isinstance(record, ConsumedRecord):
                continue
            stamp = self._record_broker_time(record)
            command = record.event
            if not isinstance(command, Command):
                self._metrics.unreadable_commands.labels(self._name).inc()
                reason = record.error or "the record is not a command"
                log.error(
                    "command_ignored",
                    topic=record.topic,
                    offset=record.offset,
                    reason=reason[:_LOGGED],
                )
            elif command.verb != PAUSE:
                self._pause.see_command(record.offset, stamp)
            elif self._pause.apply_command(record.offset, stamp):
                paused = True
                text = f"paused by {command.by:.100}: {command.comment:.500}"
                self._audit.publish("held", text, code=PAUSE)
        return paused

    def apply(self, items: Iterable[TopicItem]) -> bool:
        """Apply records of the mitigation topic; return whether the state changed."""
        changed = False
        for item in items:
            if isinstance(item, TopicEnd):
                changed = True
                self._topic_complete()
                continue
            if isinstance(item, PartitionsAdded):
                # A pause and the leases stay until the next TopicEnd.
                self._was_paused = self.paused
                self._leases.topic_grown(clock.now())
                continue
            try:
                changed = self._apply(item) or changed
            except Exception as exc:  # one record must never stop the others
                log.exception("record_ignored", topic=item.topic, offset=item.offset)
                text = f"{type(exc).__name__}: {exc!s:.200}"
                self._refuse(_key_of(item), Refusal("unexpected", text))
        return changed

    def _topic_complete(self) -> None:
        self._was_paused = False
        unrecorded = self._leases.topic_complete()
        if unrecorded:
            text = (
                f"{len(unrecorded)} measures of the snapshot are not in the topic;"
                " keeping them until their leases end"
            )
            self._audit.publish("held", text, code="not_in_topic")

    def _apply(self, record: ConsumedRecord) -> bool:
        stamp = self._record_broker_time(record)
        key = _key_of(record)
        event = record.event if isinstance(record.event, Mitigation) else None
        revision = 0 if event is None else event.revision
        origin = Origin(record.partition, stamp, revision)
        if self._is_stale(key, origin, is_tombstone=not record.value):
            return False
        if record.value and (
            event is None or event.key != key or (key == PAUSE) != (event.kind == PAUSE)
        ):
            self._metrics.unreadable_records.labels(self._name).inc()
            reason = record.error or f"not a mitigation with the key {key:.200}"
            log.error(
                "record_ignored",
                topic=record.topic,
                offset=record.offset,
                reason=reason[:_LOGGED],
            )
            if key == PAUSE:  # a pause record that cannot be decoded also pauses
                self._pause.recorded = True
            return key == PAUSE
        if key == PAUSE:
            self._pause.apply_record(event, stamp)
            return True
        if event is None or not self._leases.is_wanted_here(event):
            return self._leases.apply_end(key)
        now = clock.now()
        refusal = record_guard.check_record(key, event, self._own_networks)
        if refusal is None and not self._leases.has_room(key, now):
            refusal = Refusal("too_many", f"{MAX_RECORDS} measures are already wanted")
        if refusal is not None:
            self._refuse(key, refusal)
            return self._leases.apply_end(key)
        self._refused.pop(key, None)
        self._leases.apply_wanted(key, event, stamp, now)
        return True

    def _is_stale(self, key: str, origin: Origin, *, is_tombstone: bool) -> bool:
        """Return whether a later record of *key* was already applied."""
        latest = self._origins.pop(key, None)
        is_stale = not supersedes(origin, latest, is_tombstone=is_tombstone)
        if is_stale and latest is not None:
            self._origins[key] = latest
        elif not is_tombstone:
            self._origins[key] = origin
        if len(self._origins) > _MAX_ORIGINS:
            oldest = next(name for name in self._origins if name != PAUSE)
            del self._origins[oldest]
        return is_stale

    def _record_broker_time(self, record: ConsumedRecord) -> float:
        stamp = record.at.timestamp()
        self._broker_clock.witness(stamp)
        return stamp

    def _refuse(self, key: str, refusal: Refusal) -> None:
        self._metrics.refused.labels(self._name, refusal.code).inc()
        if self._refused.get(key) == refusal.code:
            return
        self._refused[key] = refusal.code
        self._refused.move_to_end(key)
        if len(self._refused) > _MAX_REFUSED:
            self._refused.popitem(last=False)
        text = f"record ignored: {refusal.text}"
        self._audit.publish("failed", text, code=refusal.code, key=key[:_MAX_KEY])


def _key_of(record: ConsumedRecord) -> str:
    return (record.key or b"").decode(errors="replace")
