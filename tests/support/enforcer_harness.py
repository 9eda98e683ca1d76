"""An enforcer with a system in memory, and topics that a test fills."""

from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from consumers.enforcers.backend import MemoryBackend
from consumers.enforcers.enforcer import Enforcer
from consumers.enforcers.wanted_reader import PartitionsAdded, TopicEnd
from consumers.metrics import EnforcerMetrics
from consumers.mitigation import clock
from consumers.mitigation.clock import BrokerClock
from consumers.mitigation.measure import Measure
from fnm_bus.event import Command, Mitigation
from fnm_bus.kafka.reader import ConsumedRecord

ONE, TWO = "blackhole|203.0.113.1/32", "blackhole|203.0.113.2/32"
UNWANTED = Measure(kind="blackhole", prefix="203.0.113.9/32")
"""A measure that no record wants."""
OWN_NETWORKS = (ip_network("203.0.113.0/24"), ip_network("2001:db8:1::/48"))
DAY = 86_400.0


class FakeReader:
    def __init__(self) -> None:
        self.items: list[Any] = []
        self.is_healthy = True
        self.problem = ""
        self.restarts = 0

    def take(self, _timeout: float) -> list[Any]:
        items, self.items = self.items, []
        return items


class FakeAuditPublisher:
    """An audit publisher that keeps the records.

    Attributes:
        published: (result, key) of each record, without requests for the time.
        codes: the codes of these records.
    """

    problem = ""

    def __init__(self) -> None:
        self.lost = 0
        self.published: list[tuple[str, str | None]] = []
        self.codes: list[str] = []

    def publish(
        self,
        result: str,
        _text: str,
        *,
        code: str = "",
        key: str | None = None,
        dry_run: bool = False,
    ) -> None:
        del dry_run
        if code != "broker_time":
            self.published.append((result, key))
            self.codes.append(code)

    def poll(self) -> None:
        pass


class EnforcerHarness:
    """One enforcer with a system in memory.

    Attributes:
        clock_ahead: seconds by which the broker's clock is ahead of this machine's.
        partition: the partition of the next records.
    """

    def __init__(
        self,
        path: Path,
        backend: MemoryBackend | None = None,
        *,
        dry_run: bool = False,
        clock_ahead: float = 0.0,
        clock_known: bool = True,
    ) -> None:
        self.backend = backend or MemoryBackend()
        self.topic, self.commands = FakeReader(), FakeReader()
        self.audit = FakeAuditPublisher()
        self.path, self.clock_ahead, self.partition = path, clock_ahead, 0
        self.metrics = EnforcerMetrics()
        self.clock = BrokerClock()
        self._boot = datetime.now(UTC).timestamp() - clock.now()
        if clock_known:
            self.learn_time()
        self.enforcer = Enforcer(
            backend=self.backend,
            wanted_reader=self.topic,  # type: ignore[arg-type]  # has the used methods
            command_reader=self.commands,  # type: ignore[arg-type]  # as above
            audit=self.audit,  # type: ignore[arg-type]  # as above
            broker_clock=self.clock,
            path=path,
            interval=0.0,
            max_clock_skew=30.0,
            own_networks=OWN_NETWORKS,
            dry_run=dry_run,
            metrics=self.metrics,
        )
        self.enforcer._restore()

    def restart(self, **settings: Any) -> "EnforcerHarness":
        return EnforcerHarness(self.path, self.backend, **settings)

    def broker_time(self, age: float = 0.0) -> float:
        return self._boot + self.clock_ahead + clock.now() - age

    def learn_time(self) -> None:
        self.clock.learn(clock.now(), clock.now(), self.broker_time())

    def put(
        self,
        key: str,
        state: str = "wanted",
        lease: float = 60.0,
        age: float = 0.0,
        **fields: Any,
    ) -> None:
        """Put a mitigation record into the topic."""
        kind, _, prefix = key.partition("|")
        defaults = {
            "key": key,
            "kind": kind,
            "state": state,
            "prefix": prefix,
            "lease_ms": round(lease * 1000),
        }
        self.put_record(key, b"x", Mitigation(**{**defaults, **fields}), age)

    def put_record(
        self, key: str, value: bytes | None, event: Any, age: float = 0.0
    ) -> None:
        at = datetime.fromtimestamp(self.broker_time(age), UTC)
        place = "mitigation", self.partition, 0
        self.topic.items.append(
            ConsumedRecord(*place, at, key.encode(), (), value, event, "broken")
        )

    def put_command(self, verb: str | None, offset: int, age: float = 0.0) -> None:
        at = datetime.fromtimestamp(self.broker_time(age), UTC)
        event = Command(verb=verb, by="alice", comment="a test") if verb else None
        self.commands.items.append(
            ConsumedRecord("command", 0, offset, at, None, (), b"x", event, "broken")
        )

    def put_pause(self, offset: int) -> None:
        self.put("pause", "wanted", lease=0, command_offset=offset, prefix=None)

    def put_resume(self, offset: int) -> None:
        self.put("pause", "ended", lease=0, command_offset=offset, prefix=None)

    def end_topic(self) -> None:
        self.topic.items.append(TopicEnd())

    def add_partitions(self) -> None:
        self.topic.items.append(PartitionsAdded())

    def run(self, times: int = 1) -> list[str]:
        """Run iterations of the loop; return the keys that are in force then."""
        for _ in range(times):
            self.enforcer.run_once()
        return self.in_force()

    def start(self, key: str, state: str = "wanted", **fields: Any) -> list[str]:
        """Run with a topic that was read to its end, and one record after that."""
        self.end_topic()
        self.put(key, state, **fields)
        return self.run()

    def replace_backend(self, backend: MemoryBackend) -> None:
        self.enforcer._reconciler._backend = self.backend = backend

    def in_force(self) -> list[str]:
        return sorted(self.backend.measures)

    def results(self) -> list[str]:
        return [result for result, _key in self.audit.published]

    def count(self, name: str, *labels: str) -> float:
        metric = getattr(self.metrics, name).labels("memory", *labels)
        return float(metric._value.get())
