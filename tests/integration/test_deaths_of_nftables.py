"""Deaths of the enforcer that fills a firewall: the kernel ends each lease.

The row of nftables in the table of docs/mitigation.md.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic
from uuid import uuid4

import pytest
from support.bgp_lab import (
    ENFORCER,
    LEASE,
    LONG,
    NEW,
    SHORT,
    SLACK,
    CutKafka,
    die,
    host,
    policy,
)
from support.consumer_processes import ConsumerProcesses
from support.netns import Network
from support.relay_processes import RelayProcesses
from support.process import Server

from consumers.enforcers.nftables.backend import NftablesBackend
from consumers.settings import NftablesSettings

pytestmark = pytest.mark.kafka


class Firewall:
    """A mitigator, and an enforcer of nftables behind a cable of its own."""

    def __init__(
        self, plant: RelayProcesses, kafka: CutKafka, settings: NftablesSettings
    ) -> None:
        self.plant = plant
        self.kafka = kafka
        self.backend = NftablesBackend(settings)
        self.crew = ConsumerProcesses(
            plant,
            policy("firewall"),
            "[consumers.nftables]",
            f'snapshot = "{plant.root}/nftables.json"',
            f'table = "{settings.table}"',
            f'command = "{settings.command}"',
            "reconcile_interval = 1",
        )
        self.crew.start("mitigator")
        self.enforcer = self.start()

    def start(self) -> Server:
        """Start the enforcer."""
        config = self.kafka.config(self.plant, "enforcer")
        return self.crew.start("nftables", FNM_BUS_CONFIG=config)

    def prefixes(self) -> set[str | None]:
        """Return what the kernel drops."""
        return {measure.prefix for measure in self.backend.active()}

    def same(self, *prefixes: str, seconds: float = 10.0) -> None:
        """Wait until the kernel drops exactly *prefixes*."""
        self.crew.until(lambda: self.prefixes() == set(prefixes), seconds, "the table")

    def begin(self) -> None:
        """Let a long and a short measure be in force."""
        self.banned = monotonic()
        self.crew.tell("ban", host(LONG), host(SHORT))
        self.same(LONG, SHORT)
        self.at = monotonic()

    def ended(self) -> None:
        """Wait until the short one is over, which its lease has to see to."""
        left = self.at + LEASE + ENFORCER + SLACK - monotonic()
        self.crew.until(lambda: self.prefixes() == {LONG}, left, "its end")


@pytest.fixture
def firewall(
    network: Network, plant_behind_cables: RelayProcesses, cut_kafka: CutKafka
) -> Iterator[Firewall]:
    settings = NftablesSettings(table=f"t{uuid4().hex}", command=network.nft)
    made = Firewall(plant_behind_cables, cut_kafka, settings)
    try:
        made.begin()
        yield made
    finally:
        cut_kafka.mend()
        with suppress(ProcessLookupError):
            os.kill(made.enforcer.pid, signal.SIGCONT)
        made.crew.stop()


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_t1_t2_enforcer(firewall: Firewall, how: str) -> None:
    die(firewall.enforcer.pid, how)
    firewall.crew.tell("ban", host(NEW))
    firewall.ended()
    if how == "stopped":
        os.kill(firewall.enforcer.pid, signal.SIGCONT)
    else:
        firewall.enforcer.kill()
        firewall.enforcer = firewall.start()
    firewall.same(LONG, NEW)
    firewall.crew.tell("unban", host(LONG))
    firewall.same(NEW)


def test_t3_cut_off_from_kafka(firewall: Firewall) -> None:
    crew, cable = firewall.crew, firewall.kafka.cables["enforcer"]
    cable.cut()

    def withdrawn() -> bool:
        crew.tell("attack_status", host(SHORT))  # it stays wanted
        return firewall.prefixes() == {LONG}

    crew.until(withdrawn, LEASE + ENFORCER + SLACK, "its end")
    assert monotonic() - firewall.banned > LEASE - 0.5
    assert f"firewall|{SHORT}" in crew.wanted()
    cable.mend()

    def announced() -> bool:
        crew.tell("attack_status", host(SHORT))
        return firewall.prefixes() == {LONG, SHORT}

    crew.until(announced, 20, "in force again")
