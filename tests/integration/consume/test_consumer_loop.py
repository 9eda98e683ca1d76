"""The loop of consumers, on the embedded broker."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from io import BytesIO

import fastavro
import msgspec
import pytest
from support.loop_harness import LoopHarness, RecordingHandler, event, value_of
from support.process import wait_until

from fnm_bus.avro import schema
from fnm_bus.avro.codec import Codec
from fnm_bus.consume import loop
from fnm_bus.consume.handler import AbortConsumer, Deferred, RetryLater
from fnm_bus.errors import (
    BrokerUnavailable,
    ConfigError,
    PublishError,
    RegistryError,
)
from fnm_bus.event import AnyRecord
from fnm_bus.kafka.addressing import derived_id
from fnm_bus.kafka.embedded_broker import EmbeddedBroker
from fnm_bus.kafka.reader import ConsumedRecord


@pytest.fixture
def harness(
    embedded_broker: str, topic_names: Callable[[str], str]
) -> Iterator[LoopHarness]:
    harness = LoopHarness(embedded_broker, topic_names("events"))
    harness.put(None)
    yield harness
    harness.stop()
    assert harness.failed == []


def test_a_handler_gets_each_event_once(harness: LoopHarness) -> None:
    first, second = RecordingHandler(), RecordingHandler()
    harness.put(*map(event, (1, 2)))
    harness.start(first)
    first.until("1", "2")
    harness.stop()
    harness.put(event(3))
    harness.start(second)
    second.until("3")
    assert first.ids == ["1", "2"]
    assert second.ids == ["3"]


def test_a_deferred_record_is_read_again_by_the_next_consumer(
    harness: LoopHarness,
) -> None:
    first = RecordingHandler(lambda name, _n: Deferred() if name == "2" else None)
    second = RecordingHandler()
    harness.put(*map(event, (1, 2, 3)))
    harness.start(first)
    first.until("1", "2", "3")
    harness.stop()
    harness.start(second)
    second.until("2", "3")
    assert second.ids == ["2", "3"]


def test_a_released_record_is_not_read_again(harness: LoopHarness) -> None:
    deferreds: list[Deferred] = []

    def deferred(_name: str, _count: int) -> Deferred:
        deferreds.append(Deferred())
        return deferreds[-1]

    def settle() -> None:
        for deferred in deferreds:
            deferred.release()

    first, second = RecordingHandler(deferred), RecordingHandler()
    harness.put(event(1))
    harness.start(first, before_commit=settle)
    first.until("1")
    harness.stop()
    harness.put(event(2))
    harness.start(second)
    second.until("2")
    assert second.ids == ["2"]


def test_retry_later_pauses_a_single_partition(harness: LoopHarness) -> None:
    open_ = threading.Event()

    def later(name: str, _count: int) -> None:
        if name == "1" and not open_.is_set():
            raise RetryLater("not yet", 0.05)

    seen = RecordingHandler(later)
    harness.put(event(1), event(2))
    harness.put(event(3), partition=1)
    harness.start(seen)
    seen.until("3")
    wait_until(lambda: seen.ids.count("1") > 2, 20, "tried again")
    assert "2" not in seen.ids
    open_.set()
    seen.until("2")
    assert harness.letters.records == []


def test_a_record_that_keeps_failing_becomes_a_dead_letter(
    harness: LoopHarness,
) -> None:
    def fail(name: str, _count: int) -> None:
        if name == "1":
            raise ValueError("no such host")

    seen = RecordingHandler(fail)
    harness.put(*map(event, (1, 2)))
    harness.start(seen, max_attempts=3)
    seen.until("2")
    assert seen.ids == ["1", "1", "1", "2"]
    letter = harness.letter()
    assert letter.attempts == 3
    assert "ValueError: no such host" in letter.reason
    assert letter.origin_topic == harness.topic
    assert letter.origin_offset == 1
    headers = dict(harness.letters.records[0].headers)
    place = (letter.origin_topic, letter.origin_partition or 0, letter.origin_offset)
    assert headers["ce_id"] == derived_id("deadletter", *place).encode()
    assert headers["ce_type"] == b"fastnetmon.deadletter"


def test_a_temporary_failure_causes_no_dead_letter(harness: LoopHarness) -> None:
    def fail(_name: str, count: int) -> None:
        if count == 1:
            raise ValueError("once")

    seen = RecordingHandler(fail)
    harness.put(*map(event, (1, 2)))
    harness.start(seen, max_attempts=3)
    seen.until("2")
    assert harness.letters.records == []


def test_an_undecodable_record_becomes_a_dead_letter_at_once(
    harness: LoopHarness,
) -> None:
    seen = RecordingHandler()
    harness.put(b"not avro", event(1))
    harness.start(seen)
    seen.until("1")
    letter = harness.letter()
    assert letter.head == b"not avro"


@pytest.mark.parametrize("ip", ["garbage", "", "192.0.2.1/32", "192.0.2.01"])
def test_an_invalid_event_becomes_a_dead_letter(harness: LoopHarness, ip: str) -> None:
    seen = RecordingHandler()
    harness.put(msgspec.structs.replace(event(1), ip=ip))
    harness.put(event(2))
    harness.start(seen)
    seen.until("2")
    assert seen.ids == ["2"]
    letter = harness.letter()
    assert letter.reason.startswith("HostEvent: /ip: wanted ")


@pytest.mark.parametrize("timestamp", [2**62, 2**63 - 1])
def test_a_record_with_an_extreme_timestamp_is_read(
    harness: LoopHarness, timestamp: int
) -> None:
    seen = RecordingHandler()
    harness.put(event(1), timestamp=timestamp)
    harness.put(event(2))
    harness.start(seen)
    seen.until("1", "2")


def test_a_record_with_an_unpublished_dead_letter_is_not_committed(
    harness: LoopHarness,
) -> None:
    seen, again = RecordingHandler(), RecordingHandler()
    harness.letters.refuse = lambda _record: PublishError("refused")
    harness.put(b"not avro", event(1))
    harness.start(seen)
    seen.until("1")
    harness.stop()
    harness.letters.refuse = lambda _record: None
    harness.start(again)
    again.until("1")
    assert len(harness.letters.records) == 1


def test_an_unreachable_registry_causes_no_dead_letter(harness: LoopHarness) -> None:
    down = threading.Event()
    down.set()

    class Broken(Codec):
        def decode(self, value: bytes | None) -> AnyRecord:
            if down.is_set():
                raise RegistryError("down")
            return super().decode(value)

    seen = RecordingHandler()
    harness.put(event(1))
    harness.start(seen, codec=Broken())
    retried = harness.metrics.retries.labels(harness.topic)
    wait_until(lambda: value_of(retried) > 1, 20, "tried again")
    down.clear()
    seen.until("1")
    assert harness.letters.records == []


def test_tombstones_are_delivered_only_on_request(harness: LoopHarness) -> None:
    values: list[bytes | None] = []

    def note(read: ConsumedRecord) -> None:
        values.append(read.value)

    harness.put(event(1))
    harness.start(note, tombstones=True)
    wait_until(lambda: len(values) == 2, 20, "both")
    assert values[0] is None


def test_no_commit_while_before_commit_raises_retry_later(harness: LoopHarness) -> None:
    full = threading.Event()
    full.set()

    def settle() -> None:
        if full.is_set():
            raise RetryLater("disk full")

    first, second = RecordingHandler(), RecordingHandler()
    harness.put(event(1))
    harness.start(first, before_commit=settle)
    first.until("1")
    harness.stop()
    harness.start(second)
    second.until("1")


def test_records_after_a_delayed_record_keep_their_order(harness: LoopHarness) -> None:
    def later(_name: str, count: int) -> None:
        if count < 3:
            raise RetryLater("not yet", 0.0)

    seen = RecordingHandler(later)
    harness.put(*map(event, range(8)))
    harness.start(seen)
    wait_until(lambda: seen.ids.count("7") == 3, 20, "the last one, three times")
    harness.stop()
    assert seen.ids == [str(number) for number in range(8) for _ in range(3)]


def test_a_retryable_error_causes_no_dead_letter(harness: LoopHarness) -> None:
    def away(_name: str, count: int) -> None:
        if count < 4:
            raise BrokerUnavailable("nobody answers")

    seen = RecordingHandler(away)
    harness.put(*map(event, (1, 2)))
    harness.start(seen, max_attempts=2)
    seen.until("2")
    assert harness.letters.records == []
    assert value_of(harness.metrics.errors.labels(harness.topic)) == 0


def test_a_delay_is_logged_once_for_each_reason(
    harness: LoopHarness, caplog: pytest.LogCaptureFixture
) -> None:
    def later(_name: str, count: int) -> None:
        if count < 4:
            raise RetryLater("the world is not ready", 0.0)
        if count < 6:
            raise RetryLater("nor is the moon", 0.0)

    seen = RecordingHandler(later)
    harness.put(*map(event, (1, 2)))
    harness.start(seen)
    seen.until("2")
    lines = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    retried = [line for line in lines if line["event"] == "record_retried"]
    assert [line["reason"] for line in retried if line["record"].endswith("@1")] == [
        "the world is not ready",
        "nor is the moon",
    ]


def test_abort_ends_the_loop_without_a_further_commit(harness: LoopHarness) -> None:
    def give_up() -> None:
        raise AbortConsumer("the reader is gone")

    first, second = RecordingHandler(), RecordingHandler()
    harness.put(event(1))
    harness.start(first, before_commit=give_up)
    first.until("1")
    harness.join()
    [error] = harness.failed
    assert isinstance(error, AbortConsumer)
    harness.failed.clear()
    harness.start(second)
    second.until("1")


def test_a_handler_can_end_the_loop(harness: LoopHarness) -> None:
    def handler(_read: ConsumedRecord) -> None:
        raise AbortConsumer("enough")

    harness.put(event(1))
    harness.start(handler)
    harness.join()
    assert [str(error) for error in harness.failed] == ["enough"]
    harness.failed.clear()


def test_a_deferred_can_cover_several_records(harness: LoopHarness) -> None:
    deferred = Deferred()
    first, second = RecordingHandler(lambda _name, _count: deferred), RecordingHandler()
    harness.put(*map(event, (1, 2, 3)))
    released = threading.Event()

    def turn() -> float:
        if len(first.ids) == 3:
            deferred.release()
            released.set()
        return 0.1

    harness.start(first, between_records=turn)
    assert released.wait(20)
    harness.stop()
    harness.put(event(4))
    harness.start(second)
    second.until("4")
    assert second.ids == ["4"]


def test_a_refused_dead_letter_is_published_again(harness: LoopHarness) -> None:
    refusals = iter([PublishError("no"), PublishError("no")])
    harness.letters.refuse = lambda _record: next(refusals, None)
    seen, again = RecordingHandler(), RecordingHandler()
    harness.put(b"not avro", event(1))
    harness.start(seen)
    wait_until(lambda: len(harness.letters.records) == 1, 20, "the dead letter")
    harness.stop()
    harness.put(event(2))
    harness.start(again)
    again.until("2")
    assert again.ids == ["2"]
    assert len(harness.letters.records) == 1


def test_a_partition_waits_at_a_hundred_unpublished_dead_letters(
    harness: LoopHarness,
) -> None:
    harness.letters.refuse = lambda _record: PublishError("no")
    seen = RecordingHandler()
    harness.put(*[b"not avro"] * 110, event(1))
    harness.put(event(2), partition=1)
    harness.start(seen)
    seen.until("2")
    retried = harness.metrics.retries.labels(harness.topic)
    wait_until(lambda: value_of(retried) > 2, 60, "tried again")
    assert "1" not in seen.ids
    harness.letters.refuse = lambda _record: None
    seen.until("1")
    assert len(harness.letters.records) == 110


def test_records_with_older_and_newer_schemas_are_read(harness: LoopHarness) -> None:
    avro = json.loads(schema.text("fastnetmon.HostEvent"))
    fields = avro["fields"]
    older = [field for field in fields if field["name"] != "truncated"]
    newer = [*fields, {"name": "mood", "type": "string", "default": ""}]
    texts = {
        7: json.dumps({**avro, "fields": older}),
        8: json.dumps({**avro, "fields": newer}),
    }
    codec, seen = Codec(lookup=texts.__getitem__), RecordingHandler()
    for number, text in texts.items():
        out = BytesIO()
        out.write(bytes([0, 0, 0, 0, number]))
        datum = msgspec.to_builtins(event(number), builtin_types=(bytes, datetime))
        fastavro.schemaless_writer(out, schema.parse(text), {**datum, "mood": "glad"})
        harness.put(out.getvalue())
    harness.start(seen, codec=codec)
    seen.until("7", "8")
    assert harness.letters.records == []


def test_the_lag_counts_unread_records(
    harness: LoopHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_METRICS_INTERVAL", 0.05)
    open_ = threading.Event()

    def later(_name: str, _count: int) -> None:
        if not open_.is_set():
            raise RetryLater("not yet", 0.05)

    seen = RecordingHandler(later)
    harness.put(*map(event, range(10)))
    lag = harness.metrics.lag.labels(harness.topic, "0")
    held = harness.metrics.uncommitted.labels(harness.topic, "0")
    harness.start(seen)
    wait_until(lambda: value_of(lag) == 9, 20, "nine unread records")
    harness.put(event(10))
    wait_until(lambda: value_of(lag) == 10, 20, "one more, in a paused partition")
    assert value_of(held) == 1
    open_.set()
    wait_until(lambda: value_of(lag) == value_of(held) == 0, 20, "none")
    assert value_of(harness.metrics.handled.labels(harness.topic)) == 11
    assert value_of(harness.metrics.age.labels(harness.topic)) >= 0
    harness.stop()
    samples = harness.metrics.registry().collect()
    names = [sample.name for metric in samples for sample in metric.samples]
    assert not any("lag" in name for name in names)


def test_a_loop_without_a_broker_stops_soon() -> None:
    deferred = Deferred()
    with EmbeddedBroker() as broker:
        harness = LoopHarness(broker.bootstrap, "t")
        seen = RecordingHandler(lambda _name, _count: deferred)
        harness.put(event(1))
        loop = harness.start(seen)
        seen.until("1")
    deferred.release()
    commits = loop._member._commits
    wait_until(lambda: commits.is_pending, 20, "a commit that nobody answers")
    began = time.monotonic()
    harness.stop()
    assert time.monotonic() - began < 8
    assert harness.failed == []


def test_a_setting_that_librdkafka_refuses_is_named() -> None:
    harness = LoopHarness("127.0.0.1:1", "t")
    harness.settings["colour"] = "blue"
    harness.start(RecordingHandler())
    harness.join()
    [error] = harness.failed
    assert isinstance(error, ConfigError)
    assert "colour" in str(error)
