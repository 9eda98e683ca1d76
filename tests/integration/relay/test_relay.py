"""The relay as a process, on a real Kafka, with faults of both."""

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from support.kafka import Cluster
from support.relay_processes import RelayProcesses, ban, silent

from fnm_bus.config.settings import Settings


def ids(events: list[Any]) -> list[str]:
    return [event.receipt.event_id for event in events]


@pytest.mark.kafka
def test_events_of_a_target_arrive_in_call_order(kafka_relays: RelayProcesses) -> None:
    kafka_relays.start()
    wanted = []
    for number in range(200):
        kafka_relays.call(ban("2001:db8::1", "ban" if number % 2 == 0 else "unban"))
        wanted.append("ban" if number % 2 == 0 else "unban")
    events = kafka_relays.events("host", 200)
    assert [event.action for event in events] == wanted
    sequences = [event.receipt.sequence for event in events]
    assert sequences == sorted(sequences)
    kafka_relays.until(kafka_relays.empty)


@pytest.mark.kafka
def test_a_killed_relay_loses_nothing_and_repeats_only_equal_ids(
    kafka_relays: RelayProcesses,
) -> None:
    names = [kafka_relays.call(ban(f"192.0.2.{n % 250}")) for n in range(3_000)]
    relay = kafka_relays.start()
    # In the middle of the drain: the first documents were removed.
    kafka_relays.until(lambda: len(kafka_relays.spool.scan()) < len(names) - 200)
    relay.send_signal(signal.SIGKILL)
    relay.wait()
    assert kafka_relays.spool.scan()
    kafka_relays.start()
    kafka_relays.until(kafka_relays.empty)
    events = kafka_relays.events("host", 3_000)
    assert len(set(ids(events))) == 3_000


@pytest.mark.kafka
def test_sigterm_ends_the_relay_without_lost_or_repeated_events(
    kafka_relays: RelayProcesses,
) -> None:
    relay = kafka_relays.start()
    for number in range(500):
        kafka_relays.call(ban(f"192.0.2.{number % 250}"))
    kafka_relays.until(lambda: len(kafka_relays.spool.scan()) < 400)
    relay.send_signal(signal.SIGTERM)
    assert relay.wait(timeout=15) == 0
    left = len(kafka_relays.spool.scan())
    events = kafka_relays.events("host", 500 - left)
    assert len(set(ids(events))) == len(events) == 500 - left


def test_every_thread_of_the_relay_has_low_priority(relays: RelayProcesses) -> None:
    relay = relays.start()
    relays.call(ban("192.0.2.1"))
    relays.events("host", 1)
    threads = [int(path.name) for path in Path(f"/proc/{relay.pid}/task").iterdir()]
    assert len(threads) > 1
    wanted = max(Settings().relay.cpu_nice, os.getpriority(os.PRIO_PROCESS, 0))
    assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads} == {wanted}


