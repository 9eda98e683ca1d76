"""Stored state: what the reason and mitigation topics hold, decoded and checked."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

from msgspec.structs import replace

from consumers.mitigation.latest_record import partition_of
from consumers.mitigation.measure import measure_of, validate_measure
from consumers.mitigation.reason_key import key_of_reason, mitigation_key
from consumers.mitigation.states import PAUSE, WANTED
from consumers.mitigator.context import DecisionContext
from consumers.mitigator.kafka.topic_scan import RawRecord, Scan, scan_topics
from consumers.mitigator.state.next_record import Moment
from consumers.mitigator.state.restore import StoredRecord, restore_state
from consumers.mitigator.state.state import State
from consumers.mitigator.state.wants import measure_of_want
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import InvalidRecord
from fnm_bus.event import Mitigation, Reason
from fnm_bus.kafka.route import Topics

log = logging.getLogger(__name__)

_MAX_LEASE_MS: Final = 10 * 366 * 86_400_000
"""Ten years: longer than any lease, and short enough for every date."""
_MAX_COUNT: Final = 1 << 62
"""A revision has room to grow."""

R = TypeVar("R", Reason, Mitigation)


@dataclass(slots=True)
class StoredState:
    """The latest records.

    Attributes:
        reasons: those that could be decoded.
        mitigations: likewise.
        unreadable: (key, why) of the others; they are left out.
        misplaced: those whose latest record is in another partition than their key's.
        leftovers: (topic, key, partition) of every record of a key in another partition
            than its own; after its latest one was written there, it needs a tombstone.
        partitions: topic → number of partitions.
    """

    reasons: list[StoredRecord] = field(default_factory=list)
    mitigations: list[StoredRecord] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    misplaced: list[tuple[str, bytes, StoredRecord]] = field(default_factory=list)
    leftovers: list[tuple[str, bytes, int]] = field(default_factory=list)
    partitions: Mapping[str, int] = field(default_factory=dict)

    def restore(self, context: DecisionContext, moment: Moment) -> State:
        """Return the state that these records hold."""
        return restore_state(context, self.reasons, self.mitigations, moment)

    def latest(self) -> datetime | None:
        """Return the broker's time of the latest record, a lower bound of now."""
        times = (stored.at for stored in (*self.reasons, *self.mitigations))
        return max(times, default=None)

    def all_reasons(self) -> Iterator[Reason]:
        """Yield the reasons, closed and expired ones included."""
        for stored in self.reasons:
            if isinstance(stored.record, Reason):
                yield stored.record

    def records(self) -> Iterator[Mitigation]:
        """Yield the mitigations, and the pause if there is one."""
        for stored in self.mitigations:
            if isinstance(stored.record, Mitigation):
                yield stored.record


def read_state(
    settings: Mapping[str, str],
    topics: Topics,
    is_stopping: Callable[[], bool] = lambda: False,
) -> StoredState:
    """Return what both topics hold; nothing is written, no group is joined.

    Raises:
        BrokerUnavailable, TopicRefused, ConfigError: they cannot be read.
    """
    codec = Codec()  # no registry may keep a block from its end
    names = (topics.reason, topics.mitigation)
    found = scan_topics(settings, names, is_stopping, partial(_revision, codec))
    latest, state = found.latest, StoredState(partitions=found.partitions)
    for key, raw in latest[topics.reason].items():
        reason, fault = _checked(_reason, codec, key, raw)
        if reason is not None:
            state.reasons.append(StoredRecord(reason, raw.at))
            _note_places(state, found, topics.reason, key, state.reasons[-1])
        else:
            state.unreadable.append((key.decode(errors="replace")[:200], fault))
    for key, raw in latest[topics.mitigation].items():
        record, fault = _checked(_mitigation, codec, key, raw)
        if record is not None:
            state.mitigations.append(StoredRecord(record, raw.at))
            _note_places(state, found, topics.mitigation, key, state.mitigations[-1])
            continue
        state.unreadable.append((key.decode(errors="replace")[:200], fault))
        if key == PAUSE.encode():
            state.mitigations.append(StoredRecord(_unreadable_pause(), raw.at))
    return state


def with_remaining_lease(stored: StoredRecord, now: datetime) -> Reason | Mitigation:
    """Return a record whose lease, counted from *now*, ends when the stored one's does.

    A lease that is over gets one millisecond: 0 would be none at all.
    """
    record = stored.record
    if not record.lease_ms:
        return record
    age_ms = round(max((now - stored.at).total_seconds(), 0.0) * 1000)
    return replace(record, lease_ms=max(record.lease_ms - age_ms, 1))


def _note_places(
    state: StoredState, found: Scan, topic: str, key: bytes, stored: StoredRecord
) -> None:
    """Note where a key has records in partitions that are not its own."""
    own = partition_of(key, found.partitions[topic])
    latest = found.latest[topic][key].partition
    if latest != own:
        state.misplaced.append((topic, key, stored))
    for partition in (latest, *found.others[topic].get(key, ())):
        if partition != own:
            state.leftovers.append((topic, key, partition))


def _revision(codec: Codec, value: bytes) -> int:
    """Return what grows from record to record of a key; 0 if it cannot be decoded."""
    try:
        record = codec.decode(value)
    except InvalidRecord:
        return 0
    if isinstance(record, Mitigation):
        return record.revision
    return record.renewals if isinstance(record, Reason) else 0


def _checked(
    check: Callable[[Codec, bytes, RawRecord], R],
    codec: Codec,
    key: bytes,
    raw: RawRecord,
) -> tuple[R | None, str]:
    """Return what a record holds, or None and why that cannot be used."""
    try:
        return check(codec, key, raw), ""
    except MemoryError:
        raise
    except InvalidRecord as exc:
        return None, str(exc)
    except Exception as exc:  # one record must never stop the others
        log.exception("%.200r", key)
        return None, f"unexpected {type(exc).__name__}: {exc!s:.200}"


def _check_figures(**figures: int) -> None:
    """Refuse figures that nobody can count on from: a lease, or what grows by one."""
    for name, figure in figures.items():
        limit = _MAX_LEASE_MS if name == "lease_ms" else _MAX_COUNT
        if figure > limit:
            raise InvalidRecord(f"{name}: {figure} is more than {limit}")


def _reason(codec: Codec, key: bytes, raw: RawRecord) -> Reason:
    record = codec.decode(raw.value)
    if not isinstance(record, Reason):
        raise InvalidRecord(f"a {type(record).__name__} is no reason")
    if key_of_reason(record).encode() != key:
        raise InvalidRecord("its key is not the one of its content")
    for want in record.wants:
        validate_measure(measure_of_want(want))
    _check_figures(lease_ms=record.lease_ms, renewals=record.renewals)
    return record


def _mitigation(codec: Codec, key: bytes, raw: RawRecord) -> Mitigation:
    record = codec.decode(raw.value)
    if not isinstance(record, Mitigation):
        raise InvalidRecord(f"a {type(record).__name__} is no mitigation")
    if record.kind == PAUSE:
        expected = PAUSE
    else:
        measure = measure_of(record)
        validate_measure(measure)
        expected = mitigation_key(measure.key, record.place)
    if record.key != expected or key != expected.encode():
        raise InvalidRecord(f"its key is not the one of its content: {expected}")
    _check_figures(lease_ms=record.lease_ms, revision=record.revision)
    return record


def _unreadable_pause() -> Mitigation:
    """Return the pause that a pause record counts as which cannot be decoded."""
    return Mitigation(
        key=PAUSE,
        kind=PAUSE,
        state=WANTED,
        cause="The pause record cannot be decoded: everything stays paused.",
    )
