"""From the hook to the neighbor's table.

The floor is the same route announced by hand through ExaBGP, in the same run.
"""

import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from environment import HERE
from report import Row

from consumers.enforcers.backend import DesiredMeasure
from consumers.mitigation.measure import BLACKHOLE, FLOWSPEC, Measure, canonical
from fnm_bus.event import FlowMatch, FlowThen

sys.path.insert(0, str(HERE.parent / "tests"))

if TYPE_CHECKING:
    from support.bird import Bird
    from support.consumer_processes import ConsumerProcesses

_POLICY = """
own_networks = ["10.0.0.0/8"]
[guardrails]
max_affected_share = 1.0
max_active = 100_000
max_new_per_minute = 400_000
[[rule]]
name = "flow"
match = { prefix = "10.9.0.0/16" }
then = { action = "flowspec" }
[[rule]]
name = "all"
then = { action = "blackhole" }
"""
_PATIENCE = 120.0
_THEN = FlowThen(action="discard")


def measure(bootstrap: str, *, quick: bool) -> list[Row]:
    """Return the figures of the whole chain."""
    with ExitStack() as stack:
        services, bird = stack.enter_context(_laboratory(bootstrap))
        floor, floor_bird = stack.enter_context(_floor())
        rounds, many = (5, 50) if quick else (100, 1000)
        hook = services.relays.root / "hook"
        ours, by_hand = [], []
        for number in range(rounds + 1):
            host = f"10.1.{number // 250}.{number % 250}"
            blackhole = Measure(kind=BLACKHOLE, prefix=f"{host}/32")
            began = time.monotonic()
            document = _document(host)
            subprocess.run([hook, "ban", host], input=document, check=True)
            first = _until(bird, blackhole) - began
            began = time.monotonic()
            floor.announce([DesiredMeasure(blackhole, 900.0)])
            second = _until(floor_bird, blackhole) - began
            if number:  # the first is for the caches
                ours.append(first)
                by_hand.append(second)
        rows = [
            _latency("hook start to route in BIRD", "hook, relay, mitigator", ours),
            _latency("the same", "floor: by hand through ExaBGP", by_hand),
        ]
        hosts = [f"10.2.{number // 250}.{number % 250}" for number in range(many)]
        plain = [Measure(kind=BLACKHOLE, prefix=f"{host}/32") for host in hosts]
        took = _storm(services, bird, hosts)
        least = _announced(floor.announce, floor_bird, plain)
        rows.append(_many(f"{many} hosts at once", took, least, 3.0))
        hosts = [f"10.9.{number // 250}.{number % 250}" for number in range(many)]
        flows = [
            Measure(
                kind=FLOWSPEC,
                flow=canonical(
                    FlowMatch(destination_prefix=f"{host}/32", protocols=("udp",))
                ),
                then=_THEN,
            )
            for host in hosts
        ]
        took = _storm(services, bird, hosts)
        least = _announced(floor.announce, floor_bird, flows)
        rows.append(_many(f"{many} FlowSpec rules at once", took, least, None))
        return rows


@contextmanager
def _laboratory(bootstrap: str) -> "Iterator[tuple[ConsumerProcesses, Bird]]":
    from support.bird import Bird  # noqa: PLC0415 - found through sys.path
    from support.consumer_processes import ConsumerProcesses  # noqa: PLC0415 - as above
    from support.relay_processes import RelayProcesses  # noqa: PLC0415 - as above

    root = Path(mkdtemp(prefix="fnm-", dir="/var/tmp"))
    bird = Bird(root)
    bird.open()
    relays = RelayProcesses(root, bootstrap)
    services = ConsumerProcesses(
        relays,
        _POLICY,
        "[consumers.exabgp]",
        f'snapshot = "{root}/exabgp.json"',
        f"port = {bird.port}",
    )
    try:
        for arguments in (
            ("topics", "create"),
            ("hook", "install", str(root / "hook")),
        ):
            made = relays.run(*arguments)
            if made.returncode:
                raise RuntimeError(made.stderr.decode())
        relays.start()
        services.start("mitigator")
        services.start("exabgp")
        bird.wait_up()
        yield services, bird
    finally:
        services.stop()
        relays.stop()
        bird.close()
        subprocess.run(["rm", "-rf", root], check=False)


@contextmanager
def _floor() -> Iterator[tuple[Any, "Bird"]]:
    from support.bird import Bird  # noqa: PLC0415 - found through sys.path
    from support.exabgp import Exabgp  # noqa: PLC0415 - as above

    root = Path(mkdtemp(prefix="fnm-", dir="/var/tmp"))
    bird = Bird(root)
    bird.open()
    bgp = Exabgp(root, bird, grace=3600.0)
    try:
        bgp.start()
        bird.wait_up()
        yield bgp.connect(), bird
    finally:
        bgp.close()
        bird.close()
        subprocess.run(["rm", "-rf", root], check=False)


def _document(host: str, protocol: str = "udp") -> bytes:
    return (
        f'{{"ip": "{host}", "action": "ban", "alert_scope": "host",'
        f' "attack_details": {{"attack_uuid": "{host}",'
        f' "attack_direction": "incoming", "attack_protocol": "{protocol}"}}}}'
    ).encode()


def _until(bird: "Bird", measure: Measure) -> float:
    """Wait until BIRD has a route; return when."""
    end = time.monotonic() + _PATIENCE
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(str(bird.control))
        control.recv(4096)
        while time.monotonic() < end:
            control.sendall(f"show route {measure.prefix}\n".encode())
            if str(measure.prefix).encode() in control.recv(65_536):
                return time.monotonic()
            time.sleep(0.001)
    raise TimeoutError(f"{measure.prefix} never came")


def _storm(services: "ConsumerProcesses", bird: "Bird", hosts: list[str]) -> float:
    """Put a notification of each host into the spool; return seconds to all routes."""
    wanted, began = bird.count() + len(hosts), time.monotonic()
    for host in hosts:
        services.relays.call(_document(host))
    return _all_there(bird, wanted) - began


def _announced(
    announce: Callable[[list[DesiredMeasure]], None],
    bird: "Bird",
    measures: list[Measure],
) -> float:
    wanted, began = bird.count() + len(measures), time.monotonic()
    announce([DesiredMeasure(measure, 900.0) for measure in measures])
    return _all_there(bird, wanted) - began


def _all_there(bird: "Bird", wanted: int) -> float:
    end = time.monotonic() + _PATIENCE
    while bird.count() < wanted:
        if time.monotonic() > end:
            raise TimeoutError(f"{bird.count()} routes of {wanted}")
        time.sleep(0.02)
    return time.monotonic()


def _latency(operation: str, contender: str, times: list[float]) -> Row:
    ordered = sorted(times)
    p50, p99 = statistics.median(times), ordered[int(len(ordered) * 0.99)]
    ours = not contender.startswith("floor")
    return Row(
        operation,
        contender,
        f"p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms",
        goal="p50 <= 60 ms, p99 <= 250 ms" if ours else "",
        met=(p50 <= 0.060 and p99 <= 0.250) if ours else None,  # noqa: PLR2004 - goal
    )


def _many(operation: str, took: float, least: float, goal: float | None) -> Row:
    return Row(
        operation,
        "spool to routes in BIRD",
        f"{took:.2f} s",
        f"{took / least:.1f} x by hand through ExaBGP ({least:.2f} s)",
        f"<= {goal:g} s" if goal else "",
        took <= goal if goal else None,
    )
