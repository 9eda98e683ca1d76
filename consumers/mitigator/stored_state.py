"""Stored state: what the reason and mitigation topics hold, decoded and checked."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from consumers.mitigation.measure import measure_of, validate_measure
from consumers.mitigation.reason_key import key_of_reason, mitigation_key
from consumers.mitigation.states import PAUSE, WANTED
from consumers.mitigator.next_record import Moment
from consumers.mitigator.state import State
from consumers.mitigator.takeover import Stored, restore
from consumers.mitigator.topic_scan import Raw, scan
from consumers.mitigator.transition import DecisionContext
from consumers.mitigator.wants import measure_of_want
from fnm_bus.codec import Codec
from fnm_bus.errors import InvalidRecord
from fnm_bus.event import Mitigation, Reason
from fnm_bus.route import Topics


@dataclass(slots=True)
class StoredState:
    """The latest records.

    Attributes:
        reasons: those that could be decoded.
        mitigations: likewise.
        unreadable: (key, why) of the others; they are left out.
    """

    reasons: list[Stored] = field(default_factory=list)
    mitigations: list[Stored] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def restore(self, context: DecisionContext, moment: Moment) -> State:
        """Return the state that these records hold."""
        return restore(context, self.reasons, self.mitigations, moment)

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
    codec: Codec,
    is_stopping: Callable[[], bool] = lambda: False,
) -> StoredState:
    """Return what both topics hold; nothing is written, no group is joined.

    Raises:
        BrokerUnavailable, TopicRefused, ConfigError: they cannot be read.
    """
    latest = scan(settings, (topics.reason, topics.mitigation), is_stopping)
    state = StoredState()
    for key, raw in latest[topics.reason].items():
        try:
            state.reasons.append(Stored(_reason(codec, key, raw), raw.at))
        except InvalidRecord as exc:
            state.unreadable.append((key.decode(errors="replace")[:200], str(exc)))
    for key, raw in latest[topics.mitigation].items():
        try:
            state.mitigations.append(Stored(_mitigation(codec, key, raw), raw.at))
        except InvalidRecord as exc:
            state.unreadable.append((key.decode(errors="replace")[:200], str(exc)))
            if key == PAUSE.encode():
                state.mitigations.append(Stored(_unreadable_pause(), raw.at))
    return state


def _reason(codec: Codec, key: bytes, raw: Raw) -> Reason:
    record = codec.decode(raw.value)
    if not isinstance(record, Reason):
        raise InvalidRecord(f"a {type(record).__name__} is no reason")
    if key_of_reason(record).encode() != key:
        raise InvalidRecord("its key is not the one of its content")
    for want in record.wants:
        validate_measure(measure_of_want(want))
    return record


def _mitigation(codec: Codec, key: bytes, raw: Raw) -> Mitigation:
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
    return record


def _unreadable_pause() -> Mitigation:
    """Return the pause that a pause record counts as which cannot be decoded."""
    return Mitigation(
        key=PAUSE,
        kind=PAUSE,
        state=WANTED,
        cause="The pause record cannot be decoded: everything stays paused.",
    )
