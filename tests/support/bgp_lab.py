"""Laboratory: everything from the topics to a neighbor's table, each part destroyable.

One mitigation is in force for long and one for a few seconds. During a fault the short
one has to end in time, and the long one must not be withdrawn by mistake. After it
wanted and in force are equal within a few seconds.
"""

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from time import monotonic

from support.bird import Bird
from support.consumer_processes import ConsumerProcesses
from support.kafka import Cluster
from support.process import Server, free_port
from support.relay_processes import RelayProcesses
from support.tcp_proxy import TcpProxy

LONG = "203.0.113.1/32"
SHORT = "203.0.113.2/32"
NEW = "203.0.113.3/32"
NEXT = "203.0.113.4/32"
LEASE = 6.0
"""Seconds of the short mitigation."""
GRACE = 1.0
"""Seconds after which the watchdog acts."""
HOLD = 9.0
"""BIRD's hold time."""
ENFORCER = 2.0
"""The bound of an enforcer that lives."""
WATCHDOG = GRACE + 8.0
"""The bound when only the watchdog is left: it lists routes every 5 s."""
RECOVERY = 5.0
SLACK = 3.0
"""For a machine that is busy with other tests."""


def policy(action: str) -> str:
    """Return a policy by which the short and the long mitigation get their leases."""
    return f"""
own_networks = ["203.0.113.0/24", "10.0.0.0/8"]
[guardrails]
max_affected_share = 1.0
[[rule]]
name = "short"
match = {{ prefix = "{SHORT}" }}
then = {{ action = "{action}", lease = "{LEASE:.0f}s" }}
[[rule]]
name = "long"
then = {{ action = "{action}", lease = "120s" }}
"""


class CutKafka:
    """One broker, and a cable to it for each program.

    Attributes:
        cluster: the broker.
        cables: program → its cable.
    """

    programs = ("mitigator", "enforcer", "relay")

    def __init__(self, root: Path) -> None:
        ports = {program: free_port() for program in self.programs}
        self.cluster = Cluster(root, nodes=1, fronts=tuple(ports.values()))
        self.proxies: Mapping[str, TcpProxy] = {
            program: TcpProxy(("127.0.0.1", self.cluster.behind(port)), port=port)
            for program, port in ports.items()
        }

    @property
    def bootstrap(self) -> str:
        """The address without a cable."""
        return self.cluster.bootstrap

    def config(self, relays: RelayProcesses, program: str) -> str:
        """Return the path of a configuration by which a program uses its cable."""
        address = f"127.0.0.1:{self.proxies[program].port}"
        return str(relays.config_by(program, address))

    def mend(self) -> None:
        """Mend all cables."""
        for proxy in self.proxies.values():
            proxy.mend()

    def fail(self, how: str) -> Callable[[], None]:
        """Let the broker be killed, stopped, or cut off; return what repairs it."""
        cluster = self.cluster
        if how == "killed":
            cluster.kill(1)
            return cluster.revive
        if how == "stopped":
            pid = cluster.pid(1)
            os.kill(pid, signal.SIGSTOP)
            return lambda: os.kill(pid, signal.SIGCONT)
        for proxy in self.proxies.values():
            proxy.cut()
        return self.mend

    def close(self) -> None:
        """End the broker and the cables."""
        for proxy in self.proxies.values():
            proxy.close()
        self.cluster.close()


