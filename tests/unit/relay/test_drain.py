"""The drain on a real spool, with a publisher in memory."""

import errno
import hashlib
import os
from itertools import count
from pathlib import Path

import pytest
from support.drain_harness import TOPICS, DrainHarness, document, drain_rounds
from support.memory_publisher import MemoryPublisher
from support.planted import Planted, poison

from fnm_bus.errors import (
    AccessDenied,
    BrokerUnavailable,
    InvalidRecord,
    PublishError,
    RecordRefused,
    RecordTooLarge,
    SpoolError,
    TopicRefused,
)
from fnm_bus.event import DeadLetter, HostEvent
from fnm_bus.hook import python_hook
from fnm_bus.kafka.addressing import derived_id
from fnm_bus.kafka.record import Record
from fnm_bus.relay import disposal
from fnm_bus.relay import drain as drain_module
from fnm_bus.relay.reading_note import ReadingNote
from fnm_bus.spool import entry
from fnm_bus.spool.spool import Entry

PACKETS = ["a packet " * 50]


class Clock:
    """Advances a minute with each call: every pause is over."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 60
        return self.now


@pytest.fixture
def harness(tmp_path: Path) -> DrainHarness:
    return DrainHarness(tmp_path)


@pytest.fixture(autouse=True)
def quick_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_module, "monotonic", Clock())


def test_published_events_keep_their_order_and_leave_the_disk(
    harness: DrainHarness,
) -> None:
    for number in range(20):
        harness.call(document("192.0.2.1", "ban" if number % 2 == 0 else "unban"))
    drain = harness.drained()
    events = harness.events(TOPICS.host)
    assert [event.action for event in events] == ["ban", "unban"] * 10
    sequences = [event.receipt.sequence for event in events]
    assert sequences == sorted(set(sequences))
    assert harness.spools[0].scan() == []
    assert drain.is_idle
    assert harness.metric("published_total", topic=TOPICS.host) == 20
    assert harness.metric("delay_seconds_count") == 20


def test_an_entry_stays_on_disk_until_it_is_acknowledged(harness: DrainHarness) -> None:
    name = harness.call(document("192.0.2.1"))
    harness.silence()
    drain = harness.drained()
    assert drain.in_flight == 1
    assert harness.spools[0].scan() == [name]


def test_a_drain_after_a_kill_uses_the_same_event_id(harness: DrainHarness) -> None:
    harness.call(document("192.0.2.1"))
    killed = harness.silence()
    harness.drained()
    harness.publisher = MemoryPublisher()
    harness.drained()
    first, again = killed.records[0], harness.publisher.records[0]
    assert first == again


def test_unpublished_records_are_retried_in_order(harness: DrainHarness) -> None:
    answers = iter([BrokerUnavailable("away")] * 7)
    harness.publisher.refuse = lambda _record: next(answers, None)
    for number in range(5):
        harness.call(document(f"192.0.2.{number}"))
    drain_rounds(harness.drain(), rounds=20)
    assert harness.host_ips() == [f"192.0.2.{number}" for number in range(5)]
    assert harness.spools[0].scan() == []
    assert (
        harness.metric("retried_total", topic=TOPICS.host, error="BrokerUnavailable")
        == 7
    )


def test_a_refusing_topic_delays_no_other(harness: DrainHarness) -> None:
    harness.refuse(TopicRefused("forbidden"))
    kept = [harness.call(document("192.0.2.1")), harness.call(document("192.0.2.2"))]
    harness.call(document("192.0.2.1", "attack_status"))
    drain = harness.drained()
    assert len(harness.events(TOPICS.status)) == 1
    assert harness.spools[0].scan() == kept
    harness.accept()
    drain_rounds(drain)
    assert len(harness.events(TOPICS.host)) == 2


def test_a_missing_write_right_is_a_refusal_until_success(
    harness: DrainHarness,
) -> None:
    harness.call(document("192.0.2.1"))
    harness.publisher.refuse = lambda record: AccessDenied(f"{record.topic}: no WRITE")
    drain = harness.drained()
    assert drain.topic_refusals == f"{TOPICS.host}: no WRITE"
    harness.accept()
    drain_rounds(drain)
    assert drain.topic_refusals == ""


def test_a_temporary_topic_error_is_not_a_refusal(harness: DrainHarness) -> None:
    harness.call(document("192.0.2.1"))
    harness.publisher.refuse = lambda _: BrokerUnavailable("no leader")
    drain = harness.drained()
    assert drain.topic_refusals == ""


def test_an_oversized_record_loses_its_samples_and_is_marked(
    harness: DrainHarness,
) -> None:
    def refuse(record: Record) -> PublishError | None:
        return RecordTooLarge("too big") if len(record.value or b"") > 400 else None

    harness.publisher.refuse = refuse
    original = document("192.0.2.1", packet_dump=PACKETS)
    name = harness.call(original, ("ban", "192.0.2.1"))
    harness.drained()
    (event,) = harness.events(TOPICS.host)
    assert isinstance(event, HostEvent)
    assert event.truncated
    assert event.packet_dump == ()
    kept = harness.quarantine.read(name)
    assert kept.entry.document == original
    assert kept.entry.arguments == ("ban", "192.0.2.1")
    assert harness.events(TOPICS.deadletter) == []
    assert harness.spools[0].scan() == []


def test_a_record_too_large_without_samples_is_quarantined(
    harness: DrainHarness,
) -> None:
    harness.refuse(RecordTooLarge("too big"))
    name = harness.call(document("192.0.2.1"))
    harness.drained()
    assert list(harness.quarantine.names()) == [name]
    (letter,) = harness.events(TOPICS.deadletter)
    assert "too big" in letter.reason


def test_a_permanently_refused_record_is_quarantined(harness: DrainHarness) -> None:
    harness.refuse(RecordRefused("no"))
    name = harness.call(document("192.0.2.1"))
    harness.drained()
    assert list(harness.quarantine.names()) == [name]
    assert harness.spools[0].scan() == []


def test_an_invalid_document_is_quarantined_with_a_dead_letter(
    harness: DrainHarness,
) -> None:
    name = harness.call(b'{"action": "ban", "ip": 7}', ("ban", "192.0.2.1"))
    drain = harness.drained()
    assert harness.spools[0].scan() == []
    assert harness.quarantine.read(name).entry.document == b'{"action": "ban", "ip": 7}'
    assert drain.quarantined[name]["field"] == "/ip"
    (letter,) = harness.events(TOPICS.deadletter)
    assert isinstance(letter, DeadLetter)
    assert letter.head == b'{"action": "ban", "ip": 7}'
    assert letter.arguments == ("ban", "192.0.2.1")
    assert letter.field == "/ip"
    assert letter.entry == name
    [record] = harness.publisher.records
    headers = dict(record.headers)
    assert headers["ce_source"] == b"/fnm-bus/relay"
    assert headers["ce_type"] == b"fastnetmon.deadletter"
    assert headers["ce_id"] == derived_id("deadletter", "fra1", name).encode()


def test_an_event_that_does_not_fit_its_schema_is_quarantined(
    harness: DrainHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(event: object, topic: str) -> bytes:
        if isinstance(event, DeadLetter):
            return encode(event, topic)
        raise InvalidRecord("HostEvent does not fit its schema")

    encode = harness.codec.encode
    monkeypatch.setattr(harness.codec, "encode", refuse)
    name = harness.call(document("192.0.2.1"))
    harness.drained()
    assert list(harness.quarantine.names()) == [name]
    (letter,) = harness.events(TOPICS.deadletter)
    assert "does not fit" in letter.reason


def test_the_next_drain_publishes_an_unpublished_dead_letter(
    harness: DrainHarness,
) -> None:
    harness.publisher.refuse = lambda _record: BrokerUnavailable("away")
    harness.call(b"not JSON")
    harness.drained()
    assert harness.publisher.records == []
    harness.publisher = MemoryPublisher()
    harness.drained()
    assert len(harness.events(TOPICS.deadletter)) == 1
    harness.drained()
    assert len(harness.events(TOPICS.deadletter)) == 1


def test_an_entry_for_a_full_quarantine_stays_in_the_spool(tmp_path: Path) -> None:
    harness = DrainHarness(tmp_path, quarantine_files=1)
    harness.call(b"not JSON")
    name = harness.call(b"not JSON either")
    harness.call(document("192.0.2.1"))
    drain = harness.drained()
    drain.update_metrics()
    assert harness.spools[0].scan() == [name]
    assert harness.metric("quarantine_full_entries") == 1
    assert len(harness.events(TOPICS.host)) == 1
    harness.quarantine.delete(harness.quarantine.names()[0])
    drain.retry_blocked()
    drain_rounds(drain)
    assert harness.spools[0].scan() == []
    assert list(harness.quarantine.names()) == [name]


def test_an_unreadable_entry_is_retried(
    harness: DrainHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.call(document("192.0.2.1"))
    drain = harness.drain()

    def broken(name: str) -> Entry:
        raise SpoolError(f"{name}: Input/output error")

    with monkeypatch.context() as disk:
        disk.setattr(harness.spools[0], "read", broken)
        drain_rounds(drain)
        drain.retry_blocked()
        drain_rounds(drain)
        drain.update_metrics()
    assert (drain.is_idle, drain.is_backing_off) == (False, True)
    assert harness.metric("spool_io_blocked_entries") == 1
    drain.retry_blocked()
    drain_rounds(drain)
    assert drain.is_idle
    assert len(harness.events(TOPICS.host)) == 1


def test_an_unremovable_entry_is_not_published_again(
    harness: DrainHarness,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    harness.call(document("192.0.2.1"))
    drain = harness.drain()

    def broken(name: str) -> None:
        raise SpoolError(f"{name}: Read-only file system")

    with monkeypatch.context() as disk:
        disk.setattr(harness.spools[0], "remove", broken)
        for _ in range(3):
            drain.retry_blocked()
            drain_rounds(drain)
        drain.update_metrics()
    assert (drain.is_idle, harness.metric("spool_io_blocked_entries")) == (False, 1)
    assert caplog.text.count("'task': 'removing an entry'") == 1
    drain.retry_blocked()
    drain_rounds(drain)
    assert (drain.is_idle, harness.spools[0].scan()) == (True, [])
    assert len(harness.events(TOPICS.host)) == 1


def test_a_released_document_keeps_its_event_id(harness: DrainHarness) -> None:
    name = harness.call(document("192.0.2.1"))
    harness.refuse(RecordRefused("no"))
    drain = harness.drained()
    harness.accept()
    harness.quarantine.release(name, harness.spools[0])
    drain_rounds(drain)
    (event,) = harness.events(TOPICS.host)
    (letter,) = harness.events(TOPICS.deadletter)
    assert letter.entry == name
    assert not harness.quarantine.names()
    expected = harness._pipeline.prepare(
        store_again(harness, name, document("192.0.2.1")), event.receipt.sequence
    )
    assert expected.event.receipt.event_id == event.receipt.event_id


def store_again(harness: DrainHarness, name: str, body: bytes) -> object:
    python_hook.store_entry(
        str(harness.spools[0].root), name, python_hook.encode_entry((), body)
    )
    return harness.spools[0].read(name)


def test_the_entry_of_hook_check_is_removed_and_not_published(
    harness: DrainHarness,
) -> None:
    harness.call(b"", (python_hook.CHECK_ARGUMENT,))
    harness.drained()
    assert harness.publisher.records == []
    assert harness.spools[0].scan() == []
    assert harness.metric("checks_total") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("ban", python_hook.CHECK_ARGUMENT),
        (python_hook.CHECK_ARGUMENT, "incoming", "1000", "ban"),
        (python_hook.CHECK_ARGUMENT, python_hook.CHECK_ARGUMENT),
    ],
)
def test_the_check_mark_among_other_arguments_removes_no_entry(
    harness: DrainHarness, arguments: tuple[str, ...]
) -> None:
    """An attacker can influence an address or a name in FastNetMon's arguments."""
    harness.call(document("192.0.2.1"), arguments)
    harness.drained()
    assert harness.metric("checks_total") == 0
    assert harness.events(TOPICS.host) or harness.quarantine.names()


