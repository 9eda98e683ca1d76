"""`fnm-bus-consumer exabgp` from the topics to a neighbor, without a mitigator."""

import os
import signal
from collections.abc import Iterator

import pytest
from support.bird import Bird, running_bird
from support.consumer_processes import ConsumerProcesses, policy
from support.process import child_ids
from support.relay_processes import RelayProcesses

from fnm_bus.event import Mitigation

HOST, OTHER = "203.0.113.7/32", "203.0.113.8/32"


@pytest.fixture
def bird() -> Iterator[Bird]:
    with running_bird() as bird:
        yield bird


@pytest.fixture
def services(kafka_relays: RelayProcesses, bird: Bird) -> Iterator[ConsumerProcesses]:
    processes = ConsumerProcesses(
        kafka_relays,
        policy(),
        "[consumers.exabgp]",
        f'snapshot = "{kafka_relays.root}/exabgp.json"',
        f'neighbor = "{bird.address}"',
        f"port = {bird.port}",
        "watchdog_grace = 1",
        "reconcile_interval = 1",
    )
    yield processes
    processes.stop()


def want(services: ConsumerProcesses, prefix: str, lease: float = 300.0) -> None:
    key = f"blackhole|{prefix}"
    record = Mitigation(
        key=key,
        kind="blackhole",
        state="wanted",
        prefix=prefix,
        lease_ms=round(lease * 1000),
    )
    services.put("mitigation", key.encode(), record)
    services.flush()


def test_pause_reaches_neighbor_and_outlasts_killed_enforcer(
    services: ConsumerProcesses, bird: Bird
) -> None:
    server = services.start("exabgp")
    bird.wait_up()
    want(services, HOST)
    want(services, "198.18.0.1/32")  # not in own_networks
    bird.wait_routes(HOST)
    services.order("pause")
    bird.wait_routes()
    os.kill(child_ids(server.pid, "--api")[0], signal.SIGKILL)
    want(services, OTHER)
    services.until(
        lambda: len([a for a in services.audits("started") if "live" in a.text]) == 2,
        what="another enforcer",
    )
    # The second refusal shows that the topic was read to its end.
    services.until(lambda: _refused(services) == 2, what="the second refusal")
    assert bird.count() == 0
    services.put(
        "mitigation",
        b"pause",
        Mitigation(key="pause", kind="pause", state="ended", command_offset=1),
    )
    services.flush()
    bird.wait_routes(HOST, OTHER)


def test_neighbor_loses_route_at_end_of_lease(
    services: ConsumerProcesses, bird: Bird
) -> None:
    services.start("exabgp")
    bird.wait_up()
    want(services, HOST, lease=4)
    want(services, OTHER)
    bird.wait_routes(HOST, OTHER)
    bird.wait_routes(OTHER)


def _refused(services: ConsumerProcesses) -> int:
    return sum(audit.code == "own_networks" for audit in services.audits("failed"))
