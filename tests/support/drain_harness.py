"""A drain on real spools, with a publisher in memory."""

import json
import os
from itertools import count
from pathlib import Path
from typing import Any

from fnm_bus.avro.codec import Codec
from fnm_bus.errors import PublishError
from fnm_bus.hook import python_hook
from fnm_bus.kafka.addressing import Topics
from fnm_bus.relay.drain import Drain, InFlightLimits
from fnm_bus.relay.metrics import RelayMetrics
from fnm_bus.relay.pipeline import Pipeline
from fnm_bus.relay.source import EntrySource
from fnm_bus.spool.quarantine import Quarantine
from fnm_bus.spool.sequence import BootEpochs
from fnm_bus.spool.spool import Spool
from support.memory_publisher import MemoryPublisher

TOPICS = Topics()


def document(ip: str, action: str = "ban", **fields: object) -> bytes:
    details = {"attack_uuid": f"uuid-of-{ip}", "total_incoming_pps": 1000}
    body = {"ip": ip, "action": action, "attack_details": details, **fields}
    return json.dumps(body).encode()


class DrainHarness:
    """A spool, a fallback spool, a quarantine and a publisher in memory."""

    def __init__(
        self,
        root: Path,
        quarantine_files: int = 100,
        publisher: MemoryPublisher | None = None,
    ) -> None:
        epochs = BootEpochs(root / "spool/state/epochs.json", python_hook.boot_id())
        self.spools = [Spool(root / "spool", epochs), Spool(root / "fallback", epochs)]
        for spool in self.spools:
            spool.make(os.getuid(), os.getgid())
        self.quarantine = Quarantine(root / "spool", quarantine_files, 10**9)
        self.codec = Codec(None)
        self.metrics = RelayMetrics()
        self.publisher = publisher or MemoryPublisher()
        self._pipeline = Pipeline("fra1", TOPICS, self.codec)
        self._epochs = epochs
        self._ticks = count(1_000)

    def call(
        self, document: bytes, arguments: tuple[str, ...] = (), spool: int = 0
    ) -> str:
        """Store a notification like a hook that was started after all others."""
        name = f"{python_hook.boot_id()}-{next(self._ticks):012d}-0000100-0000000a"
        root = str(self.spools[spool].root)
        python_hook.store_entry(
            root, name, python_hook.encode_entry(arguments, document)
        )
        return name

    def drain(self) -> Drain:
        source = EntrySource(
            self.spools, self.quarantine, self._epochs, self._pipeline, self.metrics
        )
        return Drain(source, self.publisher, InFlightLimits())

    def drained(self) -> Drain:
        """Return a new drain after ten rounds."""
        drain = self.drain()
        drain_rounds(drain)
        return drain

    def refuse(self, error: PublishError, topic: str = TOPICS.host) -> None:
        """Refuse every record of a topic."""
        self.publisher.refuse = lambda record: error if record.topic == topic else None

    def accept(self) -> None:
        """Refuse no record."""
        self.publisher.refuse = lambda _record: None

    def silence(self) -> MemoryPublisher:
        """Return the publisher, which acknowledges nothing from now on."""
        self.publisher.poll = lambda _timeout: None  # type: ignore[method-assign]
        self.publisher.flush = lambda _timeout: 1  # type: ignore[method-assign]
        return self.publisher

    def host_ips(self) -> list[str]:
        """Return the addresses of the published host events."""
        return [event.ip for event in self.events(TOPICS.host)]

    def events(self, topic: str) -> list[Any]:
        return [
            self.codec.decode(record.value or b"")
            for record in self.publisher.records
            if record.topic == topic
        ]

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry().get_sample_value(f"fnm_bus_{name}", labels)


def drain_rounds(drain: Drain, rounds: int = 10) -> None:
    drain.scan()
    for _ in range(rounds):
        drain.run_once(0)