def test_a_dead_letter_has_the_digest_of_an_oversized_document(
    harness: DrainHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "_MAX_READ", 100_000)
    body = b"[" * 200_000
    harness.call(body)
    harness.drained()
    (letter,) = harness.events(TOPICS.deadletter)
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    assert (letter.size, letter.digest) == (len(body), digest)


def test_a_field_mismatch_is_counted_and_the_ban_published(
    harness: DrainHarness,
) -> None:
    body = document("192.0.2.1", attack_details={"total_incoming_pps": "many"})
    harness.call(body)
    harness.drained()
    (event,) = harness.events(TOPICS.host)
    assert event.extra == {"/attack_details/total_incoming_pps": '"many"'}
    assert harness.metric("field_mismatches_total") == 1


def test_coalescing_publishes_the_newest_status_of_each_attack(
    harness: DrainHarness,
) -> None:
    for pps in range(5):
        for ip in ("192.0.2.1", "192.0.2.2"):
            details = {"attack_uuid": f"uuid-of-{ip}", "total_incoming_pps": pps}
            harness.call(document(ip, "attack_status", attack_details=details))
    harness.call(document("192.0.2.1"))
    drain = harness.drain()
    drain.is_coalescing = True
    drain_rounds(drain)
    statuses = harness.events(TOPICS.status)
    figures = [
        (event.ip, event.attack_details.total_incoming_pps) for event in statuses
    ]
    assert figures == [("192.0.2.1", 4), ("192.0.2.2", 4)]
    assert len(harness.events(TOPICS.host)) == 1
    assert harness.metric("status_updates_coalesced_total") == 8
    assert harness.spools[0].scan() == []


