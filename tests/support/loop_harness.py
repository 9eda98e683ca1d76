"""Consumer loops in threads, and handlers that record their events."""

import threading
from collections.abc import Callable
from typing import Any

from confluent_kafka import Producer

from fnm_bus.avro.codec import Codec
from fnm_bus.consume.handler import Deferred, Handler
from fnm_bus.consume.loop import ConsumerLoop
from fnm_bus.consume.metrics import ConsumeMetrics
from fnm_bus.event import DeadLetter, HostEvent, Receipt
from fnm_bus.kafka.reader import ConsumedRecord
from support.memory_publisher import MemoryPublisher
from support.process import wait_until

CODEC = Codec()


def event(number: int) -> HostEvent:
    """Return an event whose id is *number*."""
    receipt = Receipt(event_id=str(number))
    return HostEvent(receipt=receipt, action="ban", ip="192.0.2.1")


_LONG = 60.0
"""Seconds; other tests may run beside this one."""


class LoopHarness:
    """One topic, and loops in threads that read the topic.

    Args:
        bootstrap: the broker.
        topic: name of the topic, and of the group unless `start` names another.

    Attributes:
        settings: librdkafka's settings of the loops.
        letters: gets the dead letters, unless `start` names another publisher.
        metrics: figures of all loops.
        failed: exceptions of the loops; a test that expects one clears the list.
    """

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.settings = {"bootstrap.servers": bootstrap, "group.protocol": "consumer"}
        self.topic = topic
        self.letters = MemoryPublisher()
        self.metrics = ConsumeMetrics()
        self._producer = Producer({"bootstrap.servers": bootstrap})
        self._running: list[tuple[ConsumerLoop, threading.Thread]] = []
        self.failed: list[BaseException] = []

    def put(
        self, *values: HostEvent | bytes | None, partition: int = 0, timestamp: int = 0
    ) -> None:
        """Publish records; bytes and None as they are."""
        for value in values:
            self._producer.produce(
                self.topic,
                CODEC.encode(value, self.topic)
                if isinstance(value, HostEvent)
                else value,
                partition=partition,
                timestamp=timestamp,
            )
        assert self._producer.flush(10) == 0

    def letter(self) -> DeadLetter:
        """Return the only dead letter."""
        [record] = self.letters.records
        letter = CODEC.decode(record.value)
        assert isinstance(letter, DeadLetter)
        return letter

    def start(self, handler: Handler, **options: Any) -> ConsumerLoop:
        """Start a loop with further arguments *options*."""
        loop = ConsumerLoop(
            self.settings,
            options.pop("group", self.topic),
            [self.topic],
            options.pop("codec", CODEC),
            handler,
            **{
                "deadletter_topic": "dead",
                "publisher": self.letters,
                "metrics": self.metrics,
                **options,
            },
        )
        thread = threading.Thread(target=self._run, args=(loop,))
        thread.start()
        self._running.append((loop, thread))
        return loop

    def stop(self) -> None:
        """Stop all loops."""
        for loop, _thread in self._running:
            loop.stop()
        self.join()

    def join(self) -> None:
        """Wait until all loops have ended by themselves."""
        for _loop, thread in self._running:
            thread.join(_LONG)
            assert not thread.is_alive()
        self._running.clear()

    def _run(self, loop: ConsumerLoop) -> None:
        try:
            loop.run()
        except BaseException as exc:  # noqa: BLE001 - shown by the test
            self.failed.append(exc)


class RecordingHandler:
    """A handler that records its events.

    Args:
        answer: its result, from an event's id and the number of its calls.

    Attributes:
        ids: of the events, in order.
    """

    def __init__(
        self, answer: Callable[[str, int], Deferred | None] | None = None
    ) -> None:
        self.ids: list[str] = []
        self._answer = answer

    def __call__(self, read: ConsumedRecord) -> Deferred | None:
        assert isinstance(read.event, HostEvent)
        name = read.event.receipt.event_id
        self.ids.append(name)
        return self._answer(name, self.ids.count(name)) if self._answer else None

    def until(self, *ids: str) -> None:
        """Wait until these were seen."""
        wait_until(lambda: set(ids) <= set(self.ids), _LONG, f"{ids} in {self.ids}")


def value_of(counter: Any) -> float:
    """Return a figure's value."""
    return float(counter._value.get())
