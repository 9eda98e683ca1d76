"""The drain on a real spool, with a publisher in memory."""

import errno
import hashlib
import json
import os
from itertools import count
from pathlib import Path

import pytest
from support.planted import Planted, poison

from fnm_bus.avro.codec import Codec
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
from fnm_bus.kafka.publisher import MemoryPublisher
from fnm_bus.kafka.record import Record
from fnm_bus.kafka.route import Topics, derived_id
from fnm_bus.relay import drain as drain_module
from fnm_bus.relay.drain import Drain, InFlightLimits
from fnm_bus.relay.metrics import RelayMetrics
from fnm_bus.relay.pipeline import Pipeline
from fnm_bus.relay.reading_note import ReadingNote
from fnm_bus.relay.source import EntrySource
from fnm_bus.spool import entry
from fnm_bus.spool.quarantine import Quarantine
from fnm_bus.spool.sequence import BootEpochs
from fnm_bus.spool.spool import Entry, Spool

TOPICS = Topics()
PACKETS = ["a packet " * 50]


def document(ip: str, action: str = "ban", **more: object) -> bytes:
    details = {"attack_uuid": f"uuid-of-{ip}", "total_incoming_pps": 1000}
    body = {"ip": ip, "action": action, "attack_details": details, **more}
    return json.dumps(body).encode()


