"""Records that no relay publishes, before a valid record: each consumer continues.

The mitigator and the enforcers have theirs in `test_mitigator_faults`,
`test_fuzz_mitigator` and `tests/integration/enforcers/test_enforcer`, on a real Kafka.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer
from support.consumer_processes import policy
from support.fuzz_records import Fuzz
from support.process import Server, free_port
from support.relay_processes import RelayProcesses

from fnm_bus.avro.codec import Codec
from fnm_bus.event import (
    DeadLetter,
    Event,
    HostEvent,
    HostgroupEvent,
    HostgroupNetwork,
    Receipt,
)

RECEIPT = Receipt(event_id="bad", received_at=datetime.now(UTC), sensor="fra1")
HOST = HostEvent(receipt=RECEIPT, action="ban", ip="203.0.113.1")
GROUP = HostgroupEvent(receipt=RECEIPT, action="ban", hostgroup_name="web")
INVALID: tuple[Event, ...] = (
    msgspec.structs.replace(HOST, ip="garbage"),
    msgspec.structs.replace(HOST, ip="203.0.113.1/32"),
    msgspec.structs.replace(HOST, action="ban\x1b[2J"),
    msgspec.structs.replace(
        GROUP, hostgroup_networks=(HostgroupNetwork(network="10.0.0.0/99"),)
    ),
    msgspec.structs.replace(GROUP, hostgroup_name=""),
)
UNKNOWN_ID = b"\x00\x00\x00\x00\x07 that only a registry knows"
GOOD = "203.0.113.77"
SIMPLE = """
from consumers.simple import consume
def handle(event):
    print("handled", getattr(event, "ip", ""), flush=True)
consume({group!r}, handle, ("host",))
"""


def configure(relays: RelayProcesses, *lines: str) -> None:
    relays.configure(
        "[consumers.mitigator]",
        f'policy = "{relays.root}/policy.toml"',
        "[consumers.jsonlines]",
        f'path = "{relays.root}/lines"',
        f'group = "{relays.prefix}lines"',
        f'topics = ["{relays.topic("host")}"]',
        *lines,
    )


@pytest.fixture
def spoiled(relays: RelayProcesses) -> RelayProcesses:
    """Relays whose host topic has a valid event after all kinds of invalid records."""
    (relays.root / "policy.toml").write_text(policy())
    configure(relays)
    producer = Producer({"bootstrap.servers": relays.bootstrap})
    for kind in ("hostgroup", "status", "deadletter", "reason", "mitigation"):
        producer.produce(relays.topic(kind), None, partition=0)  # creates it
    topic = relays.topic("host")
    for value in values(relays.codec, topic):
        producer.produce(topic, value, b"one key", partition=0)
    assert producer.flush(10) == 0
    return relays


def values(codec: Codec, topic: str) -> Sequence[bytes]:
    fuzz = Fuzz(1, [GOOD, "203.0.113.8", "203.0.113.9"], stored=True)
    good = msgspec.structs.replace(HOST, ip=GOOD)
    return [
        *(codec.encode(event, topic) for event in INVALID),
        *(b"", b"garbage", b"\xc3\x01" + bytes(9), UNKNOWN_ID),
        *(fuzz.draw().value for _ in range(200)),
        codec.encode(good, topic),
    ]


def run(relays: RelayProcesses, *arguments: str) -> bytes:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**os.environ, "FNM_BUS_CONFIG": str(relays.config)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def tail(relays: RelayProcesses, *options: str) -> list[bytes]:
    topic = relays.topic("host")
    arguments = ("fnm_bus", "tail", topic, "--from-beginning", "--until-end", *options)
    return run(relays, *arguments).splitlines()


def test_tail_shows_each_as_a_line(spoiled: RelayProcesses) -> None:
    lines = tail(spoiled)
    assert len(lines) == len(values(Codec(), ""))
    assert GOOD.encode() in lines[-1]


def test_tail_shows_each_as_json(spoiled: RelayProcesses) -> None:
    records: list[Any] = [json.loads(line) for line in tail(spoiled, "--json")]
    assert len(records) == len(values(Codec(), ""))
    assert records[-1]["event"]["ip"] == GOOD


def test_tail_continues_without_the_registry(spoiled: RelayProcesses) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    configure(
        spoiled,
        "[registry]",
        f'url = "{url}"',
        f'schema_ids_file = "{spoiled.root}/pins"',
    )
    records: list[Any] = [json.loads(line) for line in tail(spoiled, "--json")]
    assert records[-1]["event"]["ip"] == GOOD
    [unknown] = [record for record in records if url in (record["error"] or "")]
    assert unknown["event"] is None


def test_explain_replays_the_valid_events(spoiled: RelayProcesses) -> None:
    printed = run(spoiled, "fnm_bus", "explain", "--since", "7d", "--json")
    shown = [json.loads(line) for line in printed.splitlines()]
    refused = [row for row in shown if row["event_id"] == "bad" and row["error"]]
    assert len(refused) == len(INVALID)


@pytest.mark.parametrize("name", ["simple", "jsonlines"])
def test_a_consumer_continues_and_publishes_dead_letters(
    spoiled: RelayProcesses, name: str
) -> None:
    log = spoiled.root / "program.log"
    simple = ["-c", SIMPLE.format(group=spoiled.prefix)]
    program = simple if name == "simple" else ["-m", "consumers", "jsonlines"]
    shown = log if name == "simple" else spoiled.root / "lines"
    environment = {"FNM_BUS_CONFIG": str(spoiled.config)}
    server = Server([sys.executable, *program], log, environment)
    server.start()
    try:
        server.wait(lambda: shown.exists() and GOOD in last_line(shown), 60)
        letters = spoiled.messages("deadletter", len(INVALID) + 3)
    finally:
        server.kill()
    decoded = [
        spoiled.codec.decode(letter.value()) for letter in letters if letter.value()
    ]
    reasons = [event.reason for event in decoded if isinstance(event, DeadLetter)]
    assert any("/ip: wanted" in reason for reason in reasons)
    assert any("/hostgroup_networks/0/network: wanted" in reason for reason in reasons)


def last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines()
    return lines[-1] if lines else ""
