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
    host,
    kill_or_stop,
    policy,
)
from support.consumer_processes import ConsumerProcesses
from support.netns import Network
from support.process import Server
from support.relay_processes import RelayProcesses

from consumers.enforcers.nftables.backend import NftablesBackend
from consumers.settings import NftablesSettings

pytestmark = pytest.mark.kafka


class Firewall:
    """A mitigator, and an enforcer of nftables behind a cable of its own."""

    def __init__(
        self, relays: RelayProcesses, kafka: CutKafka, settings: NftablesSettings
    ) -> None:
        self.relays = relays
        self.kafka = kafka
        self.backend = NftablesBackend(settings)
        self.services = ConsumerProcesses(
            relays,
            policy("firewall"),
            "[consumers.nftables]",
            f'snapshot = "{relays.root}/nftables.json"',
            f'table = "{settings.table}"',
            f'command = "{settings.command}"',
            "reconcile_interval = 1",
        )
        self.services.start("mitigator")
        self.enforcer = self.start()

    def start(self) -> Server:
        """Start the enforcer."""
        config = self.kafka.config(self.relays, "enforcer")
        return self.services.start("nftables", FNM_BUS_CONFIG=config)

    def prefixes(self) -> set[str | None]:
        """Return the prefixes that the kernel drops."""
        return {measure.prefix for measure in self.backend.active()}

    def wait_prefixes(self, *prefixes: str, seconds: float = 10.0) -> None:
        """Wait until the kernel drops exactly *prefixes*."""
        self.services.until(
            lambda: self.prefixes() == set(prefixes), seconds, "the table"
        )

    def announce_both(self) -> None:
        """Start the long and the short mitigation; wait for their drops."""
        self.banned_at = monotonic()
        self.services.tell("ban", host(LONG), host(SHORT))
        self.wait_prefixes(LONG, SHORT)
        self.announced_at = monotonic()

    def wait_short_end(self) -> None:
        """Wait until the short lease ends its drop."""
        timeout = self.announced_at + LEASE + ENFORCER + SLACK - monotonic()
        self.services.until(lambda: self.prefixes() == {LONG}, timeout, "its end")


@pytest.fixture
def firewall(
    network: Network, relays_behind_proxies: RelayProcesses, cut_kafka: CutKafka
) -> Iterator[Firewall]:
    settings = NftablesSettings(table=f"t{uuid4().hex}", command=network.nft)
    lab = Firewall(relays_behind_proxies, cut_kafka, settings)
    try:
        lab.announce_both()
        yield lab
    finally:
        cut_kafka.mend()
        with suppress(ProcessLookupError):
            os.kill(lab.enforcer.pid, signal.SIGCONT)
        lab.services.stop()


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_t1_t2_enforcer(firewall: Firewall, how: str) -> None:
    kill_or_stop(firewall.enforcer.pid, how)
    firewall.services.tell("ban", host(NEW))
    firewall.wait_short_end()
    if how == "stopped":
        os.kill(firewall.enforcer.pid, signal.SIGCONT)
    else:
        firewall.enforcer.kill()
        firewall.enforcer = firewall.start()
    firewall.wait_prefixes(LONG, NEW)
    firewall.services.tell("unban", host(LONG))
    firewall.wait_prefixes(NEW)


def test_t3_cut_off_from_kafka(firewall: Firewall) -> None:
    services, proxy = firewall.services, firewall.kafka.proxies["enforcer"]
    proxy.cut()

    def withdrawn() -> bool:
        services.tell("attack_status", host(SHORT))  # it stays wanted
        return firewall.prefixes() == {LONG}

    services.until(withdrawn, LEASE + ENFORCER + SLACK, "its end")
    assert monotonic() - firewall.banned_at > LEASE - 0.5
    assert f"firewall|{SHORT}" in services.wanted()
    proxy.mend()

    def announced() -> bool:
        services.tell("attack_status", host(SHORT))
        return firewall.prefixes() == {LONG, SHORT}

    services.until(announced, 20, "in force again")
