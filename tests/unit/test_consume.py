"""The loop of consumers, on the embedded broker."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from services.process import wait_until

from fnm_bus.codec import Codec
from fnm_bus.consume import Loop
from fnm_bus.consume_metrics import ConsumeMetrics
from fnm_bus.errors import PublishError, RegistryError
from fnm_bus.event import AnyRecord, DeadLetter, HostEvent, Receipt
from fnm_bus.handling import Handler, Hold, TryLater
from fnm_bus.progress import Progress
from fnm_bus.publish import MemoryPublisher
from fnm_bus.reader import Read

CODEC = Codec()


def event(number: int) -> HostEvent:
    return HostEvent(receipt=Receipt(event_id=str(number)), ip="192.0.2.1")


class Bench:
    """One topic, and loops that read it in threads of their own."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.settings = {"bootstrap.servers": bootstrap, "group.protocol": "consumer"}
        self.topic = topic
        self.letters = MemoryPublisher()
        self.metrics = ConsumeMetrics()
        self._producer = Producer({"bootstrap.servers": bootstrap})
        self._running: list[tuple[Loop, threading.Thread]] = []
        self.failed: list[BaseException] = []

    def put(self, value: AnyRecord | bytes | None, partition: int = 0) -> None:
        data = (
            CODEC.encode(value, self.topic) if isinstance(value, HostEvent) else value
        )
        assert data is None or isinstance(data, bytes)
        self._producer.produce(self.topic, value=data, partition=partition)
        assert self._producer.flush(10) == 0

    def start(self, handler: Handler, **how: Any) -> Loop:
        group = how.pop("group", self.topic)
        codec = how.pop("codec", CODEC)
        loop = Loop(
            self.settings,
            group,
            [self.topic],
            codec,
            handler,
            deadletter_topic="dead",
            publisher=self.letters,
            metrics=self.metrics,
            **how,
        )
        thread = threading.Thread(target=self._run, args=(loop,))
        thread.start()
        self._running.append((loop, thread))
        return loop

    def stop(self) -> None:
        for loop, thread in self._running:
            loop.stop()
            thread.join(20)
            assert not thread.is_alive()
        self._running.clear()

    def _run(self, loop: Loop) -> None:
        try:
            loop.run()
        except BaseException as exc:  # noqa: BLE001 - shown by the test
            self.failed.append(exc)


@pytest.fixture
def bench(embedded_broker: str, topic_names: Callable[[str], str]) -> Iterator[Bench]:
    it = Bench(embedded_broker, topic_names("events"))
    it.put(None)
    yield it
    it.stop()
    assert it.failed == []


class Seen:
    """A handler that notes what it was given."""

    def __init__(self, answer: Callable[[str, int], Hold | None] | None = None) -> None:
        self.ids: list[str] = []
        self._answer = answer

    def __call__(self, read: Read) -> Hold | None:
        assert isinstance(read.event, HostEvent)
        name = read.event.receipt.event_id
        self.ids.append(name)
        return self._answer(name, self.ids.count(name)) if self._answer else None

    def until(self, *ids: str) -> None:
        wait_until(lambda: set(ids) <= set(self.ids), 20, f"{ids} in {self.ids}")


def test_a_handler_gets_each_event_and_what_is_done_is_not_repeated(
    bench: Bench,
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


def test_what_is_held_is_read_again_by_the_next_one(bench: Bench) -> None:
    first, second = Seen(lambda name, _n: Hold() if name == "2" else None), Seen()
    for number in (1, 2, 3):
        bench.put(event(number))
    bench.start(first)
    first.until("1", "2", "3")
    bench.stop()
    bench.start(second)
    second.until("2", "3")
    assert second.ids == ["2", "3"]


def test_what_is_released_is_not_read_again(bench: Bench) -> None:
    holds: list[Hold] = []

    def hold(_name: str, _count: int) -> Hold:
        holds.append(Hold())
        return holds[-1]

    def turn() -> float:
        for it in holds:
            it.release()
        return 0.1

    first, second = Seen(hold), Seen()
    bench.put(event(1))
    bench.start(first, turn=turn)
    first.until("1")
    bench.stop()
    bench.put(event(2))
    bench.start(second)
    second.until("2")
    assert second.ids == ["2"]


def test_later_pauses_its_partition_and_the_others_go_on(bench: Bench) -> None:
    open_ = threading.Event()

    def later(name: str, _count: int) -> None:
        if name == "1" and not open_.is_set():
            raise TryLater("not yet", 0.05)

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
    bench: Bench,
) -> None:
    def fail(name: str, _count: int) -> None:
        if name == "1":
            raise ValueError("no such host")

    seen = Seen(fail)
    bench.put(event(1))
    bench.put(event(2))
    bench.start(seen, attempts=3)
    seen.until("2")
    assert seen.ids == ["1", "1", "1", "2"]
    [record] = bench.letters.records
    letter = CODEC.decode(record.value)
    assert isinstance(letter, DeadLetter)
    assert letter.attempts == 3
    assert "ValueError: no such host" in letter.reason
    assert letter.origin_topic == bench.topic
    assert letter.origin_offset == 1


def test_a_failure_that_passes_is_no_dead_letter(bench: Bench) -> None:
    def fail(_name: str, count: int) -> None:
        if count == 1:
            raise ValueError("once")

    seen = Seen(fail)
    bench.put(event(1))
    bench.put(event(2))
    bench.start(seen, attempts=3)
    seen.until("2")
    assert bench.letters.records == []


def test_what_cannot_be_decoded_becomes_a_dead_letter_at_once(bench: Bench) -> None:
    seen = Seen()
    bench.put(b"not avro")
    bench.put(event(1))
    bench.start(seen)
    seen.until("1")
    [record] = bench.letters.records
    letter = CODEC.decode(record.value)
    assert isinstance(letter, DeadLetter)
    assert letter.head == b"not avro"


def test_without_the_dead_letter_the_record_is_not_done(bench: Bench) -> None:
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


def test_a_registry_that_is_down_makes_nothing_a_dead_letter(bench: Bench) -> None:
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
    wait_until(lambda: _value(retried) > 1, 20, "tried again")
    down.clear()
    seen.until("1")
    assert bench.letters.records == []


def test_tombstones_come_only_to_who_asks(bench: Bench) -> None:
    values: list[bytes | None] = []

    def note(read: Read) -> None:
        values.append(read.value)

    bench.put(event(1))
    bench.start(note, tombstones=True)
    wait_until(lambda: len(values) == 2, 20, "both")
    assert values[0] is None


def test_offsets_wait_while_nothing_can_be_settled(bench: Bench) -> None:
    full = threading.Event()
    full.set()

    def settle() -> None:
        if full.is_set():
            raise TryLater("disk full")

    first, second = Seen(), Seen()
    bench.put(event(1))
    bench.start(first, settle=settle)
    first.until("1")
    bench.stop()
    bench.start(second)
    second.until("1")


def test_an_offset_waits_for_all_before_it() -> None:
    it = Progress()
    for offset in (5, 6, 8):
        it.take(offset)
    it.finish(6)
    assert it.committable() is None
    it.finish(5)
    assert it.committable() == 7
    assert it.committable() is None
    assert it.waiting == 1
    it.finish(8)
    assert it.committable() == 9


def _value(counter: Any) -> float:
    return float(counter._value.get())
