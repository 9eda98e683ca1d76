"""Dead-man's switch: what happens when something dies, hangs, or is cut off.

Each test stands for a cell of the table in docs/mitigation.md. Before the fault one
mitigation stands for long and one for a few seconds. During the fault the short one
has to end in time, and the long one must not be withdrawn by mistake. After it wanted
and actual are equal within 5 s.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from time import monotonic

import pytest
from services.bird import Bird
from services.cable import Cable
from services.crew import Crew
from services.kafka import Cluster
from services.plant import Plant
from services.process import Server, free_port, wait_until

pytestmark = pytest.mark.kafka

LONG = "203.0.113.1/32"
SHORT = "203.0.113.2/32"
NEW = "203.0.113.3/32"
LEASE = 6.0
"""Seconds of the short mitigation."""
GRACE = 1.0
"""Seconds after which the watchdog acts."""
POLICY = f"""
[own]
networks = ["203.0.113.0/24"]
[guardrails]
share = 1.0
[[rule]]
name = "short"
match = {{ prefix = "{SHORT}" }}
then = {{ outcome = "blackhole", lease = "{LEASE:.0f}s" }}
[[rule]]
name = "long"
then = {{ outcome = "blackhole", lease = "120s" }}
"""
HOLD = 9.0
"""BIRD's hold time."""
ENFORCER = 2.0
"""The bound of an enforcer that lives."""
WATCHDOG = GRACE + 8.0
"""The bound when only the watchdog is left: it lists routes every 5 s."""
RECOVERY = 5.0
SLACK = 3.0
"""For a machine that is busy with other tests."""


class Town:
    """Everything from the topics to a neighbor's table."""

    def __init__(self, root: Path, kafka: Cluster, front: Cable) -> None:
        self.root = root
        self.kafka = kafka
        self.front = front
        plant = Plant(root, f"127.0.0.1:{front.port}")
        assert plant.run("topics", "create").returncode == 0
        self.bird = Bird(root)
        self.bird.open()
        self.bgp = Cable((self.bird.address, self.bird.port), self.bird.address)
        self.crew = Crew(
            plant,
            POLICY,
            "[consumers.exabgp]",
            f'snapshot = "{root}/exabgp.json"',
            f"port = {self.bgp.port}",
            f"watchdog_grace = {GRACE}",
            "reconcile_interval = 1",
        )
        self.mitigator: Server = self.crew.start("mitigator")
        self.exabgp: Server = self.crew.start("exabgp")
        self.bird.wait_up()

    def begin(self) -> None:
        """Let a long and a short mitigation stand in the neighbor's table."""
        self.ban(LONG)
        self.bird.wait_routes(LONG)
        self.ban(SHORT)
        self.bird.wait_routes(LONG, SHORT)
        self.at = monotonic()

    def ban(self, prefix: str) -> None:
        self.crew.tell("ban", prefix.removesuffix("/32"))

    def ended(self, bound: float) -> None:
        """Wait until the short one is gone, which it has to be by lease and bound."""
        left = self.at + LEASE + bound + SLACK - monotonic()
        self.crew.until(lambda: SHORT not in self.bird.routes(), left, "its end")

    def stands(self) -> None:
        assert LONG in self.bird.routes(), self.crew.said()

    def same(self, *nets: str, seconds: float = RECOVERY) -> None:
        """Wait until the neighbor's table is as wanted."""

        def equal() -> bool:
            return self.bird.routes().keys() == set(nets)

        self.crew.until(equal, seconds + SLACK, f"only {nets}")

    def child(self, word: str) -> int:
        """Return the process of ExaBGP's that has *word* on its command line."""
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                line = (path / "cmdline").read_bytes().split(b"\0")
                status = (path / "stat").read_text().rpartition(")")[2].split()
                if word.encode() in line and int(status[1]) == self.exabgp.pid:
                    return int(path.name)
        raise AssertionError(f"no process with {word}: {self.crew.said()}")

    def clear(self) -> None:
        """Let everything end, for the next test."""
        hosts = [it.removesuffix("/32") for it in (LONG, SHORT, NEW)]
        self.crew.tell("unban", *hosts)
        self.same(seconds=30)

    def stop(self) -> None:
        with suppress(AssertionError):
            for word in ("--api", "--watchdog"):
                os.kill(self.child(word), signal.SIGCONT)
        self.front.mend()
        self.bgp.mend()
        self.crew.stop()
        self.bird.close()
        self.bgp.close()
        rmtree(self.root, ignore_errors=True)


@pytest.fixture(scope="module")
def own_kafka(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Cluster, Cable]]:
    """A broker of our own behind a cable: it is stopped, killed and cut off."""
    port = free_port()
    cluster = Cluster(tmp_path_factory.mktemp("kafka"), nodes=1, front=port)
    front = Cable(("127.0.0.1", cluster.port(1)), port=port)
    try:
        cluster.open()
        yield cluster, front
    finally:
        front.close()
        cluster.close()


