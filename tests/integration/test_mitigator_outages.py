"""The mitigator without Kafka, without the right to a topic, without a registry.

It stays alive, reports that it is unhealthy, commits nothing, and goes on by itself.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from support.bgp_lab import CutKafka
from support.consumer_processes import ConsumerProcesses, policy
from support.relay_processes import RelayProcesses, silent
from support.process import Server, free_port

from fnm_bus.avro import schema
from fnm_bus.event import AttackDetails, HostEvent, Receipt

pytestmark = pytest.mark.kafka

NOTICED = 60.0
"""Seconds until a program notices that nobody answers: requests time out first."""


@pytest.fixture
def crew(
    plant_behind_cables: RelayProcesses, cut_kafka: CutKafka
) -> Iterator[ConsumerProcesses]:
    made = ConsumerProcesses(
        plant_behind_cables, policy(), "[consumers]", "metrics_port = 0"
    )
    yield made
    cut_kafka.mend()
    made.stop()


def start(crew: ConsumerProcesses, kafka: CutKafka) -> Server:
    config = kafka.config(crew.plant, "mitigator")
    return crew.start("mitigator", FNM_BUS_CONFIG=config)


def problem(crew: ConsumerProcesses, mitigator: Server) -> str:
    """Return what is wrong; "" if it is healthy."""
    status, facts = crew.health(mitigator)
    assert (status == 200) == (facts["problem"] == "")
    return str(facts["problem"])


@pytest.mark.parametrize("how", ["killed", "stopped", "cut off"])
def test_kafka_is_away(crew: ConsumerProcesses, cut_kafka: CutKafka, how: str) -> None:
    mitigator = start(crew, cut_kafka)
    crew.tell("ban", "203.0.113.7")
    crew.until(lambda: len(crew.wanted()) == 1)
    repair = cut_kafka.fail(how)
    try:
        crew.until(lambda: problem(crew, mitigator) != "", NOTICED, "unhealthy")
    finally:
        repair()
    assert mitigator.alive
    crew.tell("ban", "203.0.113.8")
    crew.until(lambda: len(crew.wanted()) == 2, NOTICED)
    crew.until(lambda: problem(crew, mitigator) == "", NOTICED, "healthy")
    assert len(crew.audits("wanted")) == 2


@pytest.mark.parametrize(
    ("kind", "operation"),
    [
        ("host", AclOperation.READ),
        ("host", AclOperation.DESCRIBE),
        ("audit", AclOperation.WRITE),
        ("mitigation", AclOperation.WRITE),
    ],
)
def test_a_right_is_missing(
    crew: ConsumerProcesses, cut_kafka: CutKafka, kind: str, operation: AclOperation
) -> None:
    mitigator = start(crew, cut_kafka)
    crew.tell("ban", "203.0.113.7")
    crew.until(lambda: len(crew.wanted()) == 1)
    with denied(crew.plant, kind, operation):
        if operation == AclOperation.WRITE:
            crew.tell("ban", "203.0.113.8")
        crew.until(lambda: problem(crew, mitigator) != "", NOTICED, "unhealthy")
        crew.until(lambda: "authorization" in problem(crew, mitigator).lower())
        assert mitigator.alive
    crew.tell("ban", "203.0.113.8", "203.0.113.9")
    crew.until(lambda: len(crew.wanted()) == 3, NOTICED)
    crew.until(lambda: problem(crew, mitigator) == "", NOTICED, "healthy")
    assert crew.records("deadletter") == []


@contextmanager
def denied(plant: RelayProcesses, kind: str, operation: AclOperation) -> Iterator[None]:
    """Forbid everybody an operation on a topic."""
    admin = AdminClient({"bootstrap.servers": plant.bootstrap})
    place = (ResourceType.TOPIC, plant.topic(kind), ResourcePatternType.LITERAL)
    rest = ("User:*", "*", operation, AclPermissionType.DENY)
    [done] = admin.create_acls([AclBinding(*place, *rest)]).values()
    done.result(30)
    try:
        yield
    finally:
        [done] = admin.delete_acls([AclBindingFilter(*place, *rest)]).values()
        done.result(30)


@pytest.mark.parametrize("how", ["refuses connections", "never answers"])
def test_the_registry_is_away(
    crew: ConsumerProcesses, cut_kafka: CutKafka, how: str
) -> None:
    port = free_port()
    crew.plant.config.write_text(
        f'{crew.plant.config.read_text()}\n[registry]\nurl = "http://127.0.0.1:{port}"\n'
        f'pins = "{crew.plant.root}/none.json"\ntimeout = 2\n'
    )
    mitigator = start(crew, cut_kafka)
    event = HostEvent(
        receipt=Receipt(event_id="framed", sensor="fnm1", sequence=1),
        action="unban",
        ip="203.0.113.7",
        attack_details=AttackDetails(attack_uuid="attack-203.0.113.7"),
    )
    crew.tell("ban", "203.0.113.7")
    crew.until(lambda: len(crew.wanted()) == 1)

    def held() -> None:
        crew.put_framed("host", b"203.0.113.7", event, 7)
        crew.until(lambda: problem(crew, mitigator) != "", NOTICED, "unhealthy")
        asked = monotonic()
        status, _out, said = crew.run("mitigations", "pause", "--why", "a test")
        assert status == 0, said
        assert monotonic() - asked < 15, "a command waited for the registry"
        assert len(crew.wanted()) == 2  # the pause is one
        assert crew.records("deadletter") == []

    if how == "never answers":
        with silent(port):
            held()
    else:
        held()
    with registry(port):
        crew.until(
            lambda: crew.state()["blackhole|203.0.113.7/32"].state == "ended", NOTICED
        )
        crew.until(lambda: problem(crew, mitigator) == "", NOTICED, "healthy")
    assert mitigator.alive


@contextmanager
def registry(port: int) -> Iterator[None]:
    """Answer every request for a schema with the one of host events."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = schema.text("fastnetmon.HostEvent")
            body = json.dumps({"schema": text, "schemaType": "AVRO"}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", port), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
