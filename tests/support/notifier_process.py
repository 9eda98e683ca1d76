"""The notifier as a process, its topic, and a web server as its receiver."""

import json
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from confluent_kafka import Consumer, Producer, TopicPartition

from fnm_bus.avro.codec import Codec
from fnm_bus.event import Mitigation, ReasonSummary
from support.process import Server, wait_until
from support.receiver import Receiver

PARTITIONS = 4
NEW = "new_consumer_group"


def mitigation(number: int, state: str = "wanted", **other: Any) -> Mitigation:
    prefix = f"198.51.{number // 256}.{number % 256}/32"
    now = datetime.now(UTC)
    fields = {
        "key": f"blackhole|{prefix}",
        "kind": "blackhole",
        "state": state,
        "prefix": prefix,
        "hostgroup": "web",
        "created_at": datetime(2026, 5, 1, tzinfo=UTC),
        "started_at": datetime(2026, 5, 1, tzinfo=UTC),
        "changed_at": now,
        "lease_ms": 900_000,
        "expires_at": now + timedelta(minutes=15),
        "ended_because": "unban" if state == "ended" else "",
        "reasons": (ReasonSummary(sensor="fra1", rule="big", pps=number),),
    }
    return Mitigation(**{**fields, **other})


class NotifierProcess:
    """A mitigation topic, a web server, and notifiers between them."""

    def __init__(
        self, root: Path, bootstrap: str, receiver: Receiver, **kafka: str
    ) -> None:
        self.root = root
        self.topic = f"m{uuid4().hex[:8]}"
        self.receiver = receiver
        self.log = root / "notifier.log"
        self._group = f"g{self.topic}"
        self._kafka = {"bootstrap.servers": bootstrap, **kafka}
        self._producer = Producer({"bootstrap.servers": bootstrap, "log_level": 2})
        self._codec = Codec()
        self._config = root / "fnm-bus.toml"
        self._running: list[Server] = []
        (root / "url").write_text(f"{receiver.url}\n")
        (root / "secret").write_text("shared\n")
        self.configure(url_file=str(root / "url"), secret_file=str(root / "secret"))

    def configure(self, *, dry_run: bool = False, **notifier: Any) -> None:
        timers = {"group_wait": 1.5, "group_interval": 300.0}
        table = {"group": self._group, **timers, **notifier}
        lines = [
            'sensor = "fra1"',
            f"dry_run = {json.dumps(dry_run)}",
            "[kafka]",
            *(f'"{name}" = {json.dumps(value)}' for name, value in self._kafka.items()),
            "[topics]",
            f'mitigation = "{self.topic}"',
            f'deadletter = "{self.topic}.deadletter"',
            "[consumers.notifier]",
            *(f"{name} = {json.dumps(value)}" for name, value in table.items()),
        ]
        self._config.write_text("\n".join(lines) + "\n")

    def start(self, environment: Mapping[str, str] | None = None) -> Server:
        command = [sys.executable, "-m", "consumers", "notifier"]
        command += ["--config", str(self._config)]
        server = Server(command, self.log, environment)
        server.start()
        self._running.append(server)
        return server

    def start_first(self, environment: Mapping[str, str] | None = None) -> Server:
        """Start the first notifier, and wait until its group has offsets."""
        server = self.start(environment)
        server.wait(lambda: NEW in self.log.read_text())
        return server

    def put(
        self, records: Iterable[Mitigation], broker: timedelta = timedelta(0)
    ) -> None:
        """Produce records; *broker* is how far the broker's clock is ahead."""
        # Encoded first, so that they come as close together as a storm does.
        made = [(m.key, self._codec.encode(m, self.topic)) for m in records]
        self.put_raw(made, broker)

    def put_raw(
        self, made: Iterable[tuple[str, bytes]], broker: timedelta = timedelta(0)
    ) -> None:
        at = round((datetime.now(UTC) + broker).timestamp() * 1000)
        failed: list[Any] = []

        def delivered(error: Any, _message: Any) -> None:
            if error is not None:
                failed.append(error)

        for key, value in made:
            self._producer.produce(
                self.topic, value, key=key, timestamp=at, on_delivery=delivered
            )
        assert self._producer.flush(30) == 0
        assert failed == []

    def wait_committed(self) -> None:
        """Wait until the group is done with everything."""
        partitions = [
            TopicPartition(self.topic, number) for number in range(PARTITIONS)
        ]
        consumer = Consumer({**self._kafka, "group.id": self._group, "log_level": 2})

        def done() -> bool:
            return all(
                place.offset == consumer.get_watermark_offsets(place, timeout=10)[1]
                for place in consumer.committed(partitions, timeout=10)
            )

        try:
            wait_until(done, 30, "everything committed")
        finally:
            consumer.close()

    def notices(self, count: int) -> list[dict[str, Any]]:
        return [json.loads(request.body) for request in self.receiver.wait_for(count)]

    def close(self) -> None:
        for server in self._running:
            server.kill()
