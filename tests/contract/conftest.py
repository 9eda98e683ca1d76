"""The systems whose backends pass the contract.

To add one, write a fixture `NAME_system` that yields a System, and add NAME to
SYSTEMS.
"""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from uuid import uuid4

import pytest
from msgspec.structs import replace
from support.bird import running_bird
from support.exabgp import Exabgp
from support.netns import Network

from consumers.enforcers.backend import Backend, MemoryBackend
from consumers.enforcers.nftables.backend import NftablesBackend
from consumers.mitigation.measure import BLACKHOLE, FIREWALL, FLOWSPEC, Measure
from consumers.settings import NftablesSettings
from fnm_bus.event import FlowMatch, FlowThen

SYSTEMS = ("memory", "nftables", "exabgp")
_V4, _V6 = "203.0.113.1/32", "2001:db8::1/128"


class System(NamedTuple):
    """One system, empty at the beginning of each test.

    Attributes:
        open: creates a backend, like a program at its start.
        measures: 1,000 supported measures; the first ones are of all kinds.
        impossible: unsupported measures.
        lives_on: whether measures stay active when the backend is closed.
    """

    open: Callable[[], Backend]
    measures: Sequence[Measure]
    impossible: Sequence[Measure]
    lives_on: bool


@pytest.fixture(params=SYSTEMS)
def system(request: pytest.FixtureRequest) -> System:
    system: System = request.getfixturevalue(f"{request.param}_system")
    return system


@pytest.fixture
def open_backend(system: System) -> Iterator[Callable[[], Backend]]:
    made: list[Backend] = []

    def make() -> Backend:
        made.append(system.open())
        return made[-1]

    yield make
    for backend in made:
        backend.close()


@pytest.fixture
def backend(open_backend: Callable[[], Backend]) -> Backend:
    """A backend of a system without active measures."""
    return open_backend()


@pytest.fixture
def measures(system: System) -> Sequence[Measure]:
    return system.measures


@pytest.fixture
def impossible(system: System) -> Sequence[Measure]:
    return system.impossible


@pytest.fixture
def lives_on(system: System) -> bool:
    return system.lives_on


@pytest.fixture
def memory_system() -> System:
    """A backend in memory, which supports every kind."""
    return System(MemoryBackend, _hosts(FIREWALL), (), lives_on=False)


@pytest.fixture
def nftables_system(network: Network) -> Iterator[System]:
    """An nftables table of the test's own."""
    settings = NftablesSettings(table=f"t{uuid4().hex}", command=network.nft)
    networks = ("10.0.0.0/8", "10.1.0.0/16", "2001:db8::1/128", "2001:db8::/32")
    firsts = [Measure(kind=FIREWALL, prefix=network) for network in networks]
    yield System(
        lambda: NftablesBackend(settings),
        [*firsts, *_hosts(FIREWALL)][:1000],
        [
            Measure(kind=BLACKHOLE, prefix="192.0.2.1/32"),
            Measure(
                kind="flowspec",
                flow=FlowMatch(destination_prefix="192.0.2.1/32"),
                then=FlowThen(action="discard"),
            ),
            Measure(kind=FIREWALL),
            Measure(kind=FIREWALL, prefix="192.0.2.1"),
            Measure(kind=FIREWALL, prefix="192.0.2.1/24"),
        ],
        lives_on=True,
    )
    subprocess.run(
        [*network.nft.split(), "delete", "table", "inet", settings.table],
        check=False,  # a test may have made none
        capture_output=True,
    )


@pytest.fixture(scope="session")
def speaker() -> Iterator[Exabgp]:
    """An ExaBGP with a BIRD as its neighbor; its watchdog waits long."""
    with running_bird() as bird, TemporaryDirectory(prefix="fnm-") as root:
        made = Exabgp(Path(root), bird, grace=3600.0)
        try:
            made.start()
            bird.wait_up()
            yield made
        finally:
            made.close()


@pytest.fixture
def exabgp_system(speaker: Exabgp) -> Iterator[System]:
    """An ExaBGP that has a session and announces nothing."""
    v4, v6 = (FlowMatch(destination_prefix=prefix) for prefix in (_V4, _V6))
    thens = (
        FlowThen(action="rate-limit", rate=125_000),
        FlowThen(action="discard"),
        FlowThen(action="redirect", redirect_as=65500, redirect_value=7),
    )
    firsts = [
        Measure(kind=BLACKHOLE, prefix=_V4, communities=("64500:1", "64500:1:2")),
        Measure(kind=BLACKHOLE, prefix=_V6),
        Measure(
            kind=FLOWSPEC,
            flow=replace(v4, protocols=("udp",), source_ports=(53, 8008)),
            then=thens[0],
        ),
        Measure(kind=FLOWSPEC, flow=replace(v6, tcp_flags=("ack|syn",)), then=thens[1]),
        Measure(kind=FLOWSPEC, flow=v4, then=thens[2], communities=("64500:1",)),
    ]
    yield System(
        speaker.connect,
        [*firsts, *_hosts(BLACKHOLE)][:1000],
        [
            Measure(kind=FIREWALL, prefix=_V4),
            Measure(kind=BLACKHOLE),
            Measure(kind=BLACKHOLE, prefix=_V4, communities=("none",)),
            Measure(kind=FLOWSPEC, flow=v4),
            Measure(kind=FLOWSPEC, flow=FlowMatch(), then=thens[1]),
            Measure(
                kind=FLOWSPEC,
                flow=replace(v6, fragmentation_flags=("dont-fragment",)),
                then=thens[1],
            ),
        ],
        lives_on=True,
    )
    backend = speaker.connect()
    backend.withdraw(list(backend.active()))
    speaker.disconnect()


def _hosts(kind: str) -> Sequence[Measure]:
    return [
        Measure(kind=kind, prefix=f"198.51.{100 + number // 250}.{number % 250}/32")
        for number in range(1000)
    ]