class House:
    """A spool, a fallback spool, a quarantine and everything that drains them."""

    def __init__(self, root: Path, quarantine_files: int = 100) -> None:
        epochs = BootEpochs(root / "spool/state/epochs.json", python_hook.boot_id())
        self.spools = [Spool(root / "spool", epochs), Spool(root / "fallback", epochs)]
        for spool in self.spools:
            spool.make(os.getuid(), os.getgid())
        self.quarantine = Quarantine(root / "spool", quarantine_files, 10**9)
        self.codec = Codec(None)
        self.metrics = RelayMetrics()
        self.publisher = MemoryPublisher()
        self._pipeline = Pipeline("fra1", TOPICS, self.codec)
        self._epochs = epochs
        self._ticks = count(1_000)

    def call(
        self, document: bytes, arguments: tuple[str, ...] = (), spool: int = 0
    ) -> str:
        """Store a notification as a hook started after all others would."""
        name = f"{python_hook.boot_id()}-{next(self._ticks):012d}-0000100-0000000a"
        root = str(self.spools[spool].root)
        python_hook.store_entry(
            root, name, python_hook.encode_entry(arguments, document)
        )
        return name

    def drain(self) -> Drain:
        intake = EntrySource(
            self.spools, self.quarantine, self._epochs, self._pipeline, self.metrics
        )
        return Drain(intake, self.publisher, InFlightLimits())

    def events(self, topic: str) -> list[object]:
        return [
            self.codec.decode(record.value or b"")
            for record in self.publisher.records
            if record.topic == topic
        ]

    def figure(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry().get_sample_value(f"fnm_bus_{name}", labels)


class Clock:
    """Goes on a minute with each look: every pause is over."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 60
        return self.now


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture(autouse=True)
def _quick_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_module, "monotonic", Clock())


def turn(drain: Drain, rounds: int = 10) -> None:
    drain.look()
    for _ in range(rounds):
        drain.step(0)


def test_events_come_in_the_order_of_the_calls_and_leave_the_disk(house: House) -> None:
    for number in range(20):
        house.call(document("192.0.2.1", "ban" if number % 2 == 0 else "unban"))
    drain = house.drain()
    turn(drain)
    events = house.events(TOPICS.host)
    assert [event.action for event in events] == ["ban", "unban"] * 10
    sequences = [event.receipt.sequence for event in events]
    assert sequences == sorted(set(sequences))
    assert house.spools[0].scan() == []
    assert drain.idle
    assert house.figure("published_total", topic=TOPICS.host) == 20
    assert house.figure("delay_seconds_count") == 20


def test_an_entry_stays_on_disk_until_it_is_acknowledged(house: House) -> None:
    name = house.call(document("192.0.2.1"))
    silent = MemoryPublisher()
    silent.poll = lambda _timeout: None  # type: ignore[method-assign]
    silent.flush = lambda _timeout: 1  # type: ignore[method-assign]
    house.publisher = silent
    drain = house.drain()
    turn(drain)
    assert drain.in_flight == 1
    assert house.spools[0].scan() == [name]


def test_a_drain_after_a_killed_one_publishes_with_the_same_event_id(
    house: House,
) -> None:
    house.call(document("192.0.2.1"))
    killed = house.publisher
    killed.poll = lambda _timeout: None  # type: ignore[method-assign]
    killed.flush = lambda _timeout: 1  # type: ignore[method-assign]
    turn(house.drain())
    house.publisher = MemoryPublisher()
    turn(house.drain())
    first, again = killed.records[0], house.publisher.records[0]
    assert first == again


def test_what_kafka_did_not_take_is_tried_again_in_order(house: House) -> None:
    answers = iter([BrokerUnavailable("away")] * 7)
    house.publisher.refuse = lambda _record: next(answers, None)
    for number in range(5):
        house.call(document(f"192.0.2.{number}"))
    turn(house.drain(), rounds=20)
    ips = [event.ip for event in house.events(TOPICS.host)]
    assert ips == [f"192.0.2.{number}" for number in range(5)]
    assert house.spools[0].scan() == []
    assert (
        house.figure("retried_total", topic=TOPICS.host, error="BrokerUnavailable") == 7
    )


def test_a_topic_that_refuses_does_not_hold_up_another(house: House) -> None:
    def refuse(record: Record) -> PublishError | None:
        return TopicRefused("forbidden") if record.topic == TOPICS.host else None

    house.publisher.refuse = refuse
    kept = [house.call(document("192.0.2.1")), house.call(document("192.0.2.2"))]
    house.call(document("192.0.2.1", "attack_status"))
    drain = house.drain()
    turn(drain)
    assert len(house.events(TOPICS.status)) == 1
    assert house.spools[0].scan() == kept
    house.publisher.refuse = lambda _record: None
    turn(drain)
    assert len(house.events(TOPICS.host)) == 2


def test_a_topic_without_the_right_to_write_is_a_problem_until_it_takes_a_record(
    house: House,
) -> None:
    house.call(document("192.0.2.1"))
    house.publisher.refuse = lambda record: AccessDenied(f"{record.topic}: no WRITE")
    drain = house.drain()
    turn(drain)
    assert drain.refusals == f"{TOPICS.host}: no WRITE"
    house.publisher.refuse = lambda _: None
    turn(drain)
    assert drain.refusals == ""


def test_a_topic_that_may_take_records_by_itself_is_no_problem(house: House) -> None:
    house.call(document("192.0.2.1"))
    house.publisher.refuse = lambda _: BrokerUnavailable("no leader")
    drain = house.drain()
    turn(drain)
    assert drain.refusals == ""


def test_a_record_that_is_too_large_loses_its_samples_and_says_so(
    house: House,
) -> None:
    def refuse(record: Record) -> PublishError | None:
        return RecordTooLarge("too big") if len(record.value or b"") > 400 else None

    house.publisher.refuse = refuse
    original = document("192.0.2.1", packet_dump=PACKETS)
    name = house.call(original, ("ban", "192.0.2.1"))
    turn(house.drain())
    (event,) = house.events(TOPICS.host)
    assert isinstance(event, HostEvent)
    assert event.truncated
    assert event.packet_dump == ()
    kept = house.quarantine.read(name)
    assert kept.entry.document == original
    assert kept.entry.arguments == ("ban", "192.0.2.1")
    assert house.events(TOPICS.deadletter) == []
    assert house.spools[0].scan() == []


def test_a_record_that_never_fits_is_quarantined_with_a_dead_letter(
    house: House,
) -> None:
    def refuse(record: Record) -> PublishError | None:
        return RecordTooLarge("too big") if record.topic == TOPICS.host else None

    house.publisher.refuse = refuse
    name = house.call(document("192.0.2.1"))
    turn(house.drain())
    assert list(house.quarantine.names()) == [name]
    (letter,) = house.events(TOPICS.deadletter)
    assert "too big" in letter.reason


def test_a_record_refused_for_good_is_quarantined(house: House) -> None:
    def refuse(record: Record) -> PublishError | None:
        return RecordRefused("no") if record.topic == TOPICS.host else None

    house.publisher.refuse = refuse
    name = house.call(document("192.0.2.1"))
    turn(house.drain())
    assert list(house.quarantine.names()) == [name]
    assert house.spools[0].scan() == []


@pytest.mark.parametrize("kept", [0, 30, -1])
def test_an_entry_that_a_loss_of_power_has_cut_is_no_event(
    house: House, kept: int
) -> None:
    """Cut where the rest could be a document, too: a text report is one at any line."""
    name = house.call(b"IP: 192.0.2.1\nAttack direction: incoming\n", ("ban",))
    path = house.spools[0].path(name)
    path.write_bytes(path.read_bytes()[:kept])
    turn(house.drain())
    assert house.events(TOPICS.host) == []
    (letter,) = house.events(TOPICS.deadletter)
    assert letter.entry == name
    assert list(house.quarantine.names()) == [name]
    assert ("power was lost" in letter.reason) == (kept != 0)


def test_an_invalid_document_is_kept_and_told_with_the_reason(house: House) -> None:
    name = house.call(b'{"action": "ban", "ip": 7}', ("ban", "192.0.2.1"))
    drain = house.drain()
    turn(drain)
    assert house.spools[0].scan() == []
    assert house.quarantine.read(name).entry.document == b'{"action": "ban", "ip": 7}'
    assert drain.refused[name]["field"] == "/ip"
    (letter,) = house.events(TOPICS.deadletter)
    assert isinstance(letter, DeadLetter)
    assert letter.head == b'{"action": "ban", "ip": 7}'
    assert letter.arguments == ("ban", "192.0.2.1")
    assert letter.field == "/ip"
    assert letter.entry == name
    (record,) = (it for it in house.publisher.records if it.topic == TOPICS.deadletter)
    headers = dict(record.headers)
    assert headers["ce_source"] == b"/fnm-bus/relay"
    assert headers["ce_type"] == b"fastnetmon.deadletter"
    assert headers["ce_id"] == derived_id("deadletter", "fra1", name).encode()


def test_an_event_that_does_not_fit_its_schema_is_set_aside(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(event: object, topic: str) -> bytes:
        if isinstance(event, DeadLetter):
            return encode(event, topic)
        raise InvalidRecord("HostEvent does not fit its schema")

    encode = house.codec.encode
    monkeypatch.setattr(house.codec, "encode", refuse)
    name = house.call(document("192.0.2.1"))
    turn(house.drain())
    assert list(house.quarantine.names()) == [name]
    (letter,) = house.events(TOPICS.deadletter)
    assert "does not fit" in letter.reason


def test_a_dead_letter_is_sent_by_the_next_drain_when_kafka_was_away(
    house: House,
) -> None:
    house.publisher.refuse = lambda _record: BrokerUnavailable("away")
    house.call(b"not JSON")
    turn(house.drain())
    assert house.publisher.records == []
    house.publisher = MemoryPublisher()
    turn(house.drain())
    assert len(house.events(TOPICS.deadletter)) == 1
    turn(house.drain())
    assert len(house.events(TOPICS.deadletter)) == 1


def test_with_a_full_quarantine_the_document_stays_in_the_spool(
    tmp_path: Path,
) -> None:
    house = House(tmp_path, quarantine_files=1)
    house.call(b"not JSON")
    name = house.call(b"not JSON either")
    house.call(document("192.0.2.1"))
    drain = house.drain()
    turn(drain)
    drain.show()
    assert house.spools[0].scan() == [name]
    assert house.figure("quarantine_full_entries") == 1
    assert len(house.events(TOPICS.host)) == 1
    house.quarantine.delete(house.quarantine.names()[0])
    drain.retry()
    turn(drain)
    assert house.spools[0].scan() == []
    assert list(house.quarantine.names()) == [name]


def test_what_the_disk_does_not_let_be_read_is_tried_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.call(document("192.0.2.1"))
    drain = house.drain()

    def broken(name: str) -> Entry:
        raise SpoolError(f"{name}: Input/output error")

    with monkeypatch.context() as disk:
        disk.setattr(house.spools[0], "read", broken)
        turn(drain)
        drain.retry()
        turn(drain)
        drain.show()
    assert (drain.idle, drain.stuck, house.figure("spool_io_blocked_entries")) == (
        False,
        True,
        1,
    )
    drain.retry()
    turn(drain)
    assert drain.idle
    assert len(house.events(TOPICS.host)) == 1


def test_what_the_disk_does_not_let_be_removed_is_not_published_again(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    house.call(document("192.0.2.1"))
    drain = house.drain()

    def broken(name: str) -> None:
        raise SpoolError(f"{name}: Read-only file system")

    with monkeypatch.context() as disk:
        disk.setattr(house.spools[0], "remove", broken)
        for _ in range(3):
            drain.retry()
            turn(drain)
        drain.show()
    assert (drain.idle, house.figure("spool_io_blocked_entries")) == (False, 1)
    assert caplog.text.count("'task': 'removing an entry'") == 1
    drain.retry()
    turn(drain)
    assert (drain.idle, house.spools[0].scan()) == (True, [])
    assert len(house.events(TOPICS.host)) == 1


def test_a_released_document_keeps_its_event_id(house: House) -> None:
    name = house.call(document("192.0.2.1"))
    house.publisher.refuse = lambda record: (
        RecordRefused("no") if record.topic == TOPICS.host else None
    )
    drain = house.drain()
    turn(drain)
    house.publisher.refuse = lambda _record: None
    house.quarantine.release(name, house.spools[0])
    turn(drain)
    (event,) = house.events(TOPICS.host)
    (letter,) = house.events(TOPICS.deadletter)
    assert letter.entry == name
    assert not house.quarantine.names()
    expected = house._pipeline.prepare(
        hook_entry(house, name, document("192.0.2.1")), event.receipt.sequence
    )
    assert expected.event.receipt.event_id == event.receipt.event_id


def hook_entry(house: House, name: str, body: bytes) -> object:
    python_hook.store_entry(
        str(house.spools[0].root), name, python_hook.encode_entry((), body)
    )
    return house.spools[0].read(name)


def test_the_document_of_a_check_is_removed_and_not_published(house: House) -> None:
    house.call(b"", (python_hook.CHECK_ARGUMENT,))
    turn(house.drain())
    assert house.publisher.records == []
    assert house.spools[0].scan() == []
    assert house.figure("checks_total") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("ban", python_hook.CHECK_ARGUMENT),
        (python_hook.CHECK_ARGUMENT, "incoming", "1000", "ban"),
        (python_hook.CHECK_ARGUMENT, python_hook.CHECK_ARGUMENT),
    ],
)
def test_the_mark_of_a_check_beside_other_arguments_removes_no_document(
    house: House, arguments: tuple[str, ...]
) -> None:
    """An address or a name in FastNetMon's arguments is another's to choose."""
    house.call(document("192.0.2.1"), arguments)
    turn(house.drain())
    assert house.figure("checks_total") == 0
    assert house.events(TOPICS.host) or house.quarantine.names()


def test_a_dead_letter_has_the_digest_of_a_document_that_is_too_large_to_be_read(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "_MAX_READ", 100_000)
    body = b"[" * 200_000
    house.call(body)
    turn(house.drain())
    (letter,) = house.events(TOPICS.deadletter)
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    assert (letter.size, letter.digest) == (len(body), digest)


def test_drift_is_counted_and_costs_no_ban(house: House) -> None:
    body = document("192.0.2.1", attack_details={"total_incoming_pps": "many"})
    house.call(body)
    turn(house.drain())
    (event,) = house.events(TOPICS.host)
    assert event.extra == {"/attack_details/total_incoming_pps": '"many"'}
    assert house.figure("field_mismatches_total") == 1


def test_thinning_leaves_the_newest_status_of_each_attack(house: House) -> None:
    for pps in range(5):
        for ip in ("192.0.2.1", "192.0.2.2"):
            details = {"attack_uuid": f"uuid-of-{ip}", "total_incoming_pps": pps}
            house.call(document(ip, "attack_status", attack_details=details))
    house.call(document("192.0.2.1"))
    drain = house.drain()
    drain.thinning = True
    turn(drain)
    statuses = house.events(TOPICS.status)
    figures = [(it.ip, it.attack_details.total_incoming_pps) for it in statuses]
    assert figures == [("192.0.2.1", 4), ("192.0.2.2", 4)]
    assert len(house.events(TOPICS.host)) == 1
    assert house.figure("status_updates_coalesced_total") == 8
    assert house.spools[0].scan() == []


def test_the_fallback_spool_is_drained_in_the_same_order(house: House) -> None:
    house.call(document("192.0.2.1"))
    house.call(document("192.0.2.2"), spool=1)
    house.call(document("192.0.2.3"))
    turn(house.drain())
    ips = [event.ip for event in house.events(TOPICS.host)]
    assert ips == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    assert house.figure("fallback_entries_total") == 1
    assert house.spools[1].scan() == []


def test_what_a_hook_left_that_was_killed_when_it_had_stored_goes_with_its_entry(
    house: House,
) -> None:
    name = house.call(document("192.0.2.1"))
    left = [it.root / "incoming/tmp" / name for it in house.spools]
    for path in left:
        path.write_bytes(b"the same")
    turn(house.drain())
    assert house.events(TOPICS.host)
    assert not any(path.exists() for path in left)


def test_what_somebody_else_removed_is_no_error(house: House) -> None:
    name = house.call(document("192.0.2.1"))
    drain = house.drain()
    drain.look()
    house.spools[0].remove(name)
    drain.step(0)
    assert drain.idle
    assert house.publisher.records == []


def test_what_is_being_read_is_noted_and_forgotten_when_it_was_read(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {house.call(document(f"192.0.2.{n}")) for n in range(3)}
    note = ReadingNote(house.spools[0].root / "state/reading")
    noted = []
    encode = house.codec.encode

    def look(event: HostEvent, topic: str) -> bytes:
        noted.append(note.read())
        return encode(event, topic)

    monkeypatch.setattr(house.codec, "encode", look)
    turn(house.drain())
    assert noted == [names] * 3
    assert note.read() == frozenset()


def test_a_note_that_could_not_be_read_is_read_when_it_can_be(house: House) -> None:
    name = house.call(document("192.0.2.1"))
    note = house.spools[0].root / "state/reading"
    note.mkdir()
    drain = house.drain()
    drain.look()
    assert "reading the note of what was read" in drain.disk.current
    note.rmdir()
    ReadingNote(note).write([name])
    drain.look()
    assert not drain.disk.current
    assert drain._suspects == {name}


def test_a_note_that_could_not_be_written_is_written_without_a_new_entry(
    house: House,
) -> None:
    house.call(document("192.0.2.1"))
    note = house.spools[0].root / "state/reading"
    drain = house.drain()
    drain.look()
    note.mkdir()
    drain.step(0)
    assert "writing the note of what is read" in drain.disk.current
    note.rmdir()
    drain.retry()
    assert not drain.disk.current


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Plant faults in the processes that are started from here on, by a file."""
    (tmp_path / "planted").mkdir()
    monkeypatch.setenv("PYTHONPATH", Planted(tmp_path / "planted").path)
    return tmp_path / "planted/sitecustomize.py"


@pytest.mark.process
@pytest.mark.usefixtures("planted")
def test_after_a_death_only_what_kills_its_reader_is_set_aside(house: House) -> None:
    names = [house.call(document(f"192.0.2.{n}")) for n in range(3)]
    bad = house.call(poison("crash"))
    last = house.call(document("192.0.2.9"))
    ReadingNote(house.spools[0].root / "state/reading").write([*names, bad, last])
    drain = house.drain()
    turn(drain)
    drain.close()
    ips = [event.ip for event in house.events(TOPICS.host)]
    assert ips == ["192.0.2.0", "192.0.2.1", "192.0.2.2", "192.0.2.9"]
    assert list(house.quarantine.names()) == [bad]
    assert house.quarantine.read(bad).entry.document == poison("crash")
    (letter,) = house.events(TOPICS.deadletter)
    assert "SIGSEGV" in letter.reason
    assert house.spools[0].scan() == []
    assert ReadingNote(house.spools[0].root / "state/reading").read() == frozenset()


@pytest.mark.process
def test_what_was_killed_from_outside_is_tried_again(
    house: House, planted: Path
) -> None:
    name = house.call(document("192.0.2.1", x="killed outside"))
    house.call(document("192.0.2.2"))
    ReadingNote(house.spools[0].root / "state/reading").write([name])
    drain = house.drain()
    turn(drain)
    assert [event.ip for event in house.events(TOPICS.host)] == ["192.0.2.2"]
    assert house.spools[0].scan() == [name]
    planted.unlink()
    drain.retry()
    turn(drain)
    drain.close()
    assert len(house.events(TOPICS.host)) == 2
    assert not house.quarantine.names()


class Slow:
    """A clock that goes on a second with each look."""

    def __init__(self) -> None:
        self._count = count()

    def __call__(self) -> float:
        return float(next(self._count))


def test_a_step_ends_when_its_time_is_over(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        house.call(document(f"192.0.2.{number}"))
    monkeypatch.setattr(drain_module, "perf_counter", Slow())
    drain = house.drain()
    drain.look()
    drain.step(0)
    assert len(house.publisher.records) == 1


def test_what_a_full_quarantine_refused_is_tried_again_a_little_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(tmp_path, quarantine_files=1)
    for _ in range(20):
        house.call(b"not JSON")
    drain = house.drain()
    turn(drain)
    put = house.quarantine.put
    tried = []

    def counted(entry: Entry, reason: object, *, published: bool = False) -> None:
        tried.append(entry.name)
        put(entry, reason, published=published)  # type: ignore[arg-type]

    monkeypatch.setattr(house.quarantine, "put", counted)
    monkeypatch.setattr(drain_module, "perf_counter", Slow())
    drain.retry()
    drain.step(0)
    assert len(tried) == 1


def test_a_dead_letter_whose_note_cannot_be_removed_is_not_sent_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        house.call(b"not JSON" if number % 2 else document(f"192.0.2.{number}"))
    drain = house.drain()

    def broken(name: str) -> None:
        raise SpoolError(f"{name}: Read-only file system")

    with monkeypatch.context() as disk:
        disk.setattr(house.quarantine, "mark_published", broken)
        for _ in range(3):
            turn(drain)
            drain.retry()
    turn(drain)
    assert len(house.publisher.records) == 20
    assert drain.idle
    assert house.quarantine.unpublished() == ()


def test_a_directory_that_cannot_be_read_holds_up_no_other(house: House) -> None:
    broken = house.spools[0].root / "incoming/new/0"
    broken.rmdir()
    broken.write_text("no directory")
    house.call(document("192.0.2.1"))
    house.call(document("192.0.2.2"), spool=1)
    drain = house.drain()
    turn(drain)
    assert len(house.events(TOPICS.host)) == 2
    assert drain.unlisted
    broken.unlink()
    broken.mkdir()
    turn(drain)
    assert not drain.unlisted


def test_a_spool_that_is_away_holds_up_no_other(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    root = house.spools[0].root
    house.call(document("192.0.2.1"), spool=1)
    drain = house.drain()
    (root / "incoming").rename(root / "away")
    turn(drain)
    turn(drain)
    assert len(house.events(TOPICS.host)) == 1
    assert caplog.text.count("listing entries") == 1
    assert house.figure("disk_errors_total", task="listing entries") == 2
    (root / "away").rename(root / "incoming")
    house.call(document("192.0.2.2"))
    turn(drain)
    assert len(house.events(TOPICS.host)) == 2


def test_without_room_for_the_note_everything_goes_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int, _data: bytes, _at: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    house.call(document("192.0.2.1"))
    turn(house.drain())
    assert len(house.events(TOPICS.host)) == 1


def test_an_entry_that_vanishes_before_its_time_is_read_is_no_error(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.call(document("192.0.2.2"))
    name = house.call(document("192.0.2.1"))
    listdir = os.listdir

    def vanish(path: str) -> list[str]:
        names = listdir(path)
        house.spools[0].path(name).unlink(missing_ok=True)
        return names

    monkeypatch.setattr(os, "listdir", vanish)
    turn(house.drain())
    assert [event.ip for event in house.events(TOPICS.host)] == ["192.0.2.2"]