def test_a_second_relay_takes_over_from_a_killed_relay(relays: RelayProcesses) -> None:
    first = relays.start()
    relays.start(ready="READY=1")
    relays.call(ban("192.0.2.1"))
    relays.events("host", 1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    relays.call(ban("192.0.2.2"))
    events = relays.events("host", 2)
    assert [event.ip for event in events] == ["192.0.2.1", "192.0.2.2"]


@pytest.mark.kafka
def test_a_killed_broker_of_three_loses_and_reorders_nothing(
    tmp_path: Path, kafka3: Cluster, make_relays: Callable[..., RelayProcesses]
) -> None:
    relays = make_relays(tmp_path, kafka3.bootstrap, replication=3)
    relays.start()
    for number in range(1_500):
        relays.call(ban(f"192.0.2.{number % 20}", total_incoming_pps=number))
        if number == 500:
            kafka3.kill(1)
    events = relays.events("host", 1_500, within=120)
    kafka3.start(1)
    assert len(set(ids(events))) == 1_500
    for target in {event.ip for event in events}:
        seen: list[int] = []
        for event in events:
            pps = event.attack_details.total_incoming_pps
            if event.ip == target and pps not in seen:
                seen.append(pps)
        assert seen == sorted(seen)


def test_documents_wait_for_an_unreachable_broker(relays: RelayProcesses) -> None:
    alive = relays.bootstrap
    relays.bootstrap = "127.0.0.1:1"
    relays.configure()
    relay = relays.start()
    names = [relays.call(ban(f"192.0.2.{n}")) for n in range(20)]
    relay.send_signal(signal.SIGTERM)
    assert relay.wait(timeout=20) == 0
    assert relays.spool.scan() == names
    relays.bootstrap = alive
    relays.configure()
    relays.start()
    assert len(relays.events("host", 20)) == 20
    relays.until(relays.empty)


def test_notify_keeps_its_timeout_with_a_silent_broker(relays: RelayProcesses) -> None:
    with silent() as port:
        relays.bootstrap = f"127.0.0.1:{port}"
        relays.configure("[notify]", "drain_timeout = 1.0")
        ended = relays.run("notify", stdin=ban("192.0.2.1"), timeout=15)
    assert ended.returncode == 0, ended.stderr.decode()
    assert len(relays.spool.scan()) == 1


def test_notify_without_a_relay_publishes_its_document(relays: RelayProcesses) -> None:
    document = ban("192.0.2.1")
    assert relays.succeed("notify", "ban", "192.0.2.1", stdin=document) == b""
    (event,) = relays.events("host", 1)
    assert event.receipt.arguments == ("ban", "192.0.2.1")
    assert relays.empty()


def test_notify_drains_the_documents_of_earlier_calls(relays: RelayProcesses) -> None:
    for number in range(10):
        relays.call(ban(f"192.0.2.{number}"))
    relays.run("notify", stdin=ban("192.0.2.10"))
    assert len(relays.events("host", 11)) == 11
    assert relays.empty()


def test_notify_with_a_relay_only_stores(relays: RelayProcesses) -> None:
    relay = relays.start()
    relay.send_signal(signal.SIGSTOP)
    relays.succeed("notify", stdin=ban("192.0.2.1"))
    assert len(relays.spool.scan()) == 1
    relay.send_signal(signal.SIGCONT)
    assert len(relays.events("host", 1)) == 1


def test_notify_quarantines_an_invalid_document_and_exits_65(
    relays: RelayProcesses,
) -> None:
    ended = relays.run("notify", stdin=b'{"action": "ban", "ip": 7}')
    assert ended.returncode == 65, ended.stderr.decode()
    assert b"/ip" in ended.stderr
    assert relays.empty()
    kept = relays.run("quarantine", "list", "--json")
    assert b"/ip" in kept.stdout
    (letter,) = relays.events("deadletter", 1)
    assert letter.head == b'{"action": "ban", "ip": 7}'
    assert letter.field == "/ip"


def test_after_a_failed_drain_the_next_call_does_not_try(
    relays: RelayProcesses,
) -> None:
    alive = relays.bootstrap
    with silent() as port:
        relays.bootstrap = f"127.0.0.1:{port}"
        relays.configure("[notify]", "drain_timeout = 1.0")
        calls = failed = 0
        while failed < 4 and calls < 200:  # a call within the pause does not try
            done = relays.run("notify", stdin=ban(f"192.0.2.{calls}"))
            failed += b"retried=True" in done.stderr
            calls += 1
    # By now the pause is longer than the next call takes; Kafka is back, and not asked.
    relays.bootstrap = alive
    relays.configure()
    relays.succeed("notify", stdin=ban("192.0.2.255"))
    assert len(relays.spool.scan()) == calls + 1


@pytest.mark.kafka
def test_a_document_over_the_broker_limit_loses_its_samples(
    kafka_relays: RelayProcesses,
) -> None:
    big = json.loads(ban("192.0.2.1"))
    # Not to be compressed away, and more than the broker's default of 1 MiB.
    big["packet_dump"] = [os.urandom(500).hex() for _ in range(1_200)]
    kafka_relays.configure(**{"message.max.bytes": "8000000"})
    name = kafka_relays.call(json.dumps(big).encode())
    kafka_relays.start()
    (event,) = kafka_relays.events("host", 1)
    assert event.truncated
    assert event.packet_dump == ()
    kafka_relays.until(kafka_relays.empty)
    kept = kafka_relays.spool.root / "quarantine" / name
    assert json.dumps(big).encode() in kept.read_bytes()


@pytest.mark.kafka
def test_a_missing_topic_does_not_delay_the_others(
    tmp_path: Path, kafka: str, make_relays: Callable[..., RelayProcesses]
) -> None:
    relays = make_relays(tmp_path, kafka, missing=("status",))
    relays.start()
    status = relays.call(ban("192.0.2.1", "attack_status"))
    for number in range(20):
        relays.call(ban(f"192.0.2.{number}"))
    assert len(relays.events("host", 20)) == 20
    relays.until(lambda: relays.spool.scan() == [status])


def test_metrics_and_health_are_served(relays: RelayProcesses) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    relays.config.write_text(
        relays.config.read_text().replace("metrics_port = 0", f"metrics_port = {port}")
    )
    relays.start()
    relays.call(ban("192.0.2.1"))
    relays.events("host", 1)
    with urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
        assert json.load(answer)["draining"] is True
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        page = answer.read().decode()
    assert f'fnm_bus_published_total{{topic="{relays.topic("host")}"}} 1.0' in page
