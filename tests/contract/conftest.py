"""The systems whose backends pass the contract.

To add one, write a fixture `NAME_system` that yields a System, and put NAME into
SYSTEMS. Each test runs for it.
"""

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from uuid import uuid4

import pytest
from msgspec.structs import replace
from support.bird import Bird
from support.exabgp import Exabgp
from support.fetch import Unavailable
from support.netns import Network

from consumers.enforcers.backend import Backend, MemoryBackend
from consumers.enforcers.nftables.backend import NftablesBackend
from consumers.mitigation.measure import BLACKHOLE, FIREWALL, FLOWSPEC, Measure
from consumers.settings import NftablesSettings
from fnm_bus.event import FlowMatch, FlowThen

SYSTEMS = ("memory", "nftables", "exabgp")
_V4, _V6 = "203.0.113.1/32", "2001:db8::1/128"
CI = os.environ.get("CI", "").lower() in {"1", "true"}


class System(NamedTuple):
    """One system without measures at the start of each test.

    Attributes:
        open: creates a backend, like a program that starts.
        measures: 1,000 supported measures; the first ones are varied.
        unsupported: measures that it never supports.
        outlives_backend: whether measures stay active after the backend is closed.
    """

    open: Callable[[], Backend]
    measures: Sequence[Measure]
    unsupported: Sequence[Measure]
    outlives_backend: bool


@pytest.fixture(params=SYSTEMS)
def system(request: pytest.FixtureRequest) -> System:
    """One of the systems."""
    system: System = request.getfixturevalue(f"{request.param}_system")
    return system


@pytest.fixture
def open_backend(system: System) -> Iterator[Callable[[], Backend]]:
    """Return a function that creates a backend, like a program that starts."""
    backends: list[Backend] = []

    def create() -> Backend:
        backends.append(system.open())
        return backends[-1]

    yield create
    for backend in backends:
        backend.close()


@pytest.fixture
def backend(open_backend: Callable[[], Backend]) -> Backend:
    """A backend of a system without measures."""
    return open_backend()


@pytest.fixture
def measures(system: System) -> Sequence[Measure]:
    """1,000 measures that the system supports."""
    return system.measures


@pytest.fixture
def unsupported(system: System) -> Sequence[Measure]:
    """Measures that the system never supports."""
    return system.unsupported


@pytest.fixture
def outlives_backend(system: System) -> bool:
    """Whether measures stay active after the backend is closed."""
    return system.outlives_backend


@pytest.fixture
def memory_system() -> System:
    """Memory, which refuses no kind."""
    return System(MemoryBackend, _hosts(FIREWALL), (), outlives_backend=False)


@pytest.fixture
def nftables_system(network: Network) -> Iterator[System]:
    """A new table of nftables."""
    settings = NftablesSettings(table=f"t{uuid4().hex}", command=network.nft)
    networks = ("10.0.0.0/8", "10.1.0.0/16", "2001:db8::1/128", "2001:db8::/32")
    varied = [Measure(kind=FIREWALL, prefix=prefix) for prefix in networks]
    yield System(
        lambda: NftablesBackend(settings),
        [*varied, *_hosts(FIREWALL)][:1000],
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
        outlives_backend=True,
    )
    subprocess.run(
        [*network.nft.split(), "delete", "table", "inet", settings.table],
        check=False,  # a test may not have created it
        capture_output=True,
    )


@pytest.fixture(scope="session")
def speaker() -> Iterator[Exabgp]:
    """An ExaBGP with a BIRD as its neighbor; its watchdog has a long grace."""
    # pytest's own directory is too long for the path of a socket.
    with TemporaryDirectory(prefix="fnm-") as root:
        bird = Bird(Path(root))
        exabgp = Exabgp(Path(root), bird, grace=3600.0)
        try:
            bird.open()
            exabgp.start()
            bird.wait_up()
        except Unavailable as exc:
            (pytest.fail if CI else pytest.skip)(str(exc))
        else:
            yield exabgp
        finally:
            exabgp.close()
            bird.close()


@pytest.fixture
def exabgp_system(speaker: Exabgp) -> Iterator[System]:
    """An ExaBGP with a session and without routes."""
    v4, v6 = (FlowMatch(destination_prefix=prefix) for prefix in (_V4, _V6))
    thens = (
        FlowThen(action="rate-limit", rate=125_000),
        FlowThen(action="discard"),
        FlowThen(action="redirect", redirect_as=65500, redirect_value=7),
    )
    varied = [
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
        [*varied, *_hosts(BLACKHOLE)][:1000],
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
        outlives_backend=True,
    )
    backend = speaker.connect()
    backend.withdraw(list(backend.active()))
    speaker.disconnect()


def _hosts(kind: str) -> Sequence[Measure]:
    return [
        Measure(kind=kind, prefix=f"198.51.{100 + number // 250}.{number % 250}/32")
        for number in range(1000)
    ]