class BgpLab:
    """Mitigator, ExaBGP with its enforcer, and BIRD, on one Kafka.

    Args:
        root: a directory with a short path.
        kafka: open.
        rules: text of the policy; of the short and the long mitigation unless given.
    """

    def __init__(self, root: Path, kafka: CutKafka, rules: str = "") -> None:
        self.root = root
        self.kafka = kafka
        self.relays = RelayProcesses(root, kafka.bootstrap)
        created = self.relays.run("topics", "create")
        assert created.returncode == 0, created.stderr
        self.bird = Bird(root)
        self.bird.open()
        self.bgp = TcpProxy((self.bird.address, self.bird.port), self.bird.address)
        self.services = ConsumerProcesses(
            self.relays,
            rules or policy("blackhole"),
            "[consumers.exabgp]",
            f'snapshot = "{root}/exabgp.json"',
            f"port = {self.bgp.port}",
            f"watchdog_grace = {GRACE}",
            "reconcile_interval = 1",
            "[consumers]",
            "metrics_port = 0",
        )
        self.mitigator = self.start_mitigator()
        self.exabgp = self.start_exabgp()
        self.bird.wait_up()

    def start_mitigator(self, *, wait: bool = True, **environment: str) -> Server:
        """Start a mitigator behind its cable; return it when it is active."""
        config = self.kafka.config(self.relays, "mitigator")
        return self.services.start(
            "mitigator", wait=wait, FNM_BUS_CONFIG=config, **environment
        )

    def start_exabgp(self, *, wait: bool = True, **environment: str) -> Server:
        """Start ExaBGP, whose enforcer has a cable of its own."""
        config = self.kafka.config(self.relays, "enforcer")
        return self.services.start(
            "exabgp", wait=wait, FNM_BUS_CONFIG=config, **environment
        )

    def begin(self) -> None:
        """Let a long and a short mitigation be in the neighbor's table."""
        self.ban(LONG)
        self.bird.wait_routes(LONG)
        self.begin_short()

    def begin_short(self) -> None:
        """Let the short mitigation be in the neighbor's table."""
        self.banned = monotonic()
        self.ban(SHORT)
        self.services.until(lambda: SHORT in self.bird.routes(), what="the short one")
        self.at = monotonic()

    def ban(self, prefix: str) -> None:
        """Publish a ban."""
        self.services.tell("ban", host(prefix))

    def renew(self, prefix: str) -> None:
        """Publish a status update."""
        self.services.tell("attack_status", host(prefix))

    def ended(self, bound: float) -> None:
        """Wait until the short one is gone, which it has to be by lease and bound."""
        left = self.at + LEASE + bound + SLACK - monotonic()
        self.services.until(lambda: SHORT not in self.bird.routes(), left, "its end")
        self.lasted = monotonic() - self.banned

    def stands(self, *prefixes: str) -> None:
        """Make sure that the long one, and *prefixes*, are in the neighbor's table."""
        assert {LONG, *prefixes} <= self.bird.routes().keys(), self.services.said()

    def same(self, *nets: str, seconds: float = RECOVERY) -> None:
        """Wait until the neighbor's table is as wanted."""

        def equal() -> bool:
            return self.bird.routes().keys() == set(nets)

        self.services.until(equal, seconds + SLACK, f"only {nets}")

    def child(self, word: str) -> int:
        """Return the process of ExaBGP's that has *word* on its command line."""
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                line = (path / "cmdline").read_bytes().split(b"\0")
                status = (path / "stat").read_text().rpartition(")")[2].split()
                if word.encode() in line and int(status[1]) == self.exabgp.pid:
                    return int(path.name)
        raise AssertionError(f"no process with {word}: {self.services.said()}")

    def clear(self) -> None:
        """Let everything end, for the next test."""
        self.services.tell("unban", *map(host, (LONG, SHORT, NEW, NEXT)))
        self.same(seconds=30)

    def stop(self) -> None:
        """End every process, whatever state a test left it in."""
        with suppress(AssertionError):
            for word in ("--api", "--watchdog"):
                os.kill(self.child(word), signal.SIGCONT)
        self.kafka.mend()
        self.bgp.mend()
        self.relays.stop()
        self.services.stop()
        self.bird.close()
        self.bgp.close()
        rmtree(self.root, ignore_errors=True)


def host(prefix: str) -> str:
    """Return the address of a /32."""
    return prefix.removesuffix("/32")


def die(pid: int, how: str) -> None:
    """Kill or stop a process."""
    os.kill(pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)


def runs(pid: int) -> bool:
    """Return whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
