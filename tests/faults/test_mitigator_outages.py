"""The mitigator without Kafka, without the right to a topic, without a registry.

It stays alive, reports that it is unhealthy, commits nothing, and then continues.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic

import pytest
from confluent_kafka.admin import AclOperation
from support.bgp_lab import CutKafka
from support.consumer_processes import ConsumerProcesses, policy
from support.kafka import denied
from support.process import Server, free_port, serving
from support.relay_processes import RelayProcesses, silent

from fnm_bus.avro import schema
from fnm_bus.event import AttackDetails, HostEvent, Receipt

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

NOTICED = 120.0
"""Seconds until a program notices that nobody answers: requests time out first, after
as much as a minute, and later on a busy machine."""
LATER = 1_000_000
"""A sequence after all others."""


@pytest.fixture
def services(
    relays_behind_proxies: RelayProcesses, cut_kafka: CutKafka
) -> Iterator[ConsumerProcesses]:
    made = ConsumerProcesses(
        relays_behind_proxies, policy(), "[consumers]", "metrics_port = 0"
    )
    yield made
    cut_kafka.mend()
    made.stop()


def start(services: ConsumerProcesses, kafka: CutKafka) -> Server:
    config = kafka.config(services.relays, "mitigator")
    return services.start("mitigator", FNM_BUS_CONFIG=config)


def problem(services: ConsumerProcesses, mitigator: Server) -> str:
    """Return the mitigator's problem; "" if it is healthy."""
    status, facts = services.health(mitigator)
    assert (status == 200) == (facts["problem"] == "")
    return str(facts["problem"])


@pytest.mark.parametrize("how", ["killed", "stopped", "cut off"])
def test_the_mitigator_continues_after_an_outage_of_kafka(
    services: ConsumerProcesses, cut_kafka: CutKafka, how: str
) -> None:
    mitigator = start(services, cut_kafka)
    services.tell("ban", "203.0.113.7")
    services.until(lambda: len(services.wanted()) == 1)
    repair = cut_kafka.fail(how)
    try:
        services.until(lambda: problem(services, mitigator) != "", NOTICED, "unhealthy")
    finally:
        repair()
    assert mitigator.alive
    services.tell("ban", "203.0.113.8")
    services.until(lambda: len(services.wanted()) == 2, NOTICED)
    services.until(lambda: problem(services, mitigator) == "", NOTICED, "healthy")
    assert len(services.audits("wanted")) == 2


@pytest.mark.parametrize(
    ("kind", "operation"),
    [
        ("host", AclOperation.READ),
        ("host", AclOperation.DESCRIBE),
        ("audit", AclOperation.WRITE),
        ("mitigation", AclOperation.WRITE),
    ],
)
def test_a_missing_right_makes_the_mitigator_unhealthy(
    services: ConsumerProcesses, cut_kafka: CutKafka, kind: str, operation: AclOperation
) -> None:
    mitigator = start(services, cut_kafka)
    services.tell("ban", "203.0.113.7")
    services.until(lambda: len(services.wanted()) == 1)
    relays = services.relays
    with denied(relays.bootstrap, relays.topic(kind), operation):
        if operation == AclOperation.WRITE:
            services.tell("ban", "203.0.113.8")
        services.until(lambda: problem(services, mitigator) != "", NOTICED, "unhealthy")
        services.until(lambda: "authorization" in problem(services, mitigator).lower())
        assert mitigator.alive
    services.tell("ban", "203.0.113.8", "203.0.113.9")
    services.until(lambda: len(services.wanted()) == 3, NOTICED)
    services.until(lambda: problem(services, mitigator) == "", NOTICED, "healthy")
    assert services.records("deadletter") == []


@pytest.mark.parametrize("how", ["refuses connections", "never answers"])
def test_the_mitigator_waits_for_an_unreachable_registry(
    services: ConsumerProcesses, cut_kafka: CutKafka, how: str
) -> None:
    port = free_port()
    services.relays.config.write_text(
        f'{services.relays.config.read_text()}\n[registry]\nurl = "http://127.0.0.1:{port}"\n'
        f'schema_ids_file = "{services.relays.root}/none.json"\ntimeout = 2\n'
    )
    mitigator = start(services, cut_kafka)
    event = HostEvent(
        receipt=Receipt(event_id="framed", sensor="fnm1", sequence=LATER),
        action="unban",
        ip="203.0.113.7",
        attack_details=AttackDetails(attack_uuid="attack-203.0.113.7"),
    )
    services.tell("ban", "203.0.113.7")
    services.until(lambda: len(services.wanted()) == 1)

    def held() -> None:
        services.put_framed("host", b"203.0.113.7", event, 7)
        services.until(lambda: problem(services, mitigator) != "", NOTICED, "unhealthy")
        asked = monotonic()
        services.succeed("mitigations", "pause", "--comment", "a test")
        assert monotonic() - asked < 15, "a command waited for the registry"
        assert len(services.wanted()) == 2  # the pause is one
        assert services.records("deadletter") == []

    if how == "never answers":
        with silent(port):
            held()
    else:
        held()
    with registry(port):
        services.until(
            lambda: services.state()["blackhole|203.0.113.7/32"].state == "ended"
        )
        services.until(lambda: problem(services, mitigator) == "", NOTICED, "healthy")
    [ended] = services.audits("ended")
    assert ended.code == "unban"
    assert mitigator.alive


@contextmanager
def registry(port: int) -> Iterator[None]:
    """Answer every request for a schema with the schema of host events."""

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

    with serving(ThreadingHTTPServer(("127.0.0.1", port), Answer)):
        yield
