"""The watchdog withdraws expired routes: a real ExaBGP with a real BIRD."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.bird import Bird, running_bird
from support.exabgp import Exabgp
from support.process import wait_until

from consumers.enforcers import snapshot
from consumers.enforcers.backend import DesiredMeasure
from consumers.enforcers.exabgp.backend import ExabgpBackend
from consumers.enforcers.exabgp.watchdog import Watchdog
from consumers.enforcers.snapshot import Lease, Snapshot
from consumers.mitigation import clock
from consumers.mitigation.measure import BLACKHOLE, FLOWSPEC, Measure
from fnm_bus.event import FlowMatch, FlowThen

GRACE = 1.0
HOST = Measure(kind=BLACKHOLE, prefix="198.51.100.1/32", communities=("64500:1",))
OTHER = Measure(kind=BLACKHOLE, prefix="2001:db8::1/128")
RULE = Measure(
    kind=FLOWSPEC,
    flow=FlowMatch(destination_prefix="198.51.100.1/32", protocols=("udp",)),
    then=FlowThen(action="rate-limit", rate=125_000),
)
NETS = {
    HOST.key: "198.51.100.1/32",
    OTHER.key: "2001:db8::1/128",
    RULE.key: "flow4 { dst 198.51.100.1/32; proto 17; }",
}


@pytest.fixture(scope="module")
def bird() -> Iterator[Bird]:
    with running_bird() as bird:
        yield bird


@pytest.fixture
def exabgp(bird: Bird) -> Iterator[Exabgp]:
    """An ExaBGP with a session; its enforcer has written an empty snapshot."""
    with TemporaryDirectory(prefix="fnm-") as root:
        exabgp = Exabgp(Path(root), bird, grace=GRACE)
        write_snapshot(exabgp)
        exabgp.start()
        try:
            bird.wait_up()
            yield exabgp
        finally:
            exabgp.close()


@pytest.fixture
def backend(exabgp: Exabgp) -> ExabgpBackend:
    """The enforcer's backend, after a first request."""
    backend = exabgp.connect()
    backend.active()
    return backend


def write_snapshot(exabgp: Exabgp, **seconds_left: float) -> None:
    """Write the snapshot; keywords: host, other or rule, and seconds left."""
    leases = {
        measure.key: Lease(measure, clock.now() + seconds_left[name])
        for name, measure in (("host", HOST), ("other", OTHER), ("rule", RULE))
        if name in seconds_left
    }
    snapshot.save(exabgp.settings.snapshot, Snapshot(leases))


def announce(backend: ExabgpBackend, bird: Bird, *measures: Measure) -> None:
    backend.announce([DesiredMeasure(measure, 300.0) for measure in measures])
    bird.wait_routes(*(NETS[measure.key] for measure in measures))


def stop_enforcer(exabgp: Exabgp) -> None:
    """Stop the enforcer's process by SIGSTOP, which ExaBGP does not notice."""
    os.kill(exabgp.enforcer, signal.SIGSTOP)


def test_expired_routes_are_withdrawn_while_enforcer_is_stopped(
    exabgp: Exabgp, backend: ExabgpBackend, bird: Bird
) -> None:
    write_snapshot(exabgp, host=4.0, rule=4.0, other=300.0)
    announce(backend, bird, HOST, RULE, OTHER)
    stop_enforcer(exabgp)
    ended = clock.now() + 4.0
    bird.wait_routes(NETS[OTHER.key], seconds=30)
    assert clock.now() >= ended - 0.1
    output = exabgp.output()
    assert f'mitigation={HOST.key} reason="its lease ended' in output
    assert f'mitigation={json.dumps(RULE.key)} reason="its lease ended' in output
    assert OTHER.key not in output


def test_route_without_lease_is_withdrawn(
    exabgp: Exabgp, backend: ExabgpBackend, bird: Bird
) -> None:
    write_snapshot(exabgp, other=300.0)
    announce(backend, bird, HOST, OTHER)
    bird.wait_routes(NETS[OTHER.key], seconds=30)
    assert f'mitigation={HOST.key} reason="no lease' in exabgp.output()


def test_last_known_ends_count_without_snapshot(
    exabgp: Exabgp, backend: ExabgpBackend, bird: Bird
) -> None:
    os.kill(exabgp.watchdog, signal.SIGSTOP)  # here the test is the watchdog
    watchdog = Watchdog(backend, exabgp.settings)
    write_snapshot(exabgp, host=0.5, other=300.0)
    announce(backend, bird, HOST, OTHER)
    watchdog.run_once()
    exabgp.settings.snapshot.unlink()
    watchdog.run_once()
    assert bird.count() == 2
    wait_until(lambda: (watchdog.run_once(), bird.count())[1] == 1, 10, "one route")
    bird.wait_routes(NETS[OTHER.key])
    exabgp.settings.snapshot.write_text("{")
    watchdog.run_once()
    assert bird.count() == 1


def test_killed_watchdog_restarts_and_continues(
    exabgp: Exabgp, backend: ExabgpBackend, bird: Bird
) -> None:
    write_snapshot(exabgp, host=5.0, other=300.0)
    announce(backend, bird, HOST, OTHER)
    stop_enforcer(exabgp)
    killed = exabgp.watchdog
    os.kill(killed, signal.SIGKILL)
    bird.wait_routes(NETS[OTHER.key], seconds=30)
    assert exabgp.watchdog != killed


def test_renewed_lease_keeps_its_route(
    exabgp: Exabgp, backend: ExabgpBackend, bird: Bird
) -> None:
    write_snapshot(exabgp, host=3.0, other=3.0)
    announce(backend, bird, HOST, OTHER)
    write_snapshot(exabgp, host=3.0, other=300.0)
    bird.wait_routes(NETS[OTHER.key], seconds=30)
    assert OTHER.key not in exabgp.output()


def test_both_processes_list_routes_concurrently(
    backend: ExabgpBackend, exabgp: Exabgp, bird: Bird
) -> None:
    # The watchdog lists continuously; each process gets all of its own answers.
    write_snapshot(exabgp, host=300.0)
    announce(backend, bird, HOST)
    for _ in range(500):
        assert [measure.key for measure in backend.active()] == [HOST.key]
