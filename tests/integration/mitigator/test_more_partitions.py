"""Topics that are given more partitions while everything runs: 12, then 24."""

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions
from support.consumer_processes import ConsumerProcesses, policy
from support.process import wait_until
from support.relay_processes import RelayProcesses

from consumers.enforcers import wanted_reader
from consumers.enforcers.backend import MemoryBackend
from consumers.enforcers.build import build_enforcer
from consumers.metrics import EnforcerMetrics
from consumers.settings import FullSettings
from fnm_bus.config import load

pytestmark = pytest.mark.kafka

LOOK_OFTEN = (
    "from consumers.mitigator import service; service._PARTITION_CHECK = 1.0;"
    " service._SETTLED = {settled}"
)
KINDS = ("host", "hostgroup", "status", "reason", "mitigation", "audit")
BEFORE = [f"203.0.113.{number}" for number in range(1, 13)]
AFTER = [f"198.51.100.{number}" for number in range(1, 25)]


def keys_of(hosts: list[str]) -> list[str]:
    return sorted(f"blackhole|{host}/32" for host in hosts)


class Enforcers:
    """Enforcers in threads, each with a system of memory of its own."""

    def __init__(self, relays: RelayProcesses) -> None:
        self._relays = relays
        self._running: list[tuple[Any, threading.Thread]] = []

    def start(self) -> MemoryBackend:
        settings = load.load_as(FullSettings, self._relays.config).settings
        settings = settings.model_copy(update={"dry_run": False})
        path = self._relays.root / f"snapshot{len(self._running)}.json"
        table = settings.consumers.exabgp.model_copy(
            update={"snapshot": path, "reconcile_interval": 0.2}
        )
        backend = MemoryBackend("exabgp")
        made = build_enforcer(settings, table, backend, EnforcerMetrics())
        thread = threading.Thread(target=made.run)
        thread.start()
        self._running.append((made, thread))
        wait_until(lambda: made.state.synced, 30, "the end of the topic")
        return backend

    def stop(self) -> None:
        for made, thread in self._running:
            made.stop()
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture
def services(kafka_relays: RelayProcesses) -> Iterator[ConsumerProcesses]:
    made = ConsumerProcesses(kafka_relays, policy())
    raise_to(made, 12)
    yield made
    made.stop()


@pytest.fixture
def enforcers(
    kafka_relays: RelayProcesses, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Enforcers]:
    monkeypatch.setattr(wanted_reader, "_PARTITION_CHECK_INTERVAL", 1.0)
    made = Enforcers(kafka_relays)
    yield made
    made.stop()


def raise_to(services: ConsumerProcesses, count: int) -> None:
    admin = AdminClient({"bootstrap.servers": services.relays.bootstrap})
    topics = [services.relays.topic(kind) for kind in KINDS]
    for answer in admin.create_partitions(
        [NewPartitions(topic, count) for topic in topics]
    ).values():
        answer.result(30)

    def known() -> bool:
        topics_now = admin.list_topics(timeout=10).topics
        return all(len(topics_now[topic].partitions) == count for topic in topics)

    wait_until(known, 30, f"{count} partitions")
    services._producer = None  # the next producer has the new partitions


def places(services: ConsumerProcesses, kind: str) -> Counter[bytes | None]:
    """Return in how many partitions each key has a latest record that is none's end."""
    latest = {
        (record.key, record.partition): bool(record.value)
        for record in services.read(kind)
    }
    return Counter(key for (key, _partition), is_live in latest.items() if is_live)


def test_bans_before_and_after_are_decided_and_enforced_and_end(
    services: ConsumerProcesses, enforcers: Enforcers
) -> None:
    services.start("mitigator", fault=LOOK_OFTEN.format(settled=3.0))
    backend = enforcers.start()
    services.tell("ban", *BEFORE)
    wait_until(lambda: sorted(backend.measures) == keys_of(BEFORE), 60, "12 in force")
    raise_to(services, 24)
    services.tell("ban", *AFTER)
    everything = keys_of([*BEFORE, *AFTER])
    wait_until(lambda: sorted(backend.measures) == everything, 60, "36 in force")
    services.tell("unban", *BEFORE)
    wait_until(lambda: sorted(backend.measures) == keys_of(AFTER), 60, "24 in force")
    # A reader from the beginning has the same result.
    wait_until(
        lambda: max(places(services, "mitigation").values()) == 1, 60, "one record each"
    )
    assert set(places(services, "reason").values()) == {1}
    new = enforcers.start()
    wait_until(lambda: sorted(new.measures) == keys_of(AFTER), 30, "24 in force")


def test_no_ended_mitigation_returns_from_leftovers(
    services: ConsumerProcesses, enforcers: Enforcers
) -> None:
    mitigator = services.start("mitigator", fault=LOOK_OFTEN.format(settled=600.0))
    backend = enforcers.start()
    services.tell("ban", *BEFORE)
    wait_until(lambda: sorted(backend.measures) == keys_of(BEFORE), 60, "12 in force")
    raise_to(services, 24)
    wait_until(lambda: "records_moved" in mitigator.output(), 60, "the takeover")
    services.tell("unban", *BEFORE)
    wait_until(lambda: not backend.measures, 60, "none in force")
    assert max(places(services, "mitigation").values()) == 2
    mitigator.kill()
    again = services.start("mitigator", fault=LOOK_OFTEN.format(settled=0.0))
    assert "mitigations=0" in again.output()
    assert enforcers.start().measures == {}
    assert not backend.measures
