"""The measurements' environment: a broker, a spool and a relay, all temporary."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fnm_bus.hook import python_hook
from fnm_bus.kafka.addressing import Topics
from fnm_bus.kafka.embedded_broker import EmbeddedBroker
from fnm_bus.kafka.topic_admin import TopicAdmin
from fnm_bus.kafka.topics import TopicSpec, planned_topics
from fnm_bus.spool.spool import Spool

HERE = Path(__file__).parent
SAMPLES = HERE.parent / "tests/unit/samples"
sys.path.insert(0, str(HERE.parent / "tests"))

RIVALS = ("naive", "kcat", "producer")
DOCUMENTS = {
    "19 KB": (SAMPLES / "host_ban_vendor_2022.json").read_bytes(),
    "1.5 KB": (SAMPLES / "host_ban_docs.json").read_bytes(),
}


@contextmanager
def broker(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the address and the kind of a broker: Apache Kafka if it is available."""
    from support.fetch import Unavailable  # noqa: PLC0415 - found through sys.path
    from support.kafka import Cluster  # noqa: PLC0415 - as above

    cluster = Cluster(root / "kafka", nodes=1)
    (root / "kafka").mkdir()
    try:
        cluster.open()
    except Unavailable as exc:
        print(f"no Apache Kafka ({exc}): librdkafka's mock cluster instead")
        with EmbeddedBroker() as embedded:
            embedded.make(
                *Topics().of_events(), *(f"bench.{rival}" for rival in RIVALS)
            )
            yield embedded.bootstrap, "librdkafka's mock cluster"
        return
    try:
        rivals = [TopicSpec(f"bench.{name}", 12, 1, {}) for name in RIVALS]
        admin = TopicAdmin({"bootstrap.servers": cluster.bootstrap})
        admin.create([*planned_topics(Topics(), 12, 1), *rivals])
        yield cluster.bootstrap, "Apache Kafka, one node"
    finally:
        cluster.close()


@dataclass(frozen=True)
class Environment:
    """A spool, its configuration, and both hooks."""

    root: Path
    config: Path
    spool: Spool
    hook: Path
    native: Path

    def script(self, name: str) -> Path:
        """Return a copy of a rival in shell, with directories of its own beside it."""
        path = self.root / name
        if not path.exists():
            shutil.copy(HERE / "rivals" / name, path)
            for part in ("tmp", "new"):
                (self.root / "moved" / part).mkdir(parents=True, exist_ok=True)
        return path

    def fill(self, document: bytes, count: int, start: int = 0) -> None:
        """Put *count* entries into the spool, as that many hooks would have."""
        data, boot = python_hook.encode_entry((), document), python_hook.boot_id()
        base = python_hook.process_start_ticks()
        for number in range(start, start + count):
            name = f"{boot}-{base + number // 64:012d}-{number % 30_000:07d}-"
            name += f"{number:08x}"
            self.spool.path(name).write_bytes(data)

    @contextmanager
    def relay(self, bootstrap: str = "") -> Iterator[subprocess.Popen[bytes]]:
        """Run a relay; it has the spool's lock when the context is entered.

        Args:
            bootstrap: another broker than the one that is configured.
        """
        other = {"FNM_BUS_KAFKA__BOOTSTRAP_SERVERS": bootstrap} if bootstrap else {}
        address = str(self.root / "notify")
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
            (self.root / "relay.log").open("wb") as log,
        ):
            manager.bind(address)
            manager.settimeout(60)
            relay = subprocess.Popen(
                [sys.executable, "-m", "fnm_bus", "relay", "--config", self.config],
                env={**os.environ, "NOTIFY_SOCKET": address, **other},
                stderr=log,
            )
            try:
                while b"draining" not in manager.recv(1024):
                    continue
                yield relay
            finally:
                relay.kill()
                relay.wait()
                Path(address).unlink()


def peak_memory(pid: int) -> float:
    """Return the most memory that a process has had so far, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise LookupError("no VmHWM")


@contextmanager
def start_environment(bootstrap: str) -> Iterator[Environment]:
    """Make an environment in a temporary directory on a disk, not in memory."""
    with tempfile.TemporaryDirectory(prefix="fnm-bus-bench-", dir="/var/tmp") as name:
        root = Path(name)
        config = root / "fnm-bus.toml"
        kinds = {"hook": "--python", "hook-native": "--native"}
        config.write_text(
            f'sensor = "bench"\n[kafka]\n"bootstrap.servers" = "{bootstrap}"\n'
            f'[spool]\ndirectory = "{root}/spool"\nfallback = "{root}/fallback"\n'
            "soft_limit_files = 150000\n[relay]\nmetrics_port = 0\n"
        )
        for file, kind in kinds.items():
            install = [sys.executable, "-m", "fnm_bus", "hook", "install", root / file]
            subprocess.run(
                [*install, "--config", config, kind], check=True, capture_output=True
            )
        yield Environment(
            root, config, Spool(root / "spool"), *map(root.joinpath, kinds)
        )
