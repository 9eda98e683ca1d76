"""Consumers as processes, on a real Kafka: rebalance, death, a broker that goes."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator

import pytest
from support.bgp_lab import CutKafka
from support.consumer_processes import ConsumerProcesses, policy
from support.loop_harness import CODEC, LoopHarness, RecordingHandler, event
from support.process import wait_until
from support.relay_processes import RelayProcesses

from fnm_bus.consume.handler import Deferred, RetryLater
from fnm_bus.errors import BrokerUnavailable, TopicRefused
from fnm_bus.event import DeadLetter
from fnm_bus.kafka.publisher import SERVICE_PRODUCER, KafkaPublisher
from fnm_bus.kafka.reader import TopicReader
from fnm_bus.kafka.topic_admin import TopicAdmin
from fnm_bus.kafka.topics import TopicSpec

pytestmark = pytest.mark.kafka
PARTITIONS = 4
BOTH = pytest.mark.parametrize("protocol", ["classic", "consumer"])
EACH = tuple(str(number) for number in range(8))

CONSUMER = """
import sys
from pathlib import Path
from consumers.simple import consume

out = Path(sys.argv[1])

def handle(event):
    if event.ip == sys.argv[2]:
        print("stuck", flush=True)
        sys.stdin.read()
    with out.open("a") as file:
        file.write(f"{event.receipt.event_id}\\n")

