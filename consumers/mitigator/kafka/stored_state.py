"""Stored state: decoded, checked records of the reason and mitigation topics."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from consumers.mitigation.latest_record import partition_of
from consumers.mitigation.measure import measure_of, validate_measure
from consumers.mitigation.reason_key import key_of_reason, mitigation_key
from consumers.mitigation.states import PAUSE, WANTED
from consumers.mitigation.topic_scan import Scan, scan_topics
from consumers.mitigator.context import DecisionContext, Moment
from consumers.mitigator.state.restore import StoredRecord, restore_state
from consumers.mitigator.state.state import State
from consumers.mitigator.state.wants import measure_of_want
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import InvalidRecord
from fnm_bus.event import AnyRecord, Mitigation, Reason
from fnm_bus.kafka.addressing import Topics, derived_id, headers_for
from fnm_bus.kafka.record import Record
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_MAX_LEASE_MS: Final = 10 * 366 * 86_400_000
"""Ten years: longer than any lease, and short enough for every date."""
_MAX_COUNT: Final = 1 << 62
"""Larger than any revision, with room to grow."""

_UNREADABLE_PAUSE: Final = Mitigation(
    key=PAUSE,
    kind=PAUSE,
    state=WANTED,
    cause="The pause record cannot be decoded: everything stays paused.",
)


@dataclass(slots=True)
class StoredState:
    """The latest records.

    Attributes:
        reasons: that could be decoded.
        mitigations: that could be decoded.
        unreadable: (key, error) of the others; they are left out.
        misplaced: (topic, key, record) of each latest record outside its key's
            partition.
        leftovers: (topic, key, partition) of every record outside its key's partition.
            It needs a tombstone after the key's own partition has the latest record.
        partitions: topic → number of partitions.
    """

    reasons: list[StoredRecord] = field(default_factory=list)
    mitigations: list[StoredRecord] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    misplaced: list[tuple[str, bytes, StoredRecord]] = field(default_factory=list)
    leftovers: list[tuple[str, bytes, int]] = field(default_factory=list)
    partitions: Mapping[str, int] = field(default_factory=dict)

    def restore(self, context: DecisionContext, moment: Moment) -> State:
        """Return the state that these records describe."""
        return restore_state(context, self.reasons, self.mitigations, moment)

    def latest(self) -> datetime | None:
        """Return the broker's time of the latest record, a lower bound of now."""
        times = (stored.at for stored in (*self.reasons, *self.mitigations))
        return max(times, default=None)

    def all_reasons(self) -> Iterator[Reason]:
        """Return the reasons, closed and expired ones included."""
        records = (stored.record for stored in self.reasons)
        return (record for record in records if isinstance(record, Reason))

    def records(self) -> Iterator[Mitigation]:
        """Return the mitigations, and the pause record if it exists."""
        records = (stored.record for stored in self.mitigations)
        return (record for record in records if isinstance(record, Mitigation))


def read_state(
    settings: Mapping[str, str],
    topics: Topics,
    is_stopping: Callable[[], bool] = lambda: False,
) -> StoredState:
    """Return the records of both topics; nothing is written, no group is joined.

    Raises:
        BrokerUnavailable, TopicRefused, ConfigError: they cannot be read.
    """
    codec = Codec()  # the end of a mitigation must not depend on a registry
    names = (topics.reason, topics.mitigation)
    scan = scan_topics(settings, names, is_stopping)
    state = StoredState(partitions=scan.partitions)
    for topic, validate, stored in (
        (topics.reason, _validate_reason, state.reasons),
        (topics.mitigation, _validate_mitigation, state.mitigations),
    ):
        for key, raw in scan.latest[topic].items():
            try:
                record = validate(codec.decode(raw.value), key)
            except MemoryError:
                raise
            except Exception as exc:  # one record must never stop the others
                is_expected = isinstance(exc, InvalidRecord)
                error = str(exc) if is_expected else f"unexpected {exc!r:.200}"
                if not is_expected:
                    log.exception("record_undecodable", key=key[:200])
                state.unreadable.append((key.decode(errors="replace")[:200], error))
                if topic == topics.mitigation and key == PAUSE.encode():
                    stored.append(StoredRecord(_UNREADABLE_PAUSE, raw.at))
                continue
            stored.append(StoredRecord(record, raw.at))
            _note_partitions(state, scan, topic, key, stored[-1])
    return state


def with_remaining_lease(stored: StoredRecord, now: datetime) -> Reason | Mitigation:
    """Return a record whose lease, from *now*, ends with the stored record's lease.

    An expired lease becomes one millisecond, because 0 means no lease.
    """
    record = stored.record
    if not record.lease_ms:
        return record
    age_ms = round(max((now - stored.at).total_seconds(), 0.0) * 1000)
    return replace(record, lease_ms=max(record.lease_ms - age_ms, 1))


def moved_records(
    stored: StoredState, codec: Codec, source: str, now: datetime
) -> list[Record]:
    """Return each misplaced record again, for its key's own partition."""
    moved = []
    for topic, key, latest in stored.misplaced:
        record = with_remaining_lease(latest, now)
        record_id = derived_id("moved", topic, key.hex(), latest.at.isoformat())
        headers = headers_for(record, source, record_id, now)
        moved.append(Record(topic, key, codec.encode(record, topic), headers))
    return moved


def _note_partitions(
    state: StoredState, scan: Scan, topic: str, key: bytes, stored: StoredRecord
) -> None:
    """Note a key's records outside its own partition."""
    own = partition_of(key, scan.partitions[topic])
    latest = scan.latest[topic][key].partition
    if latest != own:
        state.misplaced.append((topic, key, stored))
    for partition in (latest, *scan.others[topic].get(key, ())):
        if partition != own:
            state.leftovers.append((topic, key, partition))


def _check_numbers(**numbers: int) -> None:
    """Refuse a lease, or a counter, that later calculations could not use."""
    for name, number in numbers.items():
        limit = _MAX_LEASE_MS if name == "lease_ms" else _MAX_COUNT
        if number > limit:
            raise InvalidRecord(f"{name}: {number} is more than {limit}")


def _validate_reason(record: AnyRecord, key: bytes) -> Reason:
    if not isinstance(record, Reason):
        raise InvalidRecord(f"a {type(record).__name__} is not a reason")
    if key_of_reason(record).encode() != key:
        raise InvalidRecord("its key does not match its content")
    for want in record.wants:
        validate_measure(measure_of_want(want))
    _check_numbers(lease_ms=record.lease_ms, renewals=record.renewals)
    return record


def _validate_mitigation(record: AnyRecord, key: bytes) -> Mitigation:
    if not isinstance(record, Mitigation):
        raise InvalidRecord(f"a {type(record).__name__} is not a mitigation")
    if record.kind == PAUSE:
        expected = PAUSE
    else:
        measure = measure_of(record)
        validate_measure(measure)
        expected = mitigation_key(measure.key, record.place)
    if record.key != expected or key != expected.encode():
        raise InvalidRecord(f"its key does not match its content: expected {expected}")
    _check_numbers(lease_ms=record.lease_ms, revision=record.revision)
    return record
