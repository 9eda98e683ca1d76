"""The watchdog ends what the enforcer leaves standing: a real ExaBGP, a real BIRD."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.bird import Bird
from support.exabgp import Exabgp
from support.fetch import Unavailable
from support.process import wait_until

from consumers.enforcers import snapshot
from consumers.enforcers.backend import DesiredMeasure
from consumers.enforcers.exabgp.backend import ExabgpBackend
from consumers.enforcers.exabgp.watchdog import Watchdog
from consumers.enforcers.snapshot import Lease, Snapshot
from consumers.mitigation import clock
from consumers.mitigation.measure import BLACKHOLE, FLOWSPEC, Measure
from fnm_bus.event import FlowMatch, FlowThen

CI = os.environ.get("CI", "").lower() in {"1", "true"}
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
    """A BIRD, started once."""
    with TemporaryDirectory(prefix="fnm-") as root:
        it = Bird(Path(root))
        try:
            it.open()
        except Unavailable as exc:
            (pytest.fail if CI else pytest.skip)(str(exc))
        else:
            yield it
        finally:
            it.close()


@pytest.fixture
def exabgp(bird: Bird) -> Iterator[Exabgp]:
    """An ExaBGP with a session; its enforcer has written an empty snapshot."""
    with TemporaryDirectory(prefix="fnm-") as root:
        it = Exabgp(Path(root), bird, grace=GRACE)
        write(it)
        it.start()
        try:
            bird.wait_up()
            yield it
        finally:
            it.close()


@pytest.fixture
def backend(exabgp: Exabgp) -> ExabgpBackend:
    """The enforcer's side, which has asked once and so knows of the session."""
    it = exabgp.connect()
    it.active()
    return it


def write(exabgp: Exabgp, **left: float) -> None:
    """Write the snapshot; names are those of measures here, values seconds."""
    leases = {
        it.key: Lease(it, clock.now() + left[name])
        for name, it in (("host", HOST), ("other", OTHER), ("rule", RULE))
        if name in left
    }
    snapshot.save(exabgp.settings.snapshot, Snapshot(leases))


def announce(backend: ExabgpBackend, bird: Bird, *measures: Measure) -> None:
    backend.announce([DesiredMeasure(it, 300.0) for it in measures])
    bird.wait_routes(*(NETS[it.key] for it in measures))


def stop(exabgp: Exabgp) -> None:
    """Stop the enforcer's process as a debugger would: ExaBGP sees nothing of it."""
    os.kill(exabgp.enforcer, signal.SIGSTOP)


def test_what_ended_is_withdrawn_while_the_enforcer_is_stopped(
    exabgp: Exabgp, backend: ExabgpBackend, bird: Bird
) -> None:
    write(exabgp, host=4.0, rule=4.0, other=300.0)
    announce(backend, bird, HOST, RULE, OTHER)
    stop(exabgp)
    ended = clock.now() + 4.0
    bird.wait_routes(NETS[OTHER.key], seconds=30)
    assert clock.now() >= ended - 0.1
    output = exabgp.output()
    assert f"withdrawing {HOST.key}: its lease ended" in output
    assert f"withdrawing {RULE.key}: its lease ended" in output
    assert OTHER.key not in output


def test_what_has_no_lease_is_withdrawn(
    exabgp: Exabgp, backend: ExabgpBackend, bird: Bird
) -> None:
    write(exabgp, other=300.0)
    announce(backend, bird, HOST, OTHER)
    bird.wait_routes(NETS[OTHER.key], seconds=30)
    assert f"withdrawing {HOST.key}: no lease" in exabgp.output()


def test_without_the_snapshot_the_last_known_ends_hold(
    exabgp: Exabgp, backend: ExabgpBackend, bird: Bird
) -> None:
    os.kill(exabgp.watchdog, signal.SIGSTOP)  # here the test is the watchdog
    watchdog = Watchdog(backend, exabgp.settings)
    write(exabgp, host=0.5, other=300.0)
    announce(backend, bird, HOST, OTHER)
    watchdog.run_once()
    exabgp.settings.snapshot.unlink()
    watchdog.run_once()
    assert bird.count() == 2
    wait_until(
        lambda: (watchdog.run_once(), bird.count())[1] == 1, 10, "one route less"
    )
    bird.wait_routes(NETS[OTHER.key])
    exabgp.settings.snapshot.write_text("{")
    watchdog.run_once()
    assert bird.count() == 1


def test_a_watchdog_that_was_killed_goes_on(
    exabgp: Exabgp, backend: ExabgpBackend, bird: Bird
) -> None:
    write(exabgp, host=5.0, other=300.0)
    announce(backend, bird, HOST, OTHER)
    stop(exabgp)
    before = exabgp.watchdog
    os.kill(before, signal.SIGKILL)
    bird.wait_routes(NETS[OTHER.key], seconds=30)
    assert exabgp.watchdog != before


def test_a_lease_that_is_renewed_keeps_its_route(
    exabgp: Exabgp, backend: ExabgpBackend, bird: Bird
) -> None:
    write(exabgp, host=3.0, other=3.0)
    announce(backend, bird, HOST, OTHER)
    write(exabgp, host=3.0, other=300.0)
    bird.wait_routes(NETS[OTHER.key], seconds=30)
    assert OTHER.key not in exabgp.output()


def test_both_processes_list_at_the_same_time(
    backend: ExabgpBackend, exabgp: Exabgp, bird: Bird
) -> None:
    # The watchdog lists all the while; each gets its own answers, and all of them.
    write(exabgp, host=300.0)
    announce(backend, bird, HOST)
    for _ in range(500):
        assert [it.key for it in backend.active()] == [HOST.key]