consume("group", handle)
"""


class Group:
    """Processes of a consumer group that note the ids of their events."""

    def __init__(self, services: ConsumerProcesses) -> None:
        self.services = services
        self.program = services.relays.root / "own.py"
        self.program.write_text(textwrap.dedent(CONSUMER))
        self.out = services.relays.root / "seen"
        self.out.touch()
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, stuck: str = "none") -> subprocess.Popen[bytes]:
        log = self.services.relays.root / f"own{len(self._started)}.log"
        with log.open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, str(self.program), str(self.out), stuck],
                env={**os.environ, "FNM_BUS_CONFIG": str(self.services.relays.config)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
            )
        self._started.append(process)
        return process

    def seen(self) -> list[str]:
        return self.out.read_text().split()

    def until(self, ids: list[str]) -> None:
        self.services.until(
            lambda: set(ids) <= set(self.seen()), 60, "all were handled"
        )

    def stop(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture
def group(kafka_relays: RelayProcesses) -> Iterator[Group]:
    processes = Group(ConsumerProcesses(kafka_relays, policy()))
    yield processes
    processes.stop()
    processes.services.stop()


@pytest.fixture
def bench(kafka: str, topic_names: Callable[[str], str]) -> Iterator[LoopHarness]:
    harness = LoopHarness(kafka, topic_names("events"))
    harness.settings["group.protocol"] = "classic"
    TopicAdmin({"bootstrap.servers": kafka}).create(
        [
            TopicSpec(harness.topic, PARTITIONS, 1, {}),
            TopicSpec(f"{harness.topic}.dead", 1, 1, {}),
        ]
    )
    yield harness
    harness.stop()
    assert harness.failed == []


def put_everywhere(bench: LoopHarness) -> None:
    """Put the events EACH into all partitions in turn."""
    for number in range(8):
        bench.put(event(number), partition=number % PARTITIONS)


def put_until_seen(bench: LoopHarness, seen: RecordingHandler) -> list[str]:
    """Put records into all partitions until *seen* gets some; return their ids."""
    put: list[int] = []

    def found() -> bool:
        for partition in range(PARTITIONS):
            put.append(100 + len(put))
            bench.put(event(put[-1]), partition=partition)
        return bool(seen.ids)

    wait_until(found, 30, "the other one has partitions")
    return [str(number) for number in put]


@BOTH
def test_the_next_owner_of_a_partition_reads_deferred_records_again(
    bench: LoopHarness, protocol: str
) -> None:
    bench.settings["group.protocol"] = protocol
    first = RecordingHandler(lambda _name, _count: Deferred())
    second = RecordingHandler()
    put_everywhere(bench)
    loop = bench.start(first)
    first.until(*EACH)
    bench.start(second)
    wait_until(lambda: len(set(second.ids)) == 4, 30, "two partitions of four")
    loop.stop()
    second.until(*EACH)
    assert sorted(second.ids) == sorted(EACH)


def test_a_member_whose_name_is_taken_reports_and_ends(bench: LoopHarness) -> None:
    bench.settings["group.instance.id"] = "one"
    first, second = RecordingHandler(), RecordingHandler()
    bench.start(first)
    bench.put(event(1))
    first.until("1")
    bench.start(second)
    wait_until(lambda: bench.failed != [], 30, "the first one ends")
    [error] = bench.failed
    assert isinstance(error, BrokerUnavailable)
    assert "fenced" in str(error)
    bench.failed.clear()
    bench.put(event(2))
    second.until("2")


def test_the_next_owner_of_a_partition_repeats_no_handled_record(
    bench: LoopHarness,
) -> None:
    first, second = RecordingHandler(), RecordingHandler()
    put_everywhere(bench)
    loop = bench.start(first)
    first.until(*EACH)
    bench.start(second)
    more = put_until_seen(bench, second)
    loop.stop()
    everything = [*EACH, *more]
    wait_until(lambda: {*first.ids, *second.ids} == {*everything}, 30, "all")
    assert sorted(first.ids + second.ids) == sorted(everything)


def test_a_delayed_partition_is_read_after_two_rebalances(bench: LoopHarness) -> None:
    ready = threading.Event()

    def later(name: str, _count: int) -> None:
        if name == "0" and not ready.is_set():
            raise RetryLater("not yet", 0.1)

    first, second = RecordingHandler(later), RecordingHandler(later)
    put_everywhere(bench)
    bench.start(first)
    first.until("0", "1", "2", "3", "5", "6", "7")
    loop = bench.start(second)
    put_until_seen(bench, second)
    loop.stop()
    ready.set()
    first.until("4")
    assert bench.letters.records == []


def test_a_dead_letter_has_the_place_of_its_record(
    bench: LoopHarness, kafka: str
) -> None:
    dead = f"{bench.topic}.dead"
    publisher = KafkaPublisher({"bootstrap.servers": kafka}, SERVICE_PRODUCER)
    seen, again = RecordingHandler(), RecordingHandler()
    bench.put(event(1), b"neither Avro nor JSON", event(2), partition=2)
    bench.start(seen, publisher=publisher, deadletter_topic=dead)
    seen.until("1", "2")
    with TopicReader(
        {"bootstrap.servers": kafka}, [dead], CODEC, from_beginning=True
    ) as reader:
        [record] = next(filter(None, (list(reader.read(1)) for _ in range(30))))
    bench.stop()
    publisher.close()
    letter = record.event
    assert isinstance(letter, DeadLetter)
    assert letter.head == b"neither Avro nor JSON"
    assert letter.origin_topic == bench.topic
    assert (letter.origin_partition, letter.origin_offset) == (2, 1)
    assert (letter.attempts, letter.producer_name) == (1, bench.topic)
    assert "c3 01" in letter.reason
    bench.put(event(3), partition=2)
    bench.start(again)
    again.until("3")
    assert again.ids == ["3"]


@BOTH
def test_a_missing_topic_is_named(bench: LoopHarness, protocol: str) -> None:
    bench.settings["group.protocol"] = protocol
    bench.topic = "no-such-topic"
    bench.start(RecordingHandler())
    bench.join()
    [error] = bench.failed
    assert isinstance(error, TopicRefused)
    assert "no-such-topic" in str(error)
    assert "`fnm-bus topics create` creates it" in str(error)
    bench.failed.clear()


def test_sigterm_commits_handled_records_and_exits_0(group: Group) -> None:
    first = group.start()
    ids = group.services.tell("ban", *(f"203.0.113.{number}" for number in range(20)))
    group.until(ids)
    first.send_signal(signal.SIGTERM)
    assert first.wait(20) == 0
    group.start()
    more = group.services.tell("ban", "203.0.113.1")
    group.until(more)
    assert sorted(group.seen()) == sorted(ids + more)


def test_after_a_kill_every_record_is_handled(group: Group) -> None:
    first = group.start(stuck="203.0.113.3")
    ids = group.services.tell("ban", *(f"203.0.113.{number}" for number in range(6)))
    assert first.stdout is not None
    assert first.stdout.readline() == b"stuck\n"
    first.kill()
    group.start()
    group.until(ids)


def test_no_record_is_lost_when_a_member_leaves(group: Group) -> None:
    first, _second = group.start(), group.start()
    ids = group.services.tell("ban", *(f"203.0.113.{number}" for number in range(50)))
    group.until(ids)
    first.send_signal(signal.SIGTERM)
    more = group.services.tell("ban", *(f"198.51.100.{number}" for number in range(50)))
    group.until(more)
    assert first.wait(30) == 0


def test_a_consumer_continues_after_a_restart_of_the_broker(
    relays_behind_proxies: RelayProcesses, cut_kafka: CutKafka
) -> None:
    services = ConsumerProcesses(relays_behind_proxies, policy())
    processes = Group(services)
    try:
        processes.start()
        processes.until(services.tell("ban", "203.0.113.1"))
        cut_kafka.fail("killed")()
        processes.until(services.tell("ban", "203.0.113.2"))
    finally:
        processes.stop()
        services.stop()
