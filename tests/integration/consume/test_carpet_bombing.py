"""Bans of many hosts become a hostgroup's attack, about which the policy decides."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.consumer_processes import ConsumerProcesses, policy
from support.installed_hook import InstalledHook
from support.process import Server, wait_until
from support.relay_processes import RelayProcesses

from fnm_bus.event import HostgroupEvent

PROGRAM = Path(__file__).parents[3] / "examples" / "carpet_bombing.py"


@pytest.fixture
def carpet_hook(
    kafka_relays: RelayProcesses, tmp_path: Path
) -> Iterator[InstalledHook]:
    """A hook of its own, whose spool a relay drains under the sensor name `carpet`."""
    place = tmp_path / "carpet"
    place.mkdir()
    hook = InstalledHook(place)
    config = place / "fnm-bus.toml"
    text = kafka_relays.config.read_text()
    for own, other in (
        ('sensor = "fra1"', 'sensor = "carpet"'),
        (str(kafka_relays.spool.root), str(hook.spool.root)),
        (str(kafka_relays.fallback.root), str(hook.fallback.root)),
    ):
        assert own in text
        text = text.replace(own, other)
    config.write_text(text)
    kafka_relays.start(config=config)
    return hook


def test_a_hit_is_a_hostgroups_attack_under_its_own_sensor_name(
    kafka_relays: RelayProcesses, carpet_hook: InstalledHook
) -> None:
    services = ConsumerProcesses(kafka_relays, policy())
    services.start("mitigator")
    program = Server(
        [sys.executable, str(PROGRAM), str(carpet_hook.path), "--threshold", "5"],
        kafka_relays.root / "carpet.log",
        {"FNM_BUS_CONFIG": str(kafka_relays.config)},
    )
    program.start()
    try:
        hosts = [f"203.0.113.{number}" for number in range(1, 7)]
        services.tell("ban", *hosts, host_group="customers")

        def events() -> list[HostgroupEvent]:
            return [
                event
                for _, event, _ in services.records("hostgroup")
                if isinstance(event, HostgroupEvent)
            ]

        wait_until(lambda: len(events()) == 2, 60, "both hits")
        assert {event.hostgroup_name for event in events()} == {
            "customers",
            "203.0.113.0/24",
        }
        assert {event.receipt.sensor for event in events()} == {"carpet"}
        # The policy wants a blackhole of the /24, which a guardrail refuses.
        services.until(
            lambda: (
                {
                    audit.target
                    for audit in services.audits("refused")
                    if audit.sensor == "carpet" and audit.code == "prefix_length"
                }
                == {"customers", "203.0.113.0/24"}
            )
        )
        assert "203.0.113.0/24" not in str(services.wanted())
    finally:
        program.kill()
        services.stop()
