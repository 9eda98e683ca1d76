"""The loop of consumers, on the embedded broker."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import BytesIO

import fastavro
import msgspec
import pytest
from support.loop_harness import CODEC, LoopHarness, Seen, event, value_of
from support.process import wait_until

from fnm_bus.avro import schema
from fnm_bus.avro.codec import Codec
from fnm_bus.consume import loop
from fnm_bus.consume.handler import AbortConsumer, Deferred, RetryLater
from fnm_bus.consume.partition import OffsetTracker
from fnm_bus.errors import (
    BrokerUnavailable,
    ConfigError,
    PublishError,
    RegistryError,
)
from fnm_bus.event import AnyRecord, DeadLetter
from fnm_bus.kafka.dead_letter import build_dead_letter
from fnm_bus.kafka.embedded_broker import EmbeddedBroker
from fnm_bus.kafka.reader import ConsumedRecord
from fnm_bus.kafka.route import derived_id


@pytest.fixture
def bench(
    embedded_broker: str, topic_names: Callable[[str], str]
) -> Iterator[LoopHarness]:
    it = LoopHarness(embedded_broker, topic_names("events"))
    it.put(None)
    yield it
    it.stop()
    assert it.failed == []


def test_a_handler_gets_each_event_and_what_is_done_is_not_repeated(
    bench: LoopHarness,
) -> None:
    first, second = Seen(), Seen()
    bench.put(event(1))
    bench.put(event(2))
    bench.start(first)
    first.until("1", "2")
    bench.stop()
    bench.put(event(3))
    bench.start(second)
    second.until("3")
    assert first.ids == ["1", "2"]
    assert second.ids == ["3"]


def test_what_is_held_is_read_again_by_the_next_one(bench: LoopHarness) -> None:
    first, second = Seen(lambda name, _n: Deferred() if name == "2" else None), Seen()
    for number in (1, 2, 3):
        bench.put(event(number))
    bench.start(first)
    first.until("1", "2", "3")
    bench.stop()
    bench.start(second)
    second.until("2", "3")
    assert second.ids == ["2", "3"]


def test_what_is_released_is_not_read_again(bench: LoopHarness) -> None:
    holds: list[Deferred] = []

    def hold(_name: str, _count: int) -> Deferred:
        holds.append(Deferred())
        return holds[-1]

    def settle() -> None:
        for it in holds:
            it.release()

    first, second = Seen(hold), Seen()
    bench.put(event(1))
    bench.start(first, before_commit=settle)
    first.until("1")
    bench.stop()
    bench.put(event(2))
    bench.start(second)
    second.until("2")
    assert second.ids == ["2"]


def test_later_pauses_its_partition_and_the_others_go_on(bench: LoopHarness) -> None:
    open_ = threading.Event()

    def later(name: str, _count: int) -> None:
        if name == "1" and not open_.is_set():
            raise RetryLater("not yet", 0.05)

    seen = Seen(later)
    bench.put(event(1), 0)
    bench.put(event(2), 0)
    bench.put(event(3), 1)
    bench.start(seen)
    seen.until("3")
    wait_until(lambda: seen.ids.count("1") > 2, 20, "tried again")
    assert "2" not in seen.ids
    open_.set()
    seen.until("2")
    assert bench.letters.records == []


def test_a_record_that_fails_again_and_again_becomes_a_dead_letter(
    bench: LoopHarness,
) -> None:
    def fail(name: str, _count: int) -> None:
        if name == "1":
            raise ValueError("no such host")

    seen = Seen(fail)
    bench.put(event(1))
    bench.put(event(2))
    bench.start(seen, max_attempts=3)
    seen.until("2")
    assert seen.ids == ["1", "1", "1", "2"]
    [record] = bench.letters.records
    letter = CODEC.decode(record.value)
    assert isinstance(letter, DeadLetter)
    assert letter.attempts == 3
    assert "ValueError: no such host" in letter.reason
    assert letter.origin_topic == bench.topic
    assert letter.origin_offset == 1
    headers = dict(record.headers)
    place = (letter.origin_topic, letter.origin_partition or 0, letter.origin_offset)
    assert headers["ce_id"] == derived_id("deadletter", *place).encode()
    assert headers["ce_type"] == b"fastnetmon.deadletter"


def test_a_failure_that_passes_is_no_dead_letter(bench: LoopHarness) -> None:
    def fail(_name: str, count: int) -> None:
        if count == 1:
            raise ValueError("once")

    seen = Seen(fail)
    bench.put(event(1))
    bench.put(event(2))
    bench.start(seen, max_attempts=3)
    seen.until("2")
    assert bench.letters.records == []


def test_what_cannot_be_decoded_becomes_a_dead_letter_at_once(
    bench: LoopHarness,
) -> None:
    seen = Seen()
    bench.put(b"not avro")
    bench.put(event(1))
    bench.start(seen)
    seen.until("1")
    [record] = bench.letters.records
    letter = CODEC.decode(record.value)
    assert isinstance(letter, DeadLetter)
    assert letter.head == b"not avro"


@pytest.mark.parametrize("ip", ["garbage", "", "192.0.2.1/32", "192.0.2.01"])
def test_an_event_that_no_parser_makes_becomes_a_dead_letter(
    bench: LoopHarness, ip: str
) -> None:
    seen = Seen()
    bench.put(msgspec.structs.replace(event(1), ip=ip))
    bench.put(event(2))
    bench.start(seen)
    seen.until("2")
    assert seen.ids == ["2"]
    [record] = bench.letters.records
    letter = CODEC.decode(record.value)
    assert isinstance(letter, DeadLetter)
    assert letter.reason.startswith("HostEvent: /ip: wanted ")


@pytest.mark.parametrize("timestamp", [2**62, 2**63 - 1])
def test_a_record_of_a_mad_time_is_read(bench: LoopHarness, timestamp: int) -> None:
    seen = Seen()
    bench.put(event(1), timestamp=timestamp)
    bench.put(event(2))
    bench.start(seen)
    seen.until("1", "2")


def test_without_the_dead_letter_the_record_is_not_done(bench: LoopHarness) -> None:
    seen, again = Seen(), Seen()
    bench.letters.refuse = lambda _record: PublishError("nobody takes it")
    bench.put(b"not avro")
    bench.put(event(1))
    bench.start(seen)
    seen.until("1")
    bench.stop()
    bench.letters.refuse = lambda _record: None
    bench.start(again)
    again.until("1")
    assert len(bench.letters.records) == 1


def test_a_registry_that_is_down_makes_nothing_a_dead_letter(
    bench: LoopHarness,
) -> None:
    down = threading.Event()
    down.set()

    class Broken(Codec):
        def decode(self, value: bytes | None) -> AnyRecord:
            if down.is_set():
                raise RegistryError("down")
            return super().decode(value)

    seen = Seen()
    bench.put(event(1))
    bench.start(seen, codec=Broken())
    retried = bench.metrics.retries.labels(bench.topic)
    wait_until(lambda: value_of(retried) > 1, 20, "tried again")
    down.clear()
    seen.until("1")
    assert bench.letters.records == []


def test_tombstones_come_only_to_who_asks(bench: LoopHarness) -> None:
    values: list[bytes | None] = []

    def note(read: ConsumedRecord) -> None:
        values.append(read.value)

    bench.put(event(1))
    bench.start(note, tombstones=True)
    wait_until(lambda: len(values) == 2, 20, "both")
    assert values[0] is None


def test_offsets_wait_while_nothing_can_be_settled(bench: LoopHarness) -> None:
    full = threading.Event()
    full.set()

    def settle() -> None:
        if full.is_set():
            raise RetryLater("disk full")

    first, second = Seen(), Seen()
    bench.put(event(1))
    bench.start(first, before_commit=settle)
    first.until("1")
    bench.stop()
    bench.start(second)
    second.until("1")


def test_what_stands_behind_a_record_that_waits_stays_in_its_order(
    bench: LoopHarness,
) -> None:
    def later(_name: str, count: int) -> None:
        if count < 3:
            raise RetryLater("not yet", 0.0)

    seen = Seen(later)
    for number in range(8):
        bench.put(event(number))
    bench.start(seen)
    wait_until(lambda: seen.ids.count("7") == 3, 20, "the last one, three times")
    bench.stop()
    assert seen.ids == [str(number) for number in range(8) for _ in range(3)]


def test_another_of_our_errors_that_may_pass_makes_nothing_a_dead_letter(
    bench: LoopHarness,
) -> None:
    def away(_name: str, count: int) -> None:
        if count < 4:
            raise BrokerUnavailable("nobody answers")

    seen = Seen(away)
    bench.put(event(1))
    bench.put(event(2))
    bench.start(seen, max_attempts=2)
    seen.until("2")
    assert bench.letters.records == []
    assert value_of(bench.metrics.errors.labels(bench.topic)) == 0


def test_what_waits_is_told_once_and_not_at_each_try(
    bench: LoopHarness, caplog: pytest.LogCaptureFixture
) -> None:
    def later(_name: str, count: int) -> None:
        if count < 4:
            raise RetryLater("the world is not ready", 0.0)
        if count < 6:
            raise RetryLater("nor is the moon", 0.0)

    seen = Seen(later)
    bench.put(event(1))
    bench.put(event(2))
    bench.start(seen)
    seen.until("2")
    lines = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    retried = [line for line in lines if line["event"] == "record_retried"]
    assert [line["reason"] for line in retried if line["record"].endswith("@1")] == [
        "the world is not ready",
        "nor is the moon",
    ]


def test_giving_up_ends_the_loop_and_commits_nothing_more(bench: LoopHarness) -> None:
    def give_up() -> None:
        raise AbortConsumer("the reader is gone")

    first, second = Seen(), Seen()
    bench.put(event(1))
    bench.start(first, before_commit=give_up)
    first.until("1")
    bench.join()
    [error] = bench.failed
    assert isinstance(error, AbortConsumer)
    bench.failed.clear()
    bench.start(second)
    second.until("1")


def test_a_handler_can_end_the_loop(bench: LoopHarness) -> None:
    def handler(_read: ConsumedRecord) -> None:
        raise AbortConsumer("enough")

    bench.put(event(1))
    bench.start(handler)
    bench.join()
    assert [str(it) for it in bench.failed] == ["enough"]
    bench.failed.clear()


def test_one_hold_may_stand_for_several_records(bench: LoopHarness) -> None:
    hold = Deferred()
    first, second = Seen(lambda _name, _count: hold), Seen()
    for number in (1, 2, 3):
        bench.put(event(number))
    released = threading.Event()

    def turn() -> float:
        if len(first.ids) == 3:
            hold.release()
            released.set()
        return 0.1

    bench.start(first, between_records=turn)
    assert released.wait(20)
    bench.stop()
    bench.put(event(4))
    bench.start(second)
    second.until("4")
    assert second.ids == ["4"]


def test_what_was_released_before_it_was_given_back_is_done() -> None:
    done: list[int] = []
    hold = Deferred()
    hold.release()
    hold.on_release(lambda: done.append(1))
    hold.release()
    assert done == [1]


def test_a_dead_letter_that_was_refused_is_sent_again(bench: LoopHarness) -> None:
    refusals = iter([PublishError("no"), PublishError("no")])
    bench.letters.refuse = lambda _record: next(refusals, None)
    seen, again = Seen(), Seen()
    bench.put(b"not avro")
    bench.put(event(1))
    bench.start(seen)
    wait_until(lambda: len(bench.letters.records) == 1, 20, "the dead letter")
    bench.stop()
    bench.put(event(2))
    bench.start(again)
    again.until("2")
    assert again.ids == ["2"]
    assert len(bench.letters.records) == 1


def test_while_dead_letters_are_refused_a_partition_waits_at_a_hundred(
    bench: LoopHarness,
) -> None:
    bench.letters.refuse = lambda _record: PublishError("no")
    seen = Seen()
    for _ in range(110):
        bench.put(b"not avro")
    bench.put(event(1))
    bench.put(event(2), partition=1)
    bench.start(seen)
    seen.until("2")
    retried = bench.metrics.retries.labels(bench.topic)
    wait_until(lambda: value_of(retried) > 2, 20, "tried again")
    assert "1" not in seen.ids
    bench.letters.refuse = lambda _record: None
    seen.until("1")
    assert len(bench.letters.records) == 110


def test_a_dead_letter_names_the_record_and_whoever_gave_up() -> None:
    at = datetime(2026, 5, 1, tzinfo=UTC)
    read = ConsumedRecord("t", 3, 7, at, b"k", (), b"x" * 5000, None, "")
    it = build_dead_letter(read, "why \ud800" + "y" * 2000, 5, "my-group")
    assert (it.origin_topic, it.origin_partition, it.origin_offset) == ("t", 3, 7)
    assert (it.attempts, it.producer_name) == (5, "my-group")
    assert (len(it.head), it.size) == (4096, 5000)
    assert it.digest == f"sha256:{hashlib.sha256(b'x' * 5000).hexdigest()}"
    assert len(it.reason) == 1000
    assert CODEC.decode(CODEC.encode(it, "dead")) == it


def test_records_of_older_and_newer_writers_are_read(bench: LoopHarness) -> None:
    avro = json.loads(schema.text("fastnetmon.HostEvent"))
    fields = avro["fields"]
    older = [it for it in fields if it["name"] != "truncated"]
    newer = [*fields, {"name": "mood", "type": "string", "default": ""}]
    texts = {
        7: json.dumps({**avro, "fields": older}),
        8: json.dumps({**avro, "fields": newer}),
    }
    codec, seen = Codec(lookup=texts.__getitem__), Seen()
    for number, text in texts.items():
        out = BytesIO()
        out.write(bytes([0, 0, 0, 0, number]))
        datum = msgspec.to_builtins(event(number), builtin_types=(bytes, datetime))
        fastavro.schemaless_writer(out, schema.parse(text), {**datum, "mood": "glad"})
        bench.put(out.getvalue())
    bench.start(seen, codec=codec)
    seen.until("7", "8")
    assert bench.letters.records == []


def test_the_lag_is_what_was_not_taken(
    bench: LoopHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_METRICS_INTERVAL", 0.05)
    open_ = threading.Event()

    def later(_name: str, _count: int) -> None:
        if not open_.is_set():
            raise RetryLater("not yet", 0.05)

    seen = Seen(later)
    for number in range(10):
        bench.put(event(number))
    lag = bench.metrics.lag.labels(bench.topic, "0")
    held = bench.metrics.uncommitted.labels(bench.topic, "0")
    bench.start(seen)
    wait_until(lambda: value_of(lag) == 9, 20, "nine behind the first")
    bench.put(event(10))
    wait_until(lambda: value_of(lag) == 10, 20, "and one more, though it pauses")
    assert value_of(held) == 1
    open_.set()
    wait_until(lambda: value_of(lag) == value_of(held) == 0, 20, "none")
    assert value_of(bench.metrics.handled.labels(bench.topic)) == 11
    assert value_of(bench.metrics.age.labels(bench.topic)) >= 0
    bench.stop()
    samples = bench.metrics.registry().collect()
    assert not [it for metric in samples for it in metric.samples if "lag" in it.name]


def test_a_loop_that_is_stopped_while_no_broker_answers_ends_soon() -> None:
    hold = Deferred()
    with EmbeddedBroker() as broker:
        bench, seen = (
            LoopHarness(broker.bootstrap, "t"),
            Seen(lambda _name, _count: hold),
        )
        bench.put(event(1))
        loop = bench.start(seen)
        seen.until("1")
    hold.release()
    commits = loop._member._commits
    wait_until(lambda: commits.is_pending, 20, "a commit that nobody answers")
    began = time.monotonic()
    bench.stop()
    assert time.monotonic() - began < 8
    assert bench.failed == []


def test_a_setting_that_librdkafka_refuses_is_named() -> None:
    bench = LoopHarness("127.0.0.1:1", "t")
    bench.settings["colour"] = "blue"
    bench.start(Seen())
    bench.join()
    [error] = bench.failed
    assert isinstance(error, ConfigError)
    assert "colour" in str(error)


def test_an_offset_waits_for_all_before_it() -> None:
    it = OffsetTracker()
    for offset in (5, 6, 8):
        it.start(offset)
    it.finish(6)
    assert it.committable is None
    it.finish(5)
    assert it.committable == 7
    assert it.pending == 1
    it.finish(8)
    assert it.committable == 9


def test_an_offset_is_committed_until_kafka_has_it() -> None:
    it = OffsetTracker()
    it.start(5)
    it.finish(5)
    it.mark_committed(4)
    assert it.committable == 6
    it.mark_committed(6)
    assert it.committable is None


def test_what_is_finished_twice_is_finished_once() -> None:
    it = OffsetTracker()
    it.start(5)
    it.finish(5)
    it.finish(5)
    it.start(6)
    assert (it.committable, it.pending) == (6, 1)
