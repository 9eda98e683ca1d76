"""An enforcer with a real Kafka and a system in memory."""

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


class EnforcerSite:
    """Topics, and enforcers in threads.

    Attributes:
        backend: the system of each enforcer, one after the other.
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
        own_settings = settings.consumers.exabgp.model_copy(
            update={"snapshot": path, "reconcile_interval": 0.2}
        )
        enforcer = build_enforcer(settings, own_settings, self.backend, self.metrics)
        thread = threading.Thread(target=enforcer.run)
        thread.start()
        self._running.append((enforcer, thread))
        wait_until(lambda: enforcer.state.synced, 30, "the end of the topic")
        reader = enforcer.command_reader
        wait_until(lambda: bool(reader._positions), 30, "the end of the commands")
        return enforcer

    def stop(self) -> None:
        for enforcer, thread in self._running:
            enforcer.stop()
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

    def want(self, key: str, lease: float = 60.0, **fields: Any) -> None:
        kind, _, prefix = key.partition("|")
        record = {"key": key, "kind": kind, "prefix": prefix, "state": "wanted"}
        event = Mitigation(**{**record, "lease_ms": round(lease * 1000), **fields})
        self.put("mitigation", key, event)

    def command(self, verb: str) -> int:
        return self.put(
            "command", None, Command(verb=verb, by="alice", comment="a test")
        )

    def resumed(self, offset: int) -> None:
        event = Mitigation(
            key="pause", kind="pause", state="ended", command_offset=offset
        )
        self.put("mitigation", "pause", event)

    def wait_in_force(self, *keys: str) -> None:
        wait_until(lambda: sorted(self.backend.measures) == sorted(keys), 30, f"{keys}")


@pytest.fixture
def site(kafka_relays: RelayProcesses) -> Iterator[EnforcerSite]:
    site = EnforcerSite(kafka_relays)
    yield site
    site.stop()


def test_pause_withdraws_everything_without_mitigator(site: EnforcerSite) -> None:
    site.command("pause")  # published before the start, so no enforcer applies it
    site.start()
    site.want(ONE)
    site.want(TWO)
    site.wait_in_force(ONE, TWO)
    site.put("command", None, b"no command")
    paused = site.command("pause")
    site.wait_in_force()
    site.stop()
    site.start()  # neither a restart nor a renewal resumes
    site.want(ONE)
    site.resumed(paused - 1)
    prefix = TWO.partition("|")[2]
    site.want(f"{TWO}|nftables", prefix=prefix, place="nftables")
    site.want(TWO, state="ended")
    resumed = site.command("resume")
    site.put("mitigation", "pause", b"broken")  # behind the record above
    broken = site.metrics.unreadable_records.labels("exabgp")
    wait_until(lambda: broken._value.get() == 1, 30, "the broken record")
    assert not site.backend.measures
    site.resumed(resumed)
    site.wait_in_force(ONE)
    broken = site.metrics.unreadable_commands.labels("exabgp")
    assert broken._value.get() == 1


def test_leases_are_counted_on_broker_time(
    site: EnforcerSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only this machine's clock is 3 days ahead.
    real = __import__("time").time
    monkeypatch.setattr("time.time", lambda: real() + 3 * 86_400)
    enforcer = site.start()
    wait_until(lambda: enforcer.broker_clock.has_time, 30, "the broker's time")
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
    site.start()  # only the topic is left, and the lease of TWO has ended
    site.wait_in_force(ONE)


def test_lost_connection_skips_no_command(
    site: EnforcerSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    enforcer = site.start()
    site.want(ONE)
    site.wait_in_force(ONE)
    reader = enforcer.command_reader
    failed, can_open = threading.Event(), threading.Event()
    open_reader: Callable[[], TopicReader] = reader._open

    def open_later() -> TopicReader:
        assert can_open.wait(30)
        return open_reader()

    def broken(_self: TopicReader, _seconds: float) -> Any:
        failed.set()
        raise RuntimeError("a bug")

    monkeypatch.setattr(reader, "_open", open_later)
    with monkeypatch.context() as patched:
        patched.setattr(TopicReader, "read", broken)
        assert failed.wait(30)
        wait_until(lambda: not enforcer.health()[0], 30, "its health")
    site.command("pause")  # while no thread reads
    can_open.set()
    site.wait_in_force()
    wait_until(lambda: enforcer.health()[0], 30, "its health")


def test_results_are_on_the_audit_topic(site: EnforcerSite) -> None:
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
            events = [record.event for record in reader.read(1.0)]
            audits += [event for event in events if isinstance(event, Audit)]
    results = {(audit.action, audit.code, audit.key) for audit in audits}
    assert ("in-force", "", ONE) in results
    assert ("failed", "own_networks", "blackhole|198.51.100.1/32") in results
