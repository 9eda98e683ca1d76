from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import isinf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.notices import NOW, mitigation, read

from consumers.notifier.delivery import DeliveryQueue
from consumers.notifier.document import Notice
from consumers.notifier.metrics import NotifierMetrics
from consumers.notifier.notifier import Notifier
from consumers.notifier.sink import LogSink, OutgoingNotice
from consumers.storms.grouper import StormGrouper
from fnm_bus.avro.codec import Codec
from fnm_bus.consume.handler import Deferred, RetryLater
from fnm_bus.event import (
    EPOCH,
    Effect,
    FlowMatch,
    HostEvent,
    Mitigation,
    ReasonSummary,
    Receipt,
)
from fnm_bus.kafka.reader import decode_record

FAR = datetime(9999, 12, 31, tzinfo=UTC)
SKEWS = [timedelta(0), timedelta(days=3), timedelta(days=-3)]
OTHER = {"key": "blackhole|192.0.2.2/32", "prefix": "192.0.2.2/32"}


class KeptQueue(DeliveryQueue):
    """Keeps notices; each is finished at the next `settle`."""

    def __init__(self, *, renews: bool = False) -> None:
        super().__init__(LogSink(), 60, NotifierMetrics().notices)
        self.sink.renews = renews
        self.notices: list[Notice] = []
        self.full = False
        self._done: list[Callable[[], None]] = []

    def put(self, outgoing: OutgoingNotice, done: Callable[[], None]) -> None:
        self.notices.append(outgoing.notice)
        self._done.append(done)

    def settle(self) -> None:
        finished, self._done = self._done, []
        for done in finished:
            done()

    @property
    def is_idle(self) -> bool:
        return not self._done

    @property
    def is_full(self) -> bool:
        return self.full

    @property
    def statuses(self) -> list[str]:
        return [notice.status for notice in self.notices]


def notifier_with(*queues: KeptQueue, wait: float = 0, interval: float = 0) -> Notifier:
    return Notifier(StormGrouper(wait, interval), queues, NotifierMetrics())


def skipped(notifier: Notifier, reason: str) -> float:
    metric = notifier.metrics.skipped.labels(reason)
    return float(metric.collect()[0].samples[0].value)


class Watched:
    """A deferred offset, and whether it was released."""

    def __init__(self, deferred: Deferred | None) -> None:
        self.released = False
        assert deferred is not None
        deferred.on_release(self._note)

    def _note(self) -> None:
        self.released = True


@pytest.fixture
def queue() -> KeptQueue:
    return KeptQueue()


@pytest.fixture
def notifier(queue: KeptQueue) -> Notifier:
    return notifier_with(queue)


def test_offset_of_change_waits_for_its_notice(notifier: Notifier) -> None:
    watched = Watched(notifier.handle(read(0, mitigation())))
    notifier.turn()
    assert not watched.released
    notifier.turn()
    assert watched.released


def test_offset_waits_for_every_sink(queue: KeptQueue) -> None:
    slow = KeptQueue()
    notifier = notifier_with(queue, slow)
    watched = Watched(notifier.handle(read(0, mitigation())))
    notifier.turn()
    queue.settle()
    assert not watched.released
    slow.settle()
    assert watched.released


@pytest.mark.parametrize(
    "event",
    [
        mitigation(),
        HostEvent(receipt=Receipt(event_id="id"), action="ban", ip="192.0.2.1"),
    ],
)
def test_renewal_and_other_records_need_no_notice(
    notifier: Notifier, event: Any
) -> None:
    notifier.handle(read(0, mitigation()))
    assert notifier.handle(read(1, event)) is None