@pytest.fixture(scope="module")
def towns(
    own_kafka: tuple[Cluster, Cable],  # noqa: ARG001 - it has to outlive the towns
) -> Iterator[list[Town]]:
    """The town, built when it is first needed, and anew when a test has ruined it."""
    built: list[Town] = []
    yield built
    for it in built:
        it.stop()


@pytest.fixture
def town(towns: list[Town], own_kafka: tuple[Cluster, Cable]) -> Iterator[Town]:
    if not towns:
        # Not pytest's own directory: a socket's path has to be short.
        towns.append(Town(Path(mkdtemp(prefix="fnm-")), *own_kafka))
    [it] = towns
    it.begin()
    yield it
    try:
        it.clear()
    except (AssertionError, TimeoutError):
        towns.clear()
        it.stop()
        raise


def test_fastnetmon_says_nothing_more(town: Town) -> None:
    town.ended(ENFORCER)
    town.stands()
    town.crew.until(
        lambda: "nobody renewed it" in town.crew.state()[f"blackhole|{SHORT}"].cause
    )


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_mitigator(town: Town, how: str) -> None:
    dies(town.mitigator.pid, how)
    town.ended(ENFORCER)
    town.stands()
    if how == "stopped":
        os.kill(town.mitigator.pid, signal.SIGCONT)
        town.crew.until(lambda: town.crew.wanted() != [])
    else:
        town.mitigator.kill()
        town.mitigator = town.crew.start("mitigator")
    town.ban(NEW)
    town.same(LONG, NEW)


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_enforcer(town: Town, how: str) -> None:
    enforcer = town.child("--api")
    dies(enforcer, how)
    if how == "killed":
        town.ended(ENFORCER)  # ExaBGP starts it again, and its snapshot tells it
    else:
        town.ended(WATCHDOG)
        town.ban(NEW)
        town.stands()
        os.kill(enforcer, signal.SIGCONT)
    town.stands()
    town.ban(NEW)
    town.same(LONG, NEW)


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_watchdog(town: Town, how: str) -> None:
    watchdog = town.child("--watchdog")
    dies(watchdog, how)
    town.ended(ENFORCER)
    town.stands()
    if how == "stopped":
        os.kill(watchdog, signal.SIGCONT)
    town.ban(NEW)
    town.same(LONG, NEW)


def test_exabgp_killed(town: Town) -> None:
    children = [town.child(word) for word in ("--api", "--watchdog")]
    town.exabgp.kill()
    town.same(seconds=1)  # the session is gone, and all routes with it
    town.crew.until(lambda: not any(_runs(it) for it in children), what="orphans")
    town.exabgp = town.crew.start("exabgp")
    town.bird.wait_up()
    town.same(LONG)


def test_exabgp_stopped(town: Town) -> None:
    os.kill(town.exabgp.pid, signal.SIGSTOP)
    town.ended(HOLD)
    town.same(seconds=HOLD)
    os.kill(town.exabgp.pid, signal.SIGCONT)
    town.bird.wait_up()
    town.same(LONG)


def test_neighbor_killed(town: Town) -> None:
    town.bird.close()
    town.bird.start()
    town.bird.wait_up()
    town.same(LONG, seconds=RECOVERY + LEASE)


def test_neighbor_cut_off_shortly(town: Town) -> None:
    town.bgp.cut()
    until = monotonic() + HOLD / 3
    wait_until(lambda: monotonic() > until, 30, "a short outage")
    town.stands()
    town.bgp.mend()
    town.ended(ENFORCER + HOLD / 3)
    town.stands()


def test_neighbor_cut_off(town: Town) -> None:
    town.bgp.cut()
    town.same(seconds=HOLD + LEASE)
    town.bgp.mend()
    town.bird.wait_up()
    town.same(LONG)


@pytest.mark.parametrize("how", ["killed", "stopped", "cut off"])
def test_kafka(town: Town, how: str) -> None:
    mend = kafka_dies(town, how)
    town.ended(ENFORCER)
    town.stands()
    mend()
    town.crew.until(lambda: town.crew.wanted() != [], 60, "Kafka")
    town.ban(NEW)
    town.same(LONG, NEW)


def test_enforcer_that_starts_without_kafka_goes_on_from_its_snapshot(
    town: Town,
) -> None:
    mend = kafka_dies(town, "cut off")
    os.kill(town.child("--api"), signal.SIGKILL)
    town.ended(ENFORCER)
    town.stands()
    mend()
    town.crew.until(lambda: town.crew.wanted() != [], 60, "Kafka")
    town.stands()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def dies(pid: int, how: str) -> None:
    os.kill(pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)


def kafka_dies(town: Town, how: str) -> Callable[[], None]:
    """Let Kafka die; return what brings it back."""
    if how == "killed":
        town.kafka.kill(1)
        return town.kafka.revive
    if how == "stopped":
        pid = town.kafka.pid(1)
        os.kill(pid, signal.SIGSTOP)
        return lambda: os.kill(pid, signal.SIGCONT)
    town.front.cut()
    return town.front.mend
