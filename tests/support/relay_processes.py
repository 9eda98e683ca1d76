"""A spool with relays as processes, and a reader without fnm-bus."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    Message,
    TopicPartition,
)

from fnm_bus.avro.codec import Codec
from fnm_bus.hook import python_hook
from fnm_bus.spool.spool import Spool

_TICKS = count(1_000)


def ban(ip: str, action: str = "ban", **details: object) -> bytes:
    facts = {"attack_uuid": f"uuid-of-{ip}", "total_incoming_pps": 1000, **details}
    body = {
        "ip": ip,
        "action": action,
        "alert_scope": "host",
        "attack_details": facts,
    }
    return json.dumps(body).encode()


class RelayProcesses:
    """A spool, a fallback spool, and relays that drain them to a broker.

    Args:
        root: a directory for everything.
        bootstrap: the broker.
    """

    def __init__(self, root: Path, bootstrap: str) -> None:
        self.root = root
        self.bootstrap = bootstrap
        self.config = root / "fnm-bus.toml"
        self.spool = Spool(root / "spool")
        self.fallback = Spool(root / "fallback")
        self.prefix = f"t{uuid4().hex[:8]}."
        self.codec = Codec()
        self._relays: list[subprocess.Popen[bytes]] = []
        for spool in (self.spool, self.fallback):
            spool.make(os.getuid(), os.getgid())
        self.configure()

    def topic(self, kind: str) -> str:
        return f"{self.prefix}{kind}"

    def configure(self, *lines: str, **kafka: str) -> None:
        """Write the configuration; *lines* are added as they are."""
        kinds = (
            "host",
            "hostgroup",
            "status",
            "reason",
            "mitigation",
            "command",
            "audit",
        )
        names = [f'{kind} = "{self.topic(kind)}"' for kind in (*kinds, "deadletter")]
        settings = {"bootstrap.servers": self.bootstrap, **kafka}
        self.config.write_text(
            "\n".join(
                [
                    'sensor = "fra1"',
                    "[kafka]",
                    *(f'"{key}" = "{value}"' for key, value in settings.items()),
                    "[topics]",
                    *names,
                    "partitions = 4",
                    "replication = 1",
                    "[relay]",
                    "metrics_port = 0",
                    *lines,
                    "[spool]",
                    f'directory = "{self.spool.root}"',
                    f'fallback = "{self.fallback.root}"',
                ]
            )
        )

    def config_by(self, name: str, bootstrap: str) -> Path:
        """Return a copy of the configuration that finds the broker elsewhere."""
        file = self.root / f"{name}.toml"
        file.write_text(self.config.read_text().replace(self.bootstrap, bootstrap))
        return file

    def call(
        self,
        document: bytes,
        arguments: tuple[str, ...] = (),
        spool: Spool | None = None,
    ) -> str:
        """Store a notification, as a hook started after all others would."""
        root = (spool or self.spool).root
        ticks = next(_TICKS)
        name = f"{python_hook.boot_id()}-{ticks:012d}-0000100-{ticks % 16:08x}"
        python_hook.store_entry(
            str(root), name, python_hook.encode_entry(arguments, document)
        )
        return name

    def run(
        self, *arguments: str, stdin: bytes = b"", timeout: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one command of fnm-bus."""
        return subprocess.run(
            [sys.executable, "-m", "fnm_bus", *arguments],
            input=stdin,
            env={**os.environ, "FNM_BUS_CONFIG": str(self.config)},
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def succeed(
        self, *arguments: str, stdin: bytes = b"", timeout: float = 60
    ) -> bytes:
        """Run a command of fnm-bus that exits with 0; return its output."""
        done = self.run(*arguments, stdin=stdin, timeout=timeout)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def start(
        self, *, ready: str = "STATUS=draining", config: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a relay; return it when it has sent *ready* to systemd."""
        address = str(self.root / f"notify{len(self._relays)}")
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
            (self.root / "relay.log").open("ab") as log,
        ):
            manager.bind(address)
            manager.settimeout(30)
            relay = subprocess.Popen(
                [sys.executable, "-m", "fnm_bus", "relay"],
                env={
                    **os.environ,
                    "FNM_BUS_CONFIG": str(config or self.config),
                    "NOTIFY_SOCKET": address,
                },
                stderr=log,
            )
            self._relays.append(relay)
            try:
                while ready not in manager.recv(1024).decode():
                    continue
            except TimeoutError:
                pytest.fail(f"no relay: {self.said()}")
        return relay

    def said(self) -> str:
        return (self.root / "relay.log").read_text()

    def stop(self) -> None:
        for relay in self._relays:
            if relay.poll() is None:
                relay.send_signal(signal.SIGCONT)
                relay.kill()
                relay.wait()

    def messages(self, kind: str, least: int, within: float = 60) -> list[Message]:
        """Return all messages of a topic, once they are *least* at least."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": uuid4().hex,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "allow.auto.create.topics": True,
            }
        )
        messages: list[Message] = []
        end = time.monotonic() + within
        try:
            topic = self.topic(kind)
            partitions: Any = {}
            while not partitions and time.monotonic() < end:
                metadata = consumer.list_topics(topic, timeout=10).topics[topic]
                partitions = metadata.partitions
            consumer.assign(
                [
                    TopicPartition(topic, number, OFFSET_BEGINNING)
                    for number in partitions
                ]
            )
            ended: set[int] = set()
            while time.monotonic() < end:
                message = consumer.poll(0.2)
                if message is None:
                    continue
                error = message.error()
                if error is None:
                    messages.append(message)
                    ended.discard(message.partition())
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
                if len(messages) >= least and len(ended) == len(partitions):
                    break
        finally:
            consumer.close()
        return messages

    def events(self, kind: str, least: int, within: float = 60) -> list[Any]:
        messages = self.messages(kind, least, within)
        return [self.codec.decode(message.value()) for message in messages]

    def until(self, true: Callable[[], bool], within: float = 30) -> None:
        """Wait until a condition is true that no event announces."""
        end = time.monotonic() + within
        while not true():
            if time.monotonic() > end:
                pytest.fail(
                    f"not true within {within} s; the relay said: {self.said()}"
                )
            select.select([], [], [], 0.01)

    def empty(self) -> bool:
        return not self.spool.scan() and not self.fallback.scan()


@contextmanager
def silent(port: int = 0) -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen(64)
        listening.settimeout(0.2)
        done = threading.Event()
        kept = []

        def accept() -> None:
            while not done.is_set():
                try:
                    kept.append(listening.accept()[0])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            done.set()
            thread.join()
            for connection in kept:
                connection.close()
