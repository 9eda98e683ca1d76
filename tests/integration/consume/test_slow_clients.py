"""Each program, while clients of its metrics port are silent or slow."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from confluent_kafka import Producer
from support.consumer_processes import policy
from support.process import accepts, free_port, wait_until
from support.relay_processes import RelayProcesses

from fnm_bus.kafka.addressing import Topics

CLIENTS = 100
"""More than a port's connections may be."""
PROGRAMS = {
    "relay": ("fnm_bus", "relay"),
    "mitigator": ("consumers", "mitigator"),
    "exabgp": ("consumers", "exabgp", "--api"),
    "nftables": ("consumers", "nftables"),
    "notifier": ("consumers", "notifier"),
    "jsonlines": ("consumers", "jsonlines"),
}


@pytest.fixture(params=PROGRAMS)
def command(request: pytest.FixtureRequest, relays: RelayProcesses) -> list[str]:
    """A program's command line; its configuration and topics exist."""
    (relays.root / "policy.toml").write_text(policy())
    (relays.root / "url").write_text("http://127.0.0.1:1/\n")
    relays.configure(
        "[consumers.mitigator]",
        f'policy = "{relays.root}/policy.toml"',
        "[consumers.exabgp]",
        f'snapshot = "{relays.root}/exabgp.json"',
        "[consumers.nftables]",
        f'snapshot = "{relays.root}/nftables.json"',
        "[consumers.notifier]",
        f'url_file = "{relays.root}/url"',
        "[consumers.jsonlines]",
        f'path = "{relays.root}/lines"',
    )
    producer = Producer({"bootstrap.servers": relays.bootstrap})
    for kind in Topics.__dataclass_fields__:  # the embedded broker creates them
        producer.produce(relays.topic(kind), key=b"x", value=None)
    assert producer.flush(10) == 0
    return [sys.executable, "-m", *PROGRAMS[request.param]]


@contextmanager
def running(
    relays: RelayProcesses, command: list[str]
) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """A program and its metrics port."""
    port = free_port()
    environment = {
        "FNM_BUS_CONFIG": str(relays.config),
        "FNM_BUS_RELAY__METRICS_PORT": str(port),
        "FNM_BUS_CONSUMERS__METRICS_PORT": str(port),
    }
    log = relays.root / "program.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,  # ExaBGP's enforcer ends with its standard input
            stdout=output,
            stderr=output,
        ) as process,
    ):
        try:
            wait_until(
                lambda: accepts(port) or process.poll() is not None, 60, "the port"
            )
            assert process.poll() is None, log.read_text()
            yield process, port
        finally:
            process.kill()


@contextmanager
def slow_clients(port: int) -> Iterator[None]:
    """Silent clients, and one that sends a byte now and then."""
    stopping = threading.Event()
    with ExitStack() as clients:

        def connect() -> socket.socket:
            address = ("127.0.0.1", port)
            return clients.enter_context(socket.create_connection(address, timeout=5))

        def drip(client: socket.socket) -> None:
            with suppress(OSError):  # disconnected
                while not stopping.wait(0.1):
                    client.sendall(b"G")

        for _ in range(CLIENTS):
            connect()
        thread = threading.Thread(target=drip, args=(connect(),))
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()


def test_slow_clients_delay_neither_answers_nor_the_end(
    relays: RelayProcesses, command: list[str]
) -> None:
    with running(relays, command) as (process, port), slow_clients(port):
        for page in ("healthz", "metrics"):
            start = time.monotonic()
            with suppress(HTTPError):  # 503: not healthy is an answer, too
                urlopen(f"http://127.0.0.1:{port}/{page}", timeout=3).close()
            assert time.monotonic() - start < 2
        process.send_signal(signal.SIGTERM)
        # Kafka gets up to five seconds for what is in flight.
        process.wait(timeout=8)