def test_only_renewing_sinks_get_renewals(
    queue: KeptQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    renewing = KeptQueue(renews=True)
    notifier = notifier_with(queue, renewing, wait=10, interval=300)
    notifier.handle(read(0, mitigation(lease_ms=900_000), datetime.now(UTC)))
    clock.play(notifier, 100)
    assert queue.statuses == ["started"]
    assert renewing.statuses == ["started", "renewed"]
    renewing.is_retrying = True
    clock.play(notifier, 100)
    assert renewing.statuses == ["started", "renewed"]


def test_record_read_again_is_no_news_and_waits_as_before(notifier: Notifier) -> None:
    # The partition is revoked and assigned again.
    watched = [
        Watched(notifier.handle(read(offset, record)))
        for _ in range(2)
        for offset, record in enumerate((mitigation(), mitigation("ended")))
    ]
    notifier.turn()
    notifier.turn()
    assert all(one.released for one in watched)
    assert notifier.handle(read(0, mitigation())) is None
    assert isinf(notifier.storms.next_due())


def test_topic_created_again_is_read(notifier: Notifier) -> None:
    notifier.handle(read(7, mitigation()))
    later = NOW + timedelta(seconds=1)
    assert notifier.handle(read(0, mitigation("ended"), later)) is not None


class Clock:
    """Seconds since boot, set by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 5000.0
        monkeypatch.setattr("time.clock_gettime", lambda _clock: self.now)

    def play(self, notifier: Notifier, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 5)
            notifier.turn()


@pytest.mark.parametrize("skew", SKEWS)
def test_wrong_local_clock_changes_no_storm(
    queue: KeptQueue, monkeypatch: pytest.MonkeyPatch, skew: timedelta
) -> None:
    clock = Clock(monkeypatch)
    notifier = notifier_with(queue, wait=10, interval=300)
    at = datetime.now(UTC) + skew
    notifier.handle(read(0, mitigation(lease_ms=900_000), at))
    clock.play(notifier, 600)
    renewed = at + timedelta(seconds=600)
    notifier.handle(read(1, mitigation(lease_ms=900_000), renewed))
    clock.play(notifier, 925)
    assert queue.statuses == ["started"]
    clock.play(notifier, 20)
    assert queue.statuses == ["started", "ended"]
    assert queue.notices[-1].ended_because == {"silent": 1}


@pytest.mark.parametrize("skew", SKEWS)
def test_recalled_leases_are_counted_on_broker_clock(
    queue: KeptQueue, monkeypatch: pytest.MonkeyPatch, skew: timedelta
) -> None:
    clock = Clock(monkeypatch)
    notifier = notifier_with(queue, wait=10, interval=300)
    at = datetime.now(UTC) + skew
    newest = at + timedelta(seconds=600)
    lease = read(0, mitigation(lease_ms=900_000), at)
    notifier.recall([lease, read(1, mitigation("ended", **OTHER), newest)])
    clock.play(notifier, 300 + 25)
    assert queue.statuses == []
    clock.play(notifier, 20)
    assert queue.statuses == ["ended"]


def test_impossible_record_time_does_not_set_the_clock(notifier: Notifier) -> None:
    notifier.handle(read(0, mitigation(), NOW))
    notifier.handle(read(1, mitigation(), FAR))
    assert abs(notifier.clock.datetime() - NOW) < timedelta(minutes=5)


@pytest.mark.parametrize("skew", SKEWS)
def test_notice_has_time_of_broker(
    notifier: Notifier, queue: KeptQueue, skew: timedelta
) -> None:
    at = datetime.now(UTC) + skew
    notifier.handle(read(0, mitigation(), at))
    notifier.turn()
    assert abs(queue.notices[0].at - at) < timedelta(seconds=5)


INVALID: list[tuple[str, dict[str, Any]]] = [
    ("state", {"state": "melted"}),
    ("state", {"state": ""}),
    ("state", {"key": "pause", "kind": "pause", "state": "proposed"}),
    ("kind", {"kind": ""}),
    ("measure", {"prefix": None}),
    ("measure", {"prefix": "192.0.2.7/24"}),
    ("measure", {"prefix": 7}),
    ("measure", {"kind": "flowspec", "prefix": None, "flow": None}),
    ("measure", {"flow": FlowMatch(destination_prefix="x"), "prefix": None}),
    ("time", {"created_at": datetime(1, 1, 1, tzinfo=UTC)}),
    ("time", {"expires_at": FAR}),
    ("time", {"changed_at": FAR}),
    ("time", {"lease_ms": -1}),
    ("time", {"lease_ms": 2**63 - 1}),
]


@pytest.mark.parametrize(("code", "fault"), INVALID)
def test_invalid_record_is_skipped_counted_and_logged(
    notifier: Notifier,
    queue: KeptQueue,
    code: str,
    fault: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert notifier.handle(read(0, mitigation(**fault))) is None
    notifier.recall([read(1, mitigation(**fault)), read(2, mitigation("ended"))])
    assert skipped(notifier, code) == 2
    assert f"'code': '{code}', 'record': 'm[0]@0'" in caplog.text
    notifier.handle(read(3, mitigation()))
    notifier.turn()
    assert queue.statuses == ["started"]


def test_too_large_and_undecodable_records_are_skipped(notifier: Notifier) -> None:
    large = read(0, mitigation())._replace(value=bytes(16 * 1024 + 1))
    assert notifier.handle(large) is None
    notifier.recall([read(0, None)._replace(error="no schema")])
    assert (skipped(notifier, "size"), skipped(notifier, "decode")) == (1, 1)


_TIMES = st.sampled_from([datetime.min.replace(tzinfo=UTC), EPOCH, NOW, FAR])
_WORDS = st.text(max_size=5)
_SIZES = st.none() | st.integers(0, 2**63 - 1)
_REASONS = st.builds(
    ReasonSummary, target=_WORDS, direction=_WORDS, bits=_SIZES, pps=_SIZES
)
_FLOWS = st.builds(
    FlowMatch, destination_prefix=st.sampled_from([None, "", "x", "192.0.2.0/24"])
)
_RECORDS = st.builds(
    Mitigation,
    key=st.sampled_from(["", "a", "b", "pause"]),
    kind=st.sampled_from(["blackhole", "flowspec", "notify", "pause", ""]) | _WORDS,
    state=st.sampled_from(["wanted", "proposed", "ended", "suppressed"]) | _WORDS,
    ended_because=_WORDS,
    prefix=st.sampled_from([None, "192.0.2.1/32", "192.0.2.1/24"]) | _WORDS,
    flow=st.none() | _FLOWS,
    pending=st.none() | st.just(Effect()),
    dry_run=st.booleans(),
    lease_ms=st.sampled_from([0, 1, 900_000, -(2**63), 2**63 - 1]),
    created_at=_TIMES,
    started_at=_TIMES,
    changed_at=_TIMES,
    expires_at=_TIMES,
    hostgroup=st.none() | _WORDS,
    customer=st.none() | _WORDS,
    cause=_WORDS,
    live_reasons=st.sampled_from([0, -1, 2**63 - 1]),
    reasons=st.lists(_REASONS, max_size=2).map(tuple),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(_RECORDS, _TIMES), max_size=8))
def test_no_decodable_record_stops_the_notifier(
    records: list[tuple[Mitigation, datetime]],
) -> None:
    queue = KeptQueue()
    notifier = notifier_with(queue)
    restarted = notifier_with(KeptQueue(renews=True), wait=10)
    reads = []
    for offset, (record, at) in enumerate(records):
        value = Codec().encode(record, "m")
        raw = read(offset, None, max(at, EPOCH))._replace(value=value)
        reads.append(decode_record(raw, Codec()))
        notifier.handle(reads[-1])
        notifier.turn()
    restarted.recall(reads)
    restarted.turn()
    valid = {"key": "blackhole|203.0.113.1/32", "prefix": "203.0.113.1/32"}
    notifier.handle(read(len(reads), mitigation(hostgroup="valid", **valid), FAR))
    before = len(queue.notices)
    notifier.turn()
    assert len(queue.notices) > before
    assert skipped(notifier, "notice") == skipped(restarted, "notice") == 0


def test_kind_of_a_later_version_is_reported(
    notifier: Notifier, queue: KeptQueue
) -> None:
    notifier.handle(read(0, mitigation(kind="divert")))
    notifier.turn()
    assert queue.statuses == ["started"]


def test_failing_notice_stops_nothing(
    notifier: Notifier,
    queue: KeptQueue,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_arguments: object) -> Notice:
        raise UnicodeEncodeError("utf-8", "x", 0, 1, "injected")

    with monkeypatch.context() as patch:
        patch.setattr("consumers.notifier.notifier.notice_of", broken)
        watched = Watched(notifier.handle(read(0, mitigation())))
        notifier.turn()
    assert watched.released
    assert skipped(notifier, "notice") == 1
    assert "Traceback" in caplog.text
    notifier.handle(read(1, mitigation("ended")))
    notifier.turn()
    assert queue.statuses == ["ended"]


def test_waiting_changes_have_a_bound(
    notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.notifier.notifier._MAX_HELD", 3)
    flips = [mitigation("ended" if offset % 2 else "wanted") for offset in range(4)]
    for offset in range(3):
        notifier.handle(read(offset, flips[offset]))
    for _ in range(2):
        with pytest.raises(RetryLater, match="3 changes wait"):
            notifier.handle(read(3, flips[3]))
    notifier.turn()
    notifier.turn()
    assert notifier.handle(read(3, flips[3])) is not None


def test_records_behind_a_waiting_change_have_a_bound(
    notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.notifier.notifier._MAX_BEHIND", 10)
    for offset in range(10):
        notifier.handle(read(offset, mitigation()))
    with pytest.raises(RetryLater, match="10 records wait"):
        notifier.handle(read(10, mitigation()))
    notifier.handle(read(0, mitigation())._replace(partition=1))
    notifier.turn()
    notifier.turn()
    assert notifier.handle(read(10, mitigation())) is None


def test_full_queue_lets_changes_gather(notifier: Notifier, queue: KeptQueue) -> None:
    notifier.handle(read(0, mitigation()))
    queue.full = True
    assert notifier.turn() > 0
    assert queue.statuses == []
    queue.full = False
    notifier.turn()
    assert queue.statuses == ["started"]


def test_full_queue_stops_no_renewals_of_others(
    queue: KeptQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    renewing = KeptQueue(renews=True)
    notifier = notifier_with(queue, renewing, wait=10, interval=300)
    notifier.handle(read(0, mitigation(lease_ms=900_000), datetime.now(UTC)))
    clock.play(notifier, 20)
    queue.full = True
    clock.play(notifier, 100)
    assert renewing.statuses == ["started", "renewed"]


def test_record_is_applied_again_after_an_exception(
    notifier: Notifier, queue: KeptQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object) -> bool:
        raise RuntimeError("injected")

    with monkeypatch.context() as patch:
        patch.setattr(StormGrouper, "apply", broken)
        with pytest.raises(RuntimeError):
            notifier.handle(read(0, mitigation()))
    assert notifier.handle(read(0, mitigation())) is not None
    notifier.turn()
    assert queue.statuses == ["started"]


def test_mitigations_above_bound_are_counted(
    notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.storms.grouper._MAX_MITIGATIONS", 1)
    notifier.handle(read(0, mitigation()))
    assert notifier.handle(read(1, mitigation(**OTHER))) is None
    assert skipped(notifier, "bound") == 1
