"""A laboratory from the topics to a neighbor's table, with a fault in any part.

One mitigation has a long lease and one a short lease. During a fault, the short one has
to end in time, and the long one must not be withdrawn. Within seconds after the fault,
the wanted mitigations have to be in force.
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
from support.process import Server, child_ids, free_port
from support.relay_processes import RelayProcesses
from support.tcp_proxy import TcpProxy

LONG = "203.0.113.1/32"
SHORT = "203.0.113.2/32"
NEW = "203.0.113.3/32"
NEXT = "203.0.113.4/32"
LEASE = 6.0
"""Seconds of the short lease."""
GRACE = 1.0
"""Seconds after which the watchdog acts."""
HOLD = 9.0
"""BIRD's hold time."""
ENFORCER = 2.0
"""Seconds within which a running enforcer withdraws an expired route."""
WATCHDOG = GRACE + 8.0
"""Seconds within which the watchdog does; it lists routes every 5 s."""
RECOVERY = 5.0
SLACK = 3.0
"""Additional seconds on a busy machine."""


def policy(action: str) -> str:
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
    """One broker, and a proxy to the broker for each program.

    Attributes:
        cluster: the broker.
        proxies: program → its proxy.
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
        """The broker's address without a proxy."""
        return self.cluster.bootstrap

    def config(self, relays: RelayProcesses, program: str) -> str:
        """Return the path of a configuration with the program's proxy."""
        address = f"127.0.0.1:{self.proxies[program].port}"
        return str(relays.config_by(program, address))

    def mend(self) -> None:
        for proxy in self.proxies.values():
            proxy.mend()

    def fail(self, how: str) -> Callable[[], None]:
        """Kill, stop or disconnect the broker; return a function that repairs it."""
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
        for proxy in self.proxies.values():
            proxy.close()
        self.cluster.close()


class BgpLab:
    """Mitigator, ExaBGP with its enforcer, and BIRD, with one Kafka.

    Args:
        root: a directory with a short path.
        kafka: the running broker.
        rules: text of the policy; empty: a short and a long lease.
    """

    def __init__(self, root: Path, kafka: CutKafka, rules: str = "") -> None:
        self.root = root
        self.kafka = kafka
        self.relays = RelayProcesses(root, kafka.bootstrap)
        self.relays.succeed("topics", "create")
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
        """Start a mitigator behind its proxy; wait until it is active."""
        config = self.kafka.config(self.relays, "mitigator")
        return self.services.start(
            "mitigator", wait=wait, FNM_BUS_CONFIG=config, **environment
        )

    def start_exabgp(self, *, wait: bool = True, **environment: str) -> Server:
        """Start ExaBGP, whose enforcer is behind its own proxy."""
        config = self.kafka.config(self.relays, "enforcer")
        return self.services.start(
            "exabgp", wait=wait, FNM_BUS_CONFIG=config, **environment
        )

    def announce_both(self) -> None:
        """Start the long and the short mitigation; wait for their routes."""
        self.ban(LONG)
        self.bird.wait_routes(LONG)
        self.announce_short()

    def announce_short(self) -> None:
        self.banned_at = monotonic()
        self.ban(SHORT)
        self.services.until(lambda: SHORT in self.bird.routes(), what="the short route")
        self.announced_at = monotonic()

    def ban(self, prefix: str) -> None:
        self.services.tell("ban", host(prefix))

    def renew(self, prefix: str) -> None:
        self.services.tell("attack_status", host(prefix))

    def wait_short_end(self, bound: float) -> None:
        """Wait until the short route is withdrawn.

        Args:
            bound: allowed seconds after the end of the lease.
        """
        timeout = self.announced_at + LEASE + bound + SLACK - monotonic()
        self.services.until(lambda: SHORT not in self.bird.routes(), timeout, "its end")
        self.duration = monotonic() - self.banned_at

    def assert_announced(self, *prefixes: str) -> None:
        assert {LONG, *prefixes} <= self.bird.routes().keys(), self.services.said()

    def wait_routes(self, *nets: str, seconds: float = RECOVERY) -> None:

        def has_routes() -> bool:
            return self.bird.routes().keys() == set(nets)

        self.services.until(has_routes, seconds + SLACK, f"only {nets}")

    def process_id(self, word: str) -> int:
        ids = child_ids(self.exabgp.pid, word)
        assert ids, f"no process with {word}: {self.services.said()}"
        return ids[0]

    def clear(self) -> None:
        self.services.tell("unban", *map(host, (LONG, SHORT, NEW, NEXT)))
        self.wait_routes(seconds=30)

    def stop(self) -> None:
        with suppress(AssertionError):
            for word in ("--api", "--watchdog"):
                os.kill(self.process_id(word), signal.SIGCONT)
        self.kafka.mend()
        self.bgp.mend()
        self.relays.stop()
        self.services.stop()
        self.bird.close()
        self.bgp.close()
        rmtree(self.root, ignore_errors=True)


def host(prefix: str) -> str:
    return prefix.removesuffix("/32")


def kill_or_stop(pid: int, how: str) -> None:
    """Kill a process if *how* is "killed"; otherwise stop it."""
    os.kill(pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