def test_the_fallback_spool_is_drained_in_the_same_order(harness: DrainHarness) -> None:
    harness.call(document("192.0.2.1"))
    harness.call(document("192.0.2.2"), spool=1)
    harness.call(document("192.0.2.3"))
    harness.drained()
    assert harness.host_ips() == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    assert harness.metric("fallback_entries_total") == 1
    assert harness.spools[1].scan() == []


def test_an_entry_removed_by_another_process_is_not_an_error(
    harness: DrainHarness,
) -> None:
    name = harness.call(document("192.0.2.1"))
    drain = harness.drain()
    drain.scan()
    harness.spools[0].remove(name)
    drain.run_once(0)
    assert drain.is_idle
    assert harness.publisher.records == []


def test_the_note_has_the_entries_being_read(
    harness: DrainHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {harness.call(document(f"192.0.2.{n}")) for n in range(3)}
    note = ReadingNote(harness.spools[0].root / "state/reading")
    noted = []
    encode = harness.codec.encode

    def look(event: HostEvent, topic: str) -> bytes:
        noted.append(note.read())
        return encode(event, topic)

    monkeypatch.setattr(harness.codec, "encode", look)
    harness.drained()
    assert noted == [names] * 3
    assert note.read() == frozenset()


def test_an_unreadable_note_is_read_again_later(harness: DrainHarness) -> None:
    name = harness.call(document("192.0.2.1"))
    note = harness.spools[0].root / "state/reading"
    note.mkdir()
    drain = harness.drain()
    drain.scan()
    assert "reading state/reading" in drain.disk_errors.current
    note.rmdir()
    ReadingNote(note).write([name])
    drain.scan()
    assert not drain.disk_errors.current
    assert drain._suspects == {name}


def test_an_unwritten_note_is_written_without_a_new_entry(
    harness: DrainHarness,
) -> None:
    harness.call(document("192.0.2.1"))
    note = harness.spools[0].root / "state/reading"
    drain = harness.drain()
    drain.scan()
    note.mkdir()
    drain.run_once(0)
    assert "writing state/reading" in drain.disk_errors.current
    note.rmdir()
    drain.retry_blocked()
    assert not drain.disk_errors.current


def test_only_the_latest_refusals_are_remembered(
    harness: DrainHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disposal, "_MAX_REMEMBERED", 2, raising=False)
    names = [harness.call(b"not JSON") for _ in range(3)]
    drain = harness.drained()
    assert list(harness.quarantine.names()) == names
    assert list(drain.quarantined) == names[1:]


def test_boot_epochs_that_cannot_be_written_are_reported(
    harness: DrainHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    drain = harness.drain()
    with monkeypatch.context() as patch:
        patch.setattr("fnm_bus.spool.sequence.atomic_file.replace", full)
        harness.call(document("192.0.2.1"))
        drain_rounds(drain)
        assert "writing state/epochs.json" in drain.disk_errors.current
    assert len(harness.events(TOPICS.host)) == 1
    harness.call(document("192.0.2.2"))
    drain_rounds(drain)
    assert not drain.disk_errors.current


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Plant faults in all processes that are started from now on."""
    (tmp_path / "planted").mkdir()
    monkeypatch.setenv("PYTHONPATH", Planted(tmp_path / "planted").path)
    return tmp_path / "planted/sitecustomize.py"


@pytest.mark.usefixtures("planted")
@pytest.mark.process
def test_after_a_death_only_the_poison_entry_is_quarantined(
    harness: DrainHarness,
) -> None:
    names = [harness.call(document(f"192.0.2.{n}")) for n in range(3)]
    bad = harness.call(poison("crash"))
    last = harness.call(document("192.0.2.9"))
    ReadingNote(harness.spools[0].root / "state/reading").write([*names, bad, last])
    drain = harness.drained()
    drain.close()
    assert harness.host_ips() == ["192.0.2.0", "192.0.2.1", "192.0.2.2", "192.0.2.9"]
    assert list(harness.quarantine.names()) == [bad]
    assert harness.quarantine.read(bad).entry.document == poison("crash")
    (letter,) = harness.events(TOPICS.deadletter)
    assert "SIGSEGV" in letter.reason
    assert harness.spools[0].scan() == []
    assert ReadingNote(harness.spools[0].root / "state/reading").read() == frozenset()


@pytest.mark.process
def test_an_entry_whose_reader_was_killed_is_retried(
    harness: DrainHarness, planted: Path
) -> None:
    name = harness.call(document("192.0.2.1", x="killed outside"))
    harness.call(document("192.0.2.2"))
    ReadingNote(harness.spools[0].root / "state/reading").write([name])
    drain = harness.drained()
    assert harness.host_ips() == ["192.0.2.2"]
    assert harness.spools[0].scan() == [name]
    planted.unlink()
    while not drain.is_idle:  # a new reader may need long on a busy machine
        drain.retry_blocked()
        drain_rounds(drain)
    drain.close()
    assert len(harness.events(TOPICS.host)) == 2
    assert not harness.quarantine.names()


class Slow:
    """Advances a second with each call."""

    def __init__(self) -> None:
        self._count = count()

    def __call__(self) -> float:
        return float(next(self._count))


def test_a_run_ends_when_its_time_is_over(
    harness: DrainHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        harness.call(document(f"192.0.2.{number}"))
    monkeypatch.setattr(drain_module, "perf_counter", Slow())
    drain = harness.drain()
    drain.scan()
    drain.run_once(0)
    assert len(harness.publisher.records) == 1


def test_entries_for_a_full_quarantine_are_retried_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = DrainHarness(tmp_path, quarantine_files=1)
    for _ in range(20):
        harness.call(b"not JSON")
    drain = harness.drained()
    put = harness.quarantine.put
    tried = []

    def counted(entry: Entry, reason: object, *, published: bool = False) -> None:
        tried.append(entry.name)
        put(entry, reason, published=published)  # type: ignore[arg-type]

    monkeypatch.setattr(harness.quarantine, "put", counted)
    monkeypatch.setattr(drain_module, "perf_counter", Slow())
    drain.retry_blocked()
    drain.run_once(0)
    assert len(tried) == 1


def test_a_dead_letter_with_a_stuck_marker_is_published_once(
    harness: DrainHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        harness.call(b"not JSON" if number % 2 else document(f"192.0.2.{number}"))
    drain = harness.drain()

    def broken(name: str) -> None:
        raise SpoolError(f"{name}: Read-only file system")

    with monkeypatch.context() as disk:
        disk.setattr(harness.quarantine, "mark_published", broken)
        for _ in range(3):
            drain_rounds(drain)
            drain.retry_blocked()
    drain_rounds(drain)
    assert len(harness.publisher.records) == 20
    assert drain.is_idle
    assert harness.quarantine.unpublished() == ()


def test_an_unreadable_directory_delays_no_other(harness: DrainHarness) -> None:
    broken = harness.spools[0].root / "incoming/new/0"
    broken.rmdir()
    broken.write_text("no directory")
    harness.call(document("192.0.2.1"))
    harness.call(document("192.0.2.2"), spool=1)
    drain = harness.drained()
    assert len(harness.events(TOPICS.host)) == 2
    assert drain.is_scan_incomplete
    broken.unlink()
    broken.mkdir()
    drain_rounds(drain)
    assert not drain.is_scan_incomplete


def test_a_missing_spool_delays_no_other(
    harness: DrainHarness, caplog: pytest.LogCaptureFixture
) -> None:
    root = harness.spools[0].root
    harness.call(document("192.0.2.1"), spool=1)
    drain = harness.drain()
    (root / "incoming").rename(root / "away")
    drain_rounds(drain)
    drain_rounds(drain)
    assert len(harness.events(TOPICS.host)) == 1
    assert caplog.text.count("listing entries") == 1
    assert harness.metric("disk_errors_total", task="listing entries") == 2
    (root / "away").rename(root / "incoming")
    harness.call(document("192.0.2.2"))
    drain_rounds(drain)
    assert len(harness.events(TOPICS.host)) == 2


def test_a_full_disk_for_the_note_stops_no_entry(
    harness: DrainHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int, _data: bytes, _at: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    harness.call(document("192.0.2.1"))
    harness.drained()
    assert len(harness.events(TOPICS.host)) == 1


def test_an_entry_removed_during_a_scan_is_not_an_error(
    harness: DrainHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.call(document("192.0.2.2"))
    name = harness.call(document("192.0.2.1"))
    listdir = os.listdir

    def vanish(path: str) -> list[str]:
        names = listdir(path)
        harness.spools[0].path(name).unlink(missing_ok=True)
        return names

    monkeypatch.setattr(os, "listdir", vanish)
    harness.drained()
    assert harness.host_ips() == ["192.0.2.2"]
