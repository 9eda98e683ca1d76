"""A real FastNetMon bans a thousand hosts at once: two thousand calls of the hook."""

import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from confluent_kafka import Consumer, TopicPartition
from environment import Environment, peak_memory
from report import Row

from fnm_bus.kafka.addressing import Topics

_FIRST = "10.8.0.1"
_WITHIN = 180.0
_CALM = 3.0
"""Seconds without a call after which FastNetMon has made all of them."""
_MEMORY = 100
"""MB that a relay may have, regardless of the waiting entries."""
_CALLED = re.compile(r"^(\S+ \S+) \[INFO\] Call script for", re.MULTILINE)
_ENDED = re.compile(r"^(\S+ \S+) \[INFO\] Subprocess exit code: (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Storm:
    """The facts of a storm in FastNetMon's own log.

    Attributes:
        calls: how many it started.
        accepted: how many ended with status 0.
        seconds: from the first start to the last end.
        ended_at: Unix time of the last end.
        late: seconds from there until all was on Kafka.
        memory: the most that the relay had meanwhile, in MB.
    """

    calls: int
    accepted: int
    seconds: float
    ended_at: float
    late: float = 0.0
    memory: float = 0.0


def measure(environment: Environment, bootstrap: str, *, quick: bool) -> list[Row]:
    """Measure storms with each hook and with other notify scripts."""
    from support.fetch import Unavailable  # noqa: PLC0415 - found through sys.path

    hosts = 50 if quick else 1_000
    try:
        return list(_measured(environment, bootstrap, hosts))
    except Unavailable as exc:
        print(f"left out: {exc}")
        return []


def _measured(environment: Environment, bootstrap: str, hosts: int) -> Iterator[Row]:
    subject = f"FastNetMon bans {hosts:,} hosts at once"

    def up(hook: Path) -> Storm:
        with environment.relay() as relay, _counting(bootstrap, 2 * hosts) as arrived:
            storm = _storm(hook, hosts)
            late = max(arrived() - storm.ended_at, 0)
            return replace(storm, late=late, memory=peak_memory(relay.pid))

    def down(hook: Path, broken: Callable[[], AbstractContextManager[int]]) -> Storm:
        with broken() as port, environment.relay(f"127.0.0.1:{port}") as relay:
            storm = _storm(hook, hosts)
            storm = replace(storm, memory=peak_memory(relay.pid))
        with _counting(bootstrap, storm.calls) as arrived, environment.relay():
            arrived()
        return storm

    base = _best(lambda: _storm(environment.script("move.sh"), hosts))
    name = "sh: cat > tmp && mv (no fsync, nothing published)"
    yield Row(subject, name, _figure(base), "1.00")
    contenders = (
        ("native hook", environment.native, 1.0, 0.5),
        ("Python hook", environment.hook, 3.0, 2.0),
    )
    for kind, hook, goal, latest in contenders:
        storm = _best(lambda h=hook: up(h))  # type: ignore[misc]
        ratio = storm.seconds / base.seconds
        yield Row(
            subject,
            f"{kind}, relay running",
            f"{_figure(storm)}; all on Kafka {storm.late:.1f} s after the last call",
            f"{ratio:.2f} x cat and mv",
            f"<= {goal} x; <= {latest} s; none lost",
            ratio <= goal and storm.late <= latest and storm.accepted == storm.calls,
        )
        for state, broken in (("refuses", _closed), ("is silent", _silent)):
            worse = _best(lambda h=hook, b=broken: down(h, b))  # type: ignore[misc]
            yield Row(
                subject,
                f"{kind}, the broker {state}",
                f"{_figure(worse)}; the relay had {worse.memory:.0f} MB;"
                " all on Kafka once it is reachable",
                f"{worse.seconds / base.seconds:.2f} x cat and mv",
                f"<= {goal} x; <= {_MEMORY} MB; none lost",
                worse.seconds / base.seconds <= goal
                and worse.memory <= _MEMORY
                and worse.accepted == worse.calls,
            )


def _best(once: Callable[[], Storm]) -> Storm:
    """Return the quicker one of two storms: other work on the machine slows one.

    But one that has lost something, if there is one.
    """
    both = [once(), once()]
    return min(both, key=lambda storm: (storm.accepted - storm.calls, storm.seconds))


def _storm(hook: Path, hosts: int) -> Storm:
    from support.detector import Detector  # noqa: PLC0415 - found through sys.path

    with tempfile.TemporaryDirectory(prefix="fnm-bus-storm-") as name:
        detector = Detector(Path(name), hook, ban_time=1_900)
        detector.start()
        try:
            flood = threading.Thread(
                target=detector.flood, args=([_FIRST], hosts, 10.0)
            )
            flood.start()
            flood.join()
            return _over(detector.log, 2 * hosts)
        finally:
            detector.stop()


def _over(log: Callable[[], str], calls: int) -> Storm:
    """Wait until all calls have ended; return the facts in the log."""
    end, seen, calm = time.monotonic() + _WITHIN, 0, time.monotonic()
    while True:
        text = log()
        ended = _ENDED.findall(text)
        if len(ended) != seen:
            seen, calm = len(ended), time.monotonic()
        started = _CALLED.findall(text)
        quiet = time.monotonic() - calm > _CALM
        if len(ended) == len(started) and (len(ended) >= calls or quiet):
            break
        if time.monotonic() > end:
            break
        time.sleep(0.2)
    first, last = _moment(started[0]), max(_moment(at) for at, _ in ended)
    good = sum(status == "0" for _, status in ended)
    return Storm(len(started), good, last - first, last)


def _moment(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()


def _figure(storm: Storm) -> str:
    return (
        f"{storm.accepted:,} of {storm.calls:,} calls accepted in {storm.seconds:.1f} s"
    )


@contextmanager
def _counting(bootstrap: str, count: int) -> Iterator[Callable[[], float]]:
    """Give a function that waits for *count* new events; it returns when they came."""
    topic = Topics().host
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": uuid4().hex})
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    places = [TopicPartition(topic, number) for number in partitions]
    for place in places:
        place.offset = consumer.get_watermark_offsets(place, timeout=10)[1]
    consumer.assign(places)

    done, last = threading.Event(), [0.0]

    def read() -> None:
        received = 0
        while received < count and not done.is_set():
            got = [
                record
                for record in consumer.consume(500, 0.05)
                if record.error() is None
            ]
            received += len(got)
            if got:
                last[0] = time.time()
        done.set()

    def arrived() -> float:
        if not done.wait(_WITHIN):
            raise RuntimeError(f"not all of {count} events came")
        return last[0]

    reading = threading.Thread(target=read)
    reading.start()
    try:
        yield arrived
    finally:
        done.set()
        reading.join()
        consumer.close()


@contextmanager
def _closed() -> Iterator[int]:
    """A port at which connections are refused."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield int(probe.getsockname()[1])


@contextmanager
def _silent() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    # The kernel accepts for a listener that never does.
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield int(listening.getsockname()[1])
