import json
from datetime import UTC, datetime, timedelta
from math import inf, isinf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.mitigation.clock import now as boottime
from consumers.settings import WebhookSettings
from consumers.webhook.outbox import Logged, Outbox
from consumers.webhook.post import Letter
from consumers.webhook.recall import ends_of, members_of
from consumers.webhook.service import Place, Webhook, sending_of
from consumers.webhook.storm import Storms
from fnm_bus.avro.codec import Codec
from fnm_bus.consume.handler import Deferred, RetryLater
from fnm_bus.errors import ConfigError
from fnm_bus.event import (
    EPOCH,
    Effect,
    FlowMatch,
    HostEvent,
    Mitigation,
    ReasonSummary,
    Receipt,
)
from fnm_bus.kafka.reader import ConsumedRecord, decode_record

NOW = datetime.now(UTC)


def mitigation(state: str = "wanted", **other: Any) -> Mitigation:
    facts = {
        "key": "blackhole|192.0.2.1/32",
        "kind": "blackhole",
        "prefix": "192.0.2.1/32",
        "ended_because": "unban" if state == "ended" else "",
    }
    times = {"created_at": NOW, "started_at": NOW, "changed_at": NOW}
    return Mitigation(**{**facts, **times, "state": state, **other})


def read(offset: int, event: Any, at: datetime = NOW) -> ConsumedRecord:
    return ConsumedRecord("m", 0, offset, at, b"k", (), b"v", event, "")


def left_out(webhook: Webhook, reason: str) -> float:
    metric = webhook.left_out.counter.labels(reason)
    return float(metric.collect()[0].samples[0].value)


class Watched:
    """A hold and whether it was released."""

    def __init__(self, hold: Deferred | None) -> None:
        self.released = False
        assert hold is not None
        hold.on_release(self._note)

    def _note(self) -> None:
        self.released = True


@pytest.fixture
def webhook() -> Webhook:
    storms: Storms[Place] = Storms(0, 0)
    return Webhook(storms, Logged())


def test_a_change_is_held_until_it_was_told_of(webhook: Webhook) -> None:
    held = Watched(webhook.handle(read(0, mitigation())))
    webhook.turn()
    assert not held.released
    webhook.turn()
    assert held.released


def test_a_renewal_is_done_at_once(webhook: Webhook) -> None:
    webhook.handle(read(0, mitigation()))
    assert webhook.handle(read(1, mitigation())) is None


def test_records_of_another_kind_are_passed_over(webhook: Webhook) -> None:
    other = HostEvent(receipt=Receipt(event_id="id"), action="ban", ip="192.0.2.1")
    assert webhook.handle(read(0, other)) is None


def test_what_is_read_again_says_nothing_new_and_is_held_as_before(
    webhook: Webhook,
) -> None:
    first = Watched(webhook.handle(read(0, mitigation())))
    second = Watched(webhook.handle(read(1, mitigation("ended"))))
    # The partition was taken away and given back.
    third = Watched(webhook.handle(read(0, mitigation())))
    fourth = Watched(webhook.handle(read(1, mitigation("ended"))))
    webhook.turn()
    webhook.turn()
    assert all(it.released for it in (first, second, third, fourth))
    assert webhook.handle(read(0, mitigation())) is None
    assert isinf(webhook.storms.next())


def test_a_topic_that_was_made_anew_is_read(webhook: Webhook) -> None:
    webhook.handle(read(7, mitigation()))
    later = NOW + timedelta(seconds=1)
    assert webhook.handle(read(0, mitigation("ended"), later)) is not None


SKEWS = [timedelta(0), timedelta(days=3), timedelta(days=-3)]


