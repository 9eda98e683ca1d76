"""Fixtures of tests/integration and tests/faults: relays, consumers, the BGP lab."""

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import pytest

from fnm_bus.kafka.addressing import Topics
from fnm_bus.kafka.topic_admin import TopicAdmin
from fnm_bus.kafka.topics import planned_topics
from support.bgp_lab import BgpLab, CutKafka
from support.consumer_processes import ConsumerProcesses, policy
from support.fetch import Unavailable
from support.installed_hook import BUILDS, InstalledHook, NativeHook, build_native
from support.relay_processes import RelayProcesses


@pytest.fixture
def relays(tmp_path: Path, embedded_broker: str) -> Iterator[RelayProcesses]:
    """Relays and a spool on the embedded broker."""
    relays = RelayProcesses(tmp_path, embedded_broker)
    yield relays
    relays.stop()


@pytest.fixture
def kafka_relays(tmp_path: Path, kafka: str) -> Iterator[RelayProcesses]:
    """Relays and a spool on a real Apache Kafka, with its topics."""
    relays = RelayProcesses(tmp_path, kafka)
    relays.succeed("topics", "create")
    yield relays
    relays.stop()


@pytest.fixture
def services(kafka_relays: RelayProcesses) -> Iterator[ConsumerProcesses]:
    """Consumers on a real Apache Kafka, with a policy that blackholes all hosts."""
    services = ConsumerProcesses(
        kafka_relays, policy(), "[consumers]", "metrics_port = 0"
    )
    yield services
    services.stop()


@pytest.fixture
def make_relays() -> Iterator[Callable[..., RelayProcesses]]:
    """Create relays on a real Kafka with other topics than planned."""
    made: list[RelayProcesses] = []

    def make(
        root: Path, bootstrap: str, replication: int = 1, missing: tuple[str, ...] = ()
    ) -> RelayProcesses:
        relays = RelayProcesses(root, bootstrap)
        made.append(relays)
        kinds = [f.name for f in fields(Topics)]
        names = Topics(**{kind: relays.topic(kind) for kind in kinds})
        missing_topics = {relays.topic(kind) for kind in missing}
        TopicAdmin({"bootstrap.servers": bootstrap}).create(
            [
                spec
                for spec in planned_topics(names, 4, replication)
                if spec.name not in missing_topics
            ]
        )
        return relays

    yield make
    for relays in made:
        relays.stop()


@pytest.fixture
def installed(tmp_path: Path) -> InstalledHook:
    return InstalledHook(tmp_path)


@pytest.fixture(scope="session")
def native_program(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Path]:
    """Compile the native hook, once with each compiler of `BUILDS`."""
    directory = tmp_path_factory.mktemp("native-hook")

    def build(name: str) -> Path:
        try:
            program = directory / name
            return program if program.exists() else build_native(BUILDS[name], program)
        except Unavailable as exc:
            pytest.skip(str(exc))

    return build


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can reach; in memory, where fsync costs nothing."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
    with TemporaryDirectory(dir=memory) as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture(params=("python", "gcc", "musl"))
def hook(
    request: pytest.FixtureRequest,
    place: Path,
    native_program: Callable[[str], Path],
) -> InstalledHook:
    """Each hook as it is installed; indirect parameters name other builds."""
    if request.param == "python":
        return InstalledHook(place)
    return NativeHook(place, native_program(request.param))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount small file systems: `disk("size=400k")`."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        target = tmp_path / f"disk{len(mounted)}"
        target.mkdir()
        argv = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", target]
        done = subprocess.run(argv, check=False, capture_output=True)
        if done.returncode:
            pytest.skip(f"cannot mount a tmpfs: {done.stderr.decode().strip()}")
        mounted.append(target)
        return target

    yield mount
    for target in mounted:
        subprocess.run(["umount", "-l", target], check=True)


@pytest.fixture
def small_disk(disk: Callable[[str], Path]) -> Path:
    return disk("size=400k,nr_inodes=60")


@pytest.fixture
def shared() -> Iterator[InstalledHook]:
    """A spool of user 1234 and group 2345, that every user can reach.

    Not below pytest's own directory: each run of pytest that starts closes that to
    other users, whatever another run does there.
    """
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        installed = InstalledHook(Path(directory))
        for spool in (installed.spool, installed.fallback):
            spool.make(1234, 2345)
        installed.use("/usr/bin/python3")
        yield installed


@pytest.fixture(scope="session")
def cut_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CutKafka]:
    """A broker behind cables, for tests that stop it, kill it, or cut it off."""
    kafka = CutKafka(tmp_path_factory.mktemp("cut"))
    try:
        kafka.cluster.open()
    except Unavailable as exc:
        kafka.close()
        pytest.skip(str(exc))
    yield kafka
    kafka.close()


@pytest.fixture(scope="session")
def labs() -> Iterator[list[BgpLab]]:
    """The lab, built when first needed, and again after a failed test."""
    built: list[BgpLab] = []
    yield built
    for lab in built:
        lab.stop()


@pytest.fixture
def lab(labs: list[BgpLab], cut_kafka: CutKafka) -> Iterator[BgpLab]:
    """The lab with a long and a short mitigation in force."""
    if not labs:
        # Not pytest's own directory: a socket's path has to be short.
        labs.append(BgpLab(Path(mkdtemp(prefix="fnm-")), cut_kafka))
    [built] = labs
    try:
        built.announce_both()
        yield built
        built.clear()
    except (AssertionError, TimeoutError):
        labs.clear()
        built.stop()
        raise


@pytest.fixture
def relays_behind_proxies(
    tmp_path: Path, cut_kafka: CutKafka
) -> Iterator[RelayProcesses]:
    """Relays and a spool on the broker that can be cut off, with its topics."""
    made = RelayProcesses(tmp_path, cut_kafka.bootstrap)
    made.succeed("topics", "create")
    yield made
    made.stop()
