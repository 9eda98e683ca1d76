"""The stack runs as its file describes, and keeps its state."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.request import urlopen

from support.process import wait_until
from support.stack import Stack

from fnm_bus.event import HostEvent

OURS = ("relay", "mitigator", "exabgp", "notifier", "notices", "jsonlines")
NET_ADMIN = 1 << 12
BUDGET = 115_000_000
"""Bytes above the base image, which has about 130 MB: together less than 250 MB."""


def test_a_clean_run_leaves_no_warning_in_the_logs(stack: Stack) -> None:
    began = datetime.now(UTC)
    with stack.attack(seed=1, hosts=6, updates=2):
        pass
    wait_until(lambda: len(stack.published()) == stack.accepted, 10, "all on Kafka")
    wait_until(lambda: not stack.wanted(), 10, "the attack is over")
    assert stack.settle(5, "the neighbor has none") < 5
    bad = ("Traceback", " warning ", " error ", " critical ", "<WARN>", "<ERR>")
    lines = stack.logs(*OURS, "init", "bird")
    assert not [line for line in lines if any(word in line for word in bad)]
    assert any("Largest attacks" in line for line in stack.logs("notices", since=began))


def test_every_service_is_scraped_and_only_refusals_are_logged(stack: Stack) -> None:
    def jobs() -> dict[str, str]:
        with urlopen(f"{stack.prometheus}/api/v1/targets") as answer:
            targets = json.load(answer)["data"]["activeTargets"]
        return {target["labels"]["job"]: target["health"] for target in targets}

    expected = dict.fromkeys(
        ("relay", "mitigator", "exabgp", "notifier", "jsonlines"), "up"
    )
    wait_until(lambda: jobs() == expected, 30, f"all targets are up: {jobs()}")

    def firing() -> set[str]:
        with urlopen(f"{stack.prometheus}/api/v1/rules") as answer:
            groups = json.load(answer)["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert len(rules) > 10
        return {rule["name"] for rule in rules if rule["state"] == "firing"}

    # The policy protects the attack's first host.
    wait_until(lambda: firing() == {"FnmBusRefused"}, 30, f"one alert: {firing()}")


def test_the_containers_have_no_more_rights_than_they_need(stack: Stack) -> None:
    for service in OURS:
        facts = stack.facts(service)
        status = stack.inside(service, "cat", "/proc/1/status")
        assert "Uid:\t10001\t" in status, service
        assert "CapEff:\t0000000000000000" in status, service
        assert "CapBnd:\t0000000000000000" in status, service
        assert "NoNewPrivs:\t1" in status, service
        assert facts["HostConfig"]["ReadonlyRootfs"], service
        for bindings in facts["HostConfig"]["PortBindings"].values():
            assert all(binding["HostIp"] == "127.0.0.1" for binding in bindings), (
                service
            )


def test_the_image_is_small(stack: Stack, note: Callable[..., None]) -> None:
    sizes = [
        int(stack.docker("image", "inspect", "--format", "{{.Size}}", tag))
        for tag in (f"fnm-bus:{stack.version}", "python:3.11-slim-bookworm")
    ]
    note("image", f"{(sizes[0] - sizes[1]) / 1e6:.0f} MB above its base")
    assert sizes[0] - sizes[1] < BUDGET


def test_a_stop_is_quick(stack: Stack, note: Callable[..., None]) -> None:
    began = datetime.now(UTC)
    stack.compose("stop", *OURS)
    took = (datetime.now(UTC) - began).total_seconds()
    codes = {name: stack.facts(name)["State"]["ExitCode"] for name in OURS}
    stack.up()
    note("SIGTERM to all of fnm-bus", f"{took:.1f} s")
    # 143: by the signal itself; 137 would be a kill after the grace.
    assert set(codes.values()) <= {0, 143}, codes
    assert took < 10


def test_state_survives_down_and_up(stack: Stack, note: Callable[..., None]) -> None:
    add = (
        "mitigations",
        "add",
        "203.0.113.7/32",
        "--lease",
        "900",
        "--comment",
        "proof",
    )
    stack.inside("mitigator", "fnm-bus", *add)
    stack.settle(10, "the route stands")
    before = stack.published()
    stack.compose("down")
    took = stack.up()
    assert stack.published() == before
    assert stack.settle(5, "the route stands again") < 5
    assert stack.routes() == {"203.0.113.7/32"}
    end = ("mitigations", "withdraw", "blackhole|203.0.113.7/32", "--comment", "proof")
    stack.inside("mitigator", "fnm-bus", *end)
    wait_until(lambda: not stack.routes(), 5, "the route is gone")
    note("down and up", f"{took:.0f} s, {len(before)} events and a route as before")


def test_a_firewall_drops_with_a_single_capability(stack: Stack) -> None:
    stack.up("--profile", "nftables")
    add = "mitigations add 203.0.113.8/32 --kind firewall --lease 60 --comment proof"
    stack.inside("mitigator", "fnm-bus", *add.split())

    def listed() -> str:
        # The table is there from the first measure on.
        look = ("nft", "list", "set", "inet", "fnm_bus", "hosts4")
        return stack.compose("exec", "-T", "nftables", *look, check=False)

    wait_until(lambda: "203.0.113.8 timeout" in listed(), 10, "the kernel drops")
    status = stack.inside("nftables", "cat", "/proc/1/status")
    assert f"CapEff:\t{NET_ADMIN:016x}" in status
    assert f"CapBnd:\t{NET_ADMIN:016x}" in status
    end = ("mitigations", "withdraw", "firewall|203.0.113.8/32", "--comment", "proof")
    stack.inside("mitigator", "fnm-bus", *end)
    wait_until(lambda: "203.0.113.8" not in listed(), 10, "it is gone")
    stack.compose("--profile", "nftables", "rm", "--stop", "--force", "nftables")


def test_a_real_fastnetmon_makes_a_route_appear_and_go(
    stack: Stack, note: Callable[..., None]
) -> None:
    stack.compose(
        *("--profile", "detector", "up", "--detach", "--build", "--wait", "fastnetmon")
    )
    host = "203.0.113.200/32"
    flood = ("flood", "--to=fastnetmon:2055", "--first=203.0.113.200", "--hosts=1")
    stack.compose(
        *("--profile", "detector", "run", "--rm", "--no-deps", "-T", "flood"),
        *(*flood, "--seconds=12"),
    )
    assert host in stack.routes()
    wait_until(lambda: host not in stack.routes(), 60, "FastNetMon unbans")
    calls = [
        event
        for event in stack.events()
        if isinstance(event, HostEvent) and event.ip == "203.0.113.200"
    ]
    assert [call.action for call in calls] == ["ban", "attack_details", "unban"]
    stack.accepted += len(calls)
    stack.compose("--profile", "detector", "rm", "--stop", "--force", "fastnetmon")
    note(
        "FastNetMon", "ban, attack_details and unban of one host; the route came, went"
    )