class Hours:
    """Seconds since boot, set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 5000.0
        monkeypatch.setattr("time.clock_gettime", lambda _clock: self.now)


class Kept(Logged[Any]):
    """Keeps the titles of notices."""

    def __init__(self) -> None:
        super().__init__()
        self.statuses: list[str] = []
        self.ends: list[Any] = []

    def put(self, letter: Letter, token: Any) -> None:
        super().put(letter, token)
        document = json.loads(letter.body)
        self.statuses.append(document["status"])
        self.ends.append(document["ends"])


def play(webhook: Webhook, hours: Hours, seconds: float) -> None:
    end = hours.now + seconds
    while hours.now < end:
        hours.now = min(end, hours.now + 5)
        webhook.turn()


@pytest.mark.parametrize("broker", SKEWS)
def test_the_clock_of_this_machine_neither_ends_nor_prolongs_a_storm(
    monkeypatch: pytest.MonkeyPatch, broker: timedelta
) -> None:
    hours, kept = Hours(monkeypatch), Kept()
    webhook = Webhook(Storms(10, 300), kept)
    at = datetime.now(UTC) + broker
    webhook.handle(read(0, mitigation(lease_ms=900_000), at))
    play(webhook, hours, 600)
    assert kept.statuses == ["started"]
    renewed = at + timedelta(seconds=600)
    webhook.handle(read(1, mitigation(lease_ms=900_000), renewed))
    play(webhook, hours, 925)
    assert kept.statuses == ["started"]
    play(webhook, hours, 20)
    assert kept.statuses == ["started", "ended"]
    assert kept.ends[-1] == {"silent": 1}


@pytest.mark.parametrize("broker", SKEWS)
def test_after_a_restart_leases_are_counted_on_the_brokers_clock(
    monkeypatch: pytest.MonkeyPatch, broker: timedelta
) -> None:
    hours, kept = Hours(monkeypatch), Kept()
    webhook = Webhook(Storms(10, 300), kept)
    at = datetime.now(UTC) + broker
    newest = at + timedelta(seconds=600)
    other = {"key": "blackhole|192.0.2.2/32", "prefix": "192.0.2.2/32"}
    records = [
        read(0, mitigation(lease_ms=900_000), at),
        read(1, mitigation("ended", **other), newest),
    ]
    webhook.remember(records)
    play(webhook, hours, 300 + 25)
    assert kept.statuses == []
    play(webhook, hours, 20)
    assert kept.statuses == ["ended"]


def test_a_timestamp_that_no_clock_shows_is_not_believed() -> None:
    webhook = Webhook(Storms(0, 0), Kept())
    webhook.handle(read(0, mitigation(), NOW))
    webhook.handle(read(1, mitigation(), FAR))
    assert abs(webhook.clock.datetime() - NOW) < timedelta(minutes=5)


@pytest.mark.parametrize("broker", SKEWS)
def test_a_notice_is_dated_by_the_broker(broker: timedelta) -> None:
    webhook = Webhook(Storms(0, 0), Kept())
    at = datetime.now(UTC) + broker
    webhook.handle(read(0, mitigation(), at))
    assert abs(webhook.clock.datetime() - at) < timedelta(seconds=5)


def test_a_lease_is_never_longer_than_the_record_permits() -> None:
    lease = mitigation(lease_ms=900_000)
    now = NOW.timestamp()
    assert 899 < ends_of(lease, NOW, now - 1e6) - boottime() <= 900
    assert 299 < ends_of(lease, NOW, now + 600) - boottime() <= 300
    assert abs(ends_of(lease, NOW, now + 1e6) - boottime()) < 1
    assert ends_of(mitigation(), NOW, now) == inf


def test_what_was_told_before_a_restart_is_known_again() -> None:
    told = members_of(
        [
            read(0, mitigation(lease_ms=900_000)),
            read(1, mitigation("ended")),
            read(2, mitigation(key="pause", kind="pause", prefix=None)),
            read(3, None),
        ],
        NOW.timestamp(),
    )
    assert [it.over for it in told] == ["", "unban", ""]


def test_a_lease_that_ran_out_long_ago_is_forgotten() -> None:
    old = mitigation(lease_ms=900_000)
    at = NOW.timestamp()
    assert members_of([read(0, old, NOW - timedelta(days=2))], at) == []
    assert len(members_of([read(0, old, NOW - timedelta(hours=2))], at)) == 1


FAR = datetime(9999, 12, 31, tzinfo=UTC)
NONSENSE: list[tuple[str, dict[str, Any]]] = [
    ("state", {"state": "melted"}),
    ("state", {"state": ""}),
    ("state", {"key": "pause", "kind": "pause", "state": "proposed"}),
    ("kind", {"kind": ""}),
    ("prefix", {"prefix": None}),
    ("prefix", {"prefix": "192.0.2.1"[:-2]}),
    ("prefix", {"prefix": "192.0.2.7/24"}),
    ("prefix", {"prefix": "7"}),
    ("prefix", {"prefix": 7}),
    ("prefix", {"kind": "flowspec", "prefix": None, "flow": None}),
    ("prefix", {"flow": FlowMatch(destination_prefix="x"), "prefix": None}),
    ("time", {"created_at": datetime(1, 1, 1, tzinfo=UTC)}),
    ("time", {"expires_at": FAR}),
    ("time", {"changed_at": FAR}),
    ("time", {"lease_ms": -1}),
    ("time", {"lease_ms": 2**63 - 1}),
]


@pytest.mark.parametrize(("code", "fault"), NONSENSE)
def test_a_record_that_is_nonsense_is_left_out_counted_and_logged(
    code: str, fault: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    kept = Kept()
    webhook = Webhook(Storms(0, 0), kept)
    broken = mitigation(**fault)
    for offset in range(3):
        assert webhook.handle(read(offset, broken)) is None
    assert left_out(webhook, code) == 3
    assert caplog.text.count("m[0]@0: left out: ") == 1
    assert "m[0]@1: left out" not in caplog.text
    webhook.handle(read(3, mitigation()))
    webhook.turn()
    assert kept.statuses == ["started"]


@pytest.mark.parametrize(("code", "fault"), NONSENSE)
def test_a_record_that_is_nonsense_does_not_keep_a_webhook_from_starting(
    code: str, fault: dict[str, Any]
) -> None:
    webhook = Webhook(Storms(0, 0), Kept())
    good = mitigation("ended", key="blackhole|192.0.2.9/32", prefix="192.0.2.9/32")
    webhook.remember([read(0, mitigation(**fault)), read(1, good)])
    assert left_out(webhook, code) == 1


_TIMES = st.sampled_from([datetime.min.replace(tzinfo=UTC), EPOCH, NOW, FAR])
_WORDS = st.text(max_size=5)
_REASONS = st.builds(
    ReasonSummary,
    target=_WORDS,
    direction=_WORDS,
    bits=st.none() | st.integers(0, 2**63 - 1),
    pps=st.none() | st.integers(0, 2**63 - 1),
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
def test_no_record_that_can_be_decoded_stops_a_webhook(
    records: list[tuple[Mitigation, datetime]],
) -> None:
    kept = Kept()
    webhook, again = Webhook(Storms(0, 0), kept), Webhook(Storms(10, 0), Kept())
    reads = []
    for offset, (record, at) in enumerate(records):
        raw = read(offset, None, max(at, EPOCH))._replace(value=encoded(record))
        reads.append(decode_record(raw, Codec()))
        webhook.handle(reads[-1])
        webhook.turn()
    again.remember(reads)
    again.turn()
    sound = {"key": "blackhole|203.0.113.1/32", "prefix": "203.0.113.1/32"}
    last = mitigation(hostgroup="sound", **sound)
    webhook.handle(read(len(reads), last, FAR))
    before = len(kept.statuses)
    webhook.turn()
    assert len(kept.statuses) > before
    assert left_out(webhook, "notice") == 0


def encoded(record: Mitigation) -> bytes:
    return Codec().encode(record, "m")


def test_a_record_that_is_too_large_is_left_out() -> None:
    webhook = Webhook(Storms(0, 0), Kept())
    large = read(0, mitigation())._replace(value=bytes(16 * 1024 + 1))
    assert webhook.handle(large) is None
    assert left_out(webhook, "size") == 1


def test_a_record_that_cannot_be_decoded_is_counted_at_the_start() -> None:
    webhook = Webhook(Storms(0, 0), Kept())
    webhook.remember([read(0, None)._replace(error="no schema")])
    assert left_out(webhook, "decode") == 1


def test_a_kind_of_a_later_version_is_reported() -> None:
    kept = Kept()
    webhook = Webhook(Storms(0, 0), kept)
    webhook.handle(read(0, mitigation(kind="divert")))
    webhook.turn()
    assert kept.statuses == ["started"]


def test_a_notice_that_cannot_be_made_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Kept()
    webhook = Webhook(Storms(0, 0), kept)

    def broken(*_arguments: object) -> bytes:
        raise UnicodeEncodeError("utf-8", "x", 0, 1, "planted")

    with monkeypatch.context() as planted:
        planted.setattr("consumers.webhook.notice.body", broken)
        held = Watched(webhook.handle(read(0, mitigation())))
        webhook.turn()
    assert held.released
    assert left_out(webhook, "notice") == 1
    assert "Traceback" in caplog.text
    webhook.handle(read(1, mitigation("ended")))
    webhook.turn()
    assert kept.statuses == ["ended"]


def test_changes_that_wait_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.webhook.service._MAX_HELD", 3)
    webhook = Webhook(Storms(0, 0), Kept())
    flips = [mitigation("ended" if offset % 2 else "wanted") for offset in range(4)]
    for offset in range(3):
        webhook.handle(read(offset, flips[offset]))
    for _ in range(2):
        with pytest.raises(RetryLater, match="3 changes wait"):
            webhook.handle(read(3, flips[3]))
    webhook.turn()
    webhook.turn()
    assert webhook.handle(read(3, flips[3])) is not None


def test_records_behind_a_change_that_waits_have_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("consumers.webhook.service._MAX_BEHIND", 10)
    webhook = Webhook(Storms(0, 0), Kept())
    for offset in range(10):
        webhook.handle(read(offset, mitigation()))
    with pytest.raises(RetryLater, match="10 records wait"):
        webhook.handle(read(10, mitigation()))
    webhook.handle(read(0, mitigation())._replace(partition=1))
    webhook.turn()
    webhook.turn()
    assert webhook.handle(read(10, mitigation())) is None


def test_while_the_server_takes_nothing_changes_gather(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = Kept()
    webhook = Webhook(Storms(0, 0), kept)
    webhook.handle(read(0, mitigation()))
    with monkeypatch.context() as planted:
        planted.setattr(Kept, "full", True)
        assert webhook.turn() > 0
        assert kept.statuses == []
    webhook.turn()
    assert kept.statuses == ["started"]


def test_mitigations_beyond_the_bound_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("consumers.webhook.storm._MAX_MITIGATIONS", 1)
    webhook = Webhook(Storms(0, 0), Kept())
    webhook.handle(read(0, mitigation()))
    other = mitigation(key="blackhole|192.0.2.2/32", prefix="192.0.2.2/32")
    assert webhook.handle(read(1, other)) is None
    assert left_out(webhook, "bound") == 1


def test_a_dry_run_needs_no_address() -> None:
    assert isinstance(sending_of(WebhookSettings(), dry_run=True), Logged)


def test_without_a_dry_run_an_address_is_wanted() -> None:
    with pytest.raises(ConfigError, match=r"\[consumers\.webhook\] url: wanted"):
        sending_of(WebhookSettings(), dry_run=False)


def test_an_address_may_stand_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text("https://hooks.example.net/T0/B0/x\n")
    assert isinstance(sending_of(WebhookSettings(url_file=path), dry_run=False), Outbox)


@pytest.mark.parametrize("name", ["url_file", "secret_file"])
def test_a_file_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "missing"
    settings = WebhookSettings.model_validate(
        {"url": "https://example.net/", name: path}
    )
    with pytest.raises(ConfigError, match=rf"webhook\] {name}: {path}"):
        sending_of(settings, dry_run=False)
