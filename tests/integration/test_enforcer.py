"""An enforcer on a real Kafka, with a system of memory."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from support.process import wait_until
from support.relay_processes import RelayProcesses

from consumers.enforcers.backend import MemoryBackend
from consumers.enforcers.build import build_enforcer
from consumers.enforcers.enforcer import Enforcer
from consumers.metrics import EnforcerMetrics
from consumers.settings import FullSettings
from fnm_bus.avro.codec import Codec
from fnm_bus.config import load
from fnm_bus.event import Audit, Command, Mitigation
from fnm_bus.kafka.reader import TopicReader

ONE, TWO = "blackhole|203.0.113.1/32", "blackhole|203.0.113.2/32"


class Site:
    """Topics to write to, and enforcers in threads.

    Attributes:
        backend: the system of all of them, one after the other.
    """

    def __init__(self, relays: RelayProcesses) -> None:
        relays.configure("[consumers.enforcer]", 'own_networks = ["203.0.113.0/24"]')
        self.relays = relays
        self.backend = MemoryBackend("exabgp")
        self.metrics = EnforcerMetrics()
        self._codec = Codec()
        self._producer = Producer({"bootstrap.servers": relays.bootstrap})
        self._running: list[tuple[Enforcer, threading.Thread]] = []

    def start(self) -> Enforcer:
        settings = load.load_as(FullSettings, self.relays.config).settings
        settings = settings.model_copy(update={"dry_run": False})
        path = self.relays.root / "snapshot.json"
        of = settings.consumers.exabgp.model_copy(
            update={"snapshot": path, "reconcile_interval": 0.2}
        )
        made = build_enforcer(settings, of, self.backend, self.metrics)
        thread = threading.Thread(target=made.run)
        thread.start()
        self._running.append((made, thread))
        wait_until(lambda: made.state.synced, 30, "the end of the topic")
        reader = made.command_reader
        wait_until(lambda: bool(reader._positions), 30, "the end of the commands")
        return made

    def stop(self) -> None:
        for made, thread in self._running:
            made.stop()
            thread.join(30)
            assert not thread.is_alive()
        self._running.clear()

    def put(self, kind: str, key: str | None, value: Any) -> int:
        """Publish a record; return its offset."""
        offsets: list[int] = []
        topic = self.relays.topic(kind)
        encoded = value if value is None or isinstance(value, bytes) else None
        self._producer.produce(
            topic,
            encoded if encoded is not None else self._codec.encode(value, topic),
            key=key,
            on_delivery=lambda _error, message: offsets.append(message.offset()),
        )
        assert self._producer.flush(30) == 0
        return offsets[0]

    def want(self, key: str, lease: float = 60.0, **how: Any) -> None:
        kind, _, prefix = key.partition("|")
        record = {"key": key, "kind": kind, "prefix": prefix, "state": "wanted"}
        event = Mitigation(**{**record, "lease_ms": round(lease * 1000), **how})
        self.put("mitigation", key, event)

    def command(self, verb: str) -> int:
        return self.put("command", None, Command(verb=verb, by="alice", why="a test"))

    def resumed(self, offset: int) -> None:
        event = Mitigation(
            key="pause", kind="pause", state="ended", command_offset=offset
        )
        self.put("mitigation", "pause", event)

    def wait_in_force(self, *keys: str) -> None:
        wait_until(lambda: sorted(self.backend.measures) == sorted(keys), 30, f"{keys}")


@pytest.fixture
def site(kafka_relays: RelayProcesses) -> Iterator[Site]:
    made = Site(kafka_relays)
    yield made
    made.stop()


def test_a_pause_withdraws_everything_without_a_mitigator(site: Site) -> None:
    site.command("pause")  # from before the start: nobody obeys it
    site.start()
    site.want(ONE)
    site.want(TWO)
    site.wait_in_force(ONE, TWO)
    site.put("command", None, b"no command")
    paused = site.command("pause")
    site.wait_in_force()
    site.stop()
    site.start()  # a restart does not resume, and the renewal does not either
    site.want(ONE)
    site.resumed(paused - 1)
    prefix = TWO.partition("|")[2]
    site.want(f"{TWO}|nftables", prefix=prefix, place="nftables")
    site.want(TWO, state="ended")
    resumed = site.command("resume")
    site.put("mitigation", "pause", b"broken")  # behind the record above
    broken = site.metrics.broken.labels("exabgp")
    wait_until(lambda: broken._value.get() == 1, 30, "the broken record")
    assert not site.backend.measures
    site.resumed(resumed)
    site.wait_in_force(ONE)
    broken = site.metrics.broken_commands.labels("exabgp")
    assert broken._value.get() == 1


def test_leases_run_on_the_brokers_time(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This machine's clock is 3 days ahead; nobody else's is.
    real = __import__("time").time
    monkeypatch.setattr("time.time", lambda: real() + 3 * 86_400)
    enforcer = site.start()
    wait_until(lambda: enforcer.broker_clock.known, 30, "the broker's time")
    skew = enforcer.broker_clock.skew()
    assert skew is not None
    assert abs(skew - 3 * 86_400) < 5
    site.want(ONE, lease=60)
    site.want(TWO, lease=3)
    site.wait_in_force(ONE, TWO)
    site.wait_in_force(ONE)
    site.stop()
    site.backend.measures.clear()
    (site.relays.root / "snapshot.json").unlink()
    site.start()  # only the topic is left, and TWO is over
    site.wait_in_force(ONE)


def test_a_lost_connection_skips_no_command(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    enforcer = site.start()
    site.want(ONE)
    site.wait_in_force(ONE)
    reader = enforcer.command_reader
    failed, go_on = threading.Event(), threading.Event()
    open_reader: Callable[[], TopicReader] = reader._open

    def opened() -> TopicReader:
        assert go_on.wait(30)
        return open_reader()

    def broken(_self: TopicReader, _seconds: float) -> Any:
        failed.set()
        raise RuntimeError("a bug")

    monkeypatch.setattr(reader, "_open", opened)
    with monkeypatch.context() as patched:
        patched.setattr(TopicReader, "read", broken)
        assert failed.wait(30)
        wait_until(lambda: not enforcer.healthy(), 30, "its health")
    site.command("pause")  # while nobody reads
    go_on.set()
    site.wait_in_force()
    wait_until(enforcer.healthy, 30, "its health")


def test_what_was_done_is_on_the_audit_topic(site: Site) -> None:
    site.start()
    site.want(ONE)
    site.want("blackhole|198.51.100.1/32")
    site.wait_in_force(ONE)
    site.stop()
    settings = {"bootstrap.servers": site.relays.bootstrap}
    topics = [site.relays.topic("audit")]
    audits: list[Audit] = []
    with TopicReader(settings, topics, Codec(), from_beginning=True) as reader:
        while not reader.at_end:
            events = [it.event for it in reader.read(1.0)]
            audits += [it for it in events if isinstance(it, Audit)]
    told = {(it.what, it.code, it.key) for it in audits}
    assert ("in-force", "", ONE) in told
    assert ("failed", "own_networks", "blackhole|198.51.100.1/32") in told
