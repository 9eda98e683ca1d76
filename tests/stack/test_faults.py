"""A death in the stack loses no accepted event, and every route ends in time."""

import time
from collections.abc import Callable
from typing import NamedTuple

import pytest
from support.process import wait_until
from support.stack import Stack

LEASE = 20.0
BOUND = 8.0
"""Seconds that a route may outlive its lease; docs/mitigation.md says why."""
RECOVERED = 5.0
"""Seconds after the recovery within which the neighbor has what is wanted."""


class Fault(NamedTuple):
    """One death.

    Attributes:
        service: who is asked whether it is well again.
        program: killed inside the container; "": the whole container is killed.
    """

    service: str
    program: str = ""


FAULTS = {
    "kafka": Fault("kafka"),
    "registry": Fault("registry"),
    "relay": Fault("relay", "fnm-bus relay"),
    "mitigator": Fault("mitigator", "fnm-bus-consumer mitigator"),
    "enforcer": Fault("exabgp", "exabgp --api"),
    "exabgp": Fault("exabgp", "exabgp.server --env-file"),
    "bird": Fault("bird"),
}


def leased(stack: Stack, number: int) -> tuple[str, float]:
    """Have a blackhole added; return its prefix, and when its lease is over."""
    prefix = f"203.0.113.{number}/32"
    add = (
        "mitigations",
        "add",
        prefix,
        "--lease",
        f"{LEASE:.0f}",
        "--comment",
        "proof",
    )
    stack.inside("mitigator", "fnm-bus", *add)
    return prefix, time.monotonic() + LEASE


def ended(stack: Stack, prefix: str, end: float) -> float:
    """Wait until the route is gone; return by how much it outlived its lease."""
    left = end + BOUND - time.monotonic()
    wait_until(lambda: prefix not in stack.routes(), max(left, 0), f"{prefix} is gone")
    return time.monotonic() - end


def all_out(stack: Stack) -> None:
    """Wait until every notification that was taken is on Kafka."""

    def out() -> bool:
        return len(stack.published()) >= stack.accepted

    wait_until(out, 30, "all that was accepted is on Kafka")
    assert len(stack.published()) == stack.accepted


@pytest.mark.parametrize("name", FAULTS)
def test_a_death_loses_nothing_and_leaves_nothing(
    stack: Stack, note: Callable[..., None], name: str
) -> None:
    fault, number = FAULTS[name], 100 + list(FAULTS).index(name)
    prefix, end = leased(stack, number)
    before = stack.accepted
    with stack.attack(seed=number):
        wait_until(lambda: len(stack.routes()) > 5, 20, "routes stand")
        began = time.monotonic()
        if fault.program:
            stack.die(fault.service, fault.program)
        else:
            stack.kill(fault.service)
        wait_until(lambda: stack.healthy(fault.service), 120, f"{name} is back")
        back = time.monotonic() - began
        settled = stack.settle(RECOVERED, "wanted is actual")
    all_out(stack)
    wait_until(lambda: not stack.wanted() - {prefix}, 20, "the attack is over")
    ended(stack, prefix, end)
    wait_until(lambda: not stack.routes(), RECOVERED, "nothing stands")
    note(
        f"{name} killed",
        f"back after {back:.1f} s",
        f"wanted = actual {settled:.1f} s later",
        f"{stack.accepted - before} accepted, all on Kafka",
        "nothing outlived its lease",
    )


def test_a_minute_without_kafka(stack: Stack, note: Callable[..., None]) -> None:
    prefix, end = leased(stack, 90)
    before = stack.accepted
    with stack.attack(seed=90, hosts=10, updates=50, rate=6):
        wait_until(lambda: len(stack.routes()) > 5, 20, "routes stand")
        stack.compose("stop", "kafka")
        began = time.monotonic()
        over = ended(stack, prefix, end)
        time.sleep(max(0.0, 60 - (time.monotonic() - began)))
        stack.compose("start", "kafka")
        wait_until(lambda: stack.healthy("kafka"), 120, "kafka is back")
        settled = stack.settle(RECOVERED, "wanted is actual")
    all_out(stack)
    wait_until(lambda: not stack.wanted(), 20, "the attack is over")
    wait_until(lambda: not stack.routes(), RECOVERED, "nothing stands")
    note(
        "kafka stopped for a minute",
        f"a lease ended meanwhile, {max(over, 0):.1f} s late at most",
        f"wanted = actual {settled:.1f} s later",
        f"{stack.accepted - before} accepted, all on Kafka",
        "nothing outlived its lease",
    )


def test_an_upgrade_under_load(stack: Stack, note: Callable[..., None]) -> None:
    before = stack.accepted
    with stack.attack(seed=91, hosts=20, updates=40, rate=20):
        wait_until(lambda: len(stack.routes()) > 5, 20, "routes stand")
        stack.version = "proof-next"
        took = stack.up()
        settled = stack.settle(RECOVERED, "wanted is actual")
    all_out(stack)
    wait_until(lambda: not stack.wanted(), 20, "the attack is over")
    wait_until(lambda: not stack.routes(), RECOVERED, "nothing stands")
    image = stack.facts("relay")["Config"]["Image"]
    assert image == "fnm-bus:proof-next"
    note(
        "upgrade under load",
        f"{took:.0f} s with the build",
        f"wanted = actual {settled:.1f} s later",
        f"{stack.accepted - before} accepted, all on Kafka",
    )
