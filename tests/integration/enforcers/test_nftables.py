"""Real packets through a real nftables: drops, their ends, and refusals."""

import json
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from support.netns import OUTSIDE, ROUTER, Network
from support.process import wait_until

from consumers.enforcers.backend import BackendError, DesiredMeasure
from consumers.enforcers.nftables.backend import NftablesBackend
from consumers.mitigation.measure import Measure
from consumers.settings import NftablesSettings

HOST4, HOST6 = "10.1.2.3", "2001:db8:c::3"
LONG = 300.0


@pytest.fixture
def settings(network: Network) -> Iterator[NftablesSettings]:
    """Settings with a new table."""
    settings = NftablesSettings(table=f"t{uuid4().hex}", command=network.nft)
    yield settings
    nft(settings, "delete", "table", "inet", settings.table)


@pytest.fixture
def backend(settings: NftablesSettings) -> NftablesBackend:
    """A backend whose table does not exist yet."""
    return NftablesBackend(settings)


def nft(
    settings: NftablesSettings, *arguments: str
) -> "subprocess.CompletedProcess[bytes]":
    command = [*shlex.split(settings.command), *arguments]
    return subprocess.run(command, check=False, capture_output=True)


def firewall(*prefixes: str) -> Sequence[Measure]:
    return [Measure(kind="firewall", prefix=prefix) for prefix in prefixes]


def wanted(*prefixes: str, seconds: float = LONG) -> Sequence[DesiredMeasure]:
    return [DesiredMeasure(measure, seconds) for measure in firewall(*prefixes)]


def active_prefixes(backend: NftablesBackend) -> set[str | None]:
    return {measure.prefix for measure in backend.active()}


def packet_count(settings: NftablesSettings, name: str) -> int:
    """Return the number of packets of a counter."""
    result = nft(settings, "-j", "list", "counter", "inet", settings.table, name)
    items = json.loads(result.stdout)["nftables"]
    return sum(item["counter"]["packets"] for item in items if "counter" in item)


@pytest.mark.parametrize("address", [HOST4, HOST6])
def test_host_is_dropped_in_both_directions_without_its_neighbour(
    network: Network, backend: NftablesBackend, address: str
) -> None:
    outside = OUTSIDE[":" in address]
    neighbour = address.replace("3", "4")
    prefix = f"{address}/128" if ":" in address else f"{address}/32"
    assert network.crosses("outside", "inside", address)
    backend.announce(wanted(prefix))
    assert not network.crosses("outside", "inside", address)
    assert not network.crosses("inside", "outside", outside, origin=address)
    assert network.crosses("outside", "inside", neighbour)
    assert network.crosses("inside", "outside", outside, origin=neighbour)
    backend.withdraw(firewall(prefix))
    assert network.crosses("outside", "inside", address)
    assert network.crosses("inside", "outside", outside, origin=address)


@pytest.mark.parametrize("version", [4, 6])
def test_packets_to_the_firewall_are_dropped_and_from_it_pass(
    network: Network, backend: NftablesBackend, version: int
) -> None:
    address = HOST4 if version == 4 else HOST6
    router = ROUTER[version == 6]
    backend.announce(wanted(f"{address}/{32 if version == 4 else 128}"))
    assert not network.crosses("inside", "router", router, origin=address)
    assert network.crosses("router", "inside", address)


@pytest.mark.parametrize(
    ("wide", "narrow", "within_both", "within_wide", "beyond"),
    [
        ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "10.2.0.1", "198.51.100.2"),
        ("10.1.0.0/23", "10.1.1.128/25", "10.1.1.200", "10.1.1.1", "10.1.2.1"),
        (
            *("2001:db8:c::/49", "2001:db8:c:1::/64"),
            *("2001:db8:c:1::1", "2001:db8:c:2::1", "2001:db8:c:8000::1"),
        ),
    ],
)
def test_overlapping_networks_have_separate_leases(  # noqa: PLR0913, PLR0917 - the case
    network: Network,
    backend: NftablesBackend,
    wide: str,
    narrow: str,
    within_both: str,
    within_wide: str,
    beyond: str,
) -> None:
    backend.announce(wanted(wide, narrow))
    assert active_prefixes(backend) == {wide, narrow}
    assert not network.crosses("outside", "inside", within_both)
    assert not network.crosses("outside", "inside", within_wide)
    assert network.crosses("outside", "inside", beyond)
    backend.withdraw(firewall(wide))
    assert not network.crosses("outside", "inside", within_both)
    assert network.crosses("outside", "inside", within_wide)
    backend.announce(wanted(wide))
    backend.withdraw(firewall(narrow))
    assert not network.crosses("outside", "inside", within_both)


@pytest.mark.parametrize(
    ("prefix", "address"), [("10.1.2.3/32", HOST4), ("2001:db8:c::/64", HOST6)]
)
def test_kernel_ends_drop_without_any_process(
    network: Network, settings: NftablesSettings, prefix: str, address: str
) -> None:
    backend = NftablesBackend(settings)
    before = time.monotonic()
    backend.announce(wanted(prefix, seconds=3))
    del backend
    assert not network.crosses("outside", "inside", address)
    wait_until(lambda: network.crosses("outside", "inside", address), 20, "an end")
    assert time.monotonic() - before >= 3
    assert active_prefixes(NftablesBackend(settings)) == set()


def test_each_lease_ends_at_its_own_time(
    network: Network, backend: NftablesBackend
) -> None:
    backend.announce([*wanted("10.0.0.0/8", seconds=1), *wanted("10.1.0.0/16")])
    wait_until(lambda: network.crosses("outside", "inside", "10.2.0.1"), 20, "an end")
    assert not network.crosses("outside", "inside", HOST4)


def test_renewal_counts_from_now_and_may_shorten(backend: NftablesBackend) -> None:
    (measure,) = firewall("10.1.2.3/32")
    for lease in (100.0, 1000.0, 50.0):
        backend.announce([DesiredMeasure(measure, lease)])
        seconds_left = backend.active()[measure].seconds_left
        assert seconds_left is not None
        assert lease - 30 < seconds_left <= lease


@contextmanager
def flood(network: Network, address: str) -> Iterator[Callable[[], int]]:
    """Send to *address* continuously; yields a function that returns the count."""
    done = threading.Event()
    sent = 0
    source = OUTSIDE[":" in address]

    def send() -> None:
        nonlocal sent
        with network.sender("outside", source) as sender:
            while not done.is_set():
                sender.sendto(b"flood", (address, 7777))
                sent += 1
                time.sleep(0.0002)  # leaves processor time to nft

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield lambda: sent
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize(
    ("prefix", "address", "counter"),
    [
        ("10.1.2.3/32", HOST4, "hosts4_to"),
        ("10.1.0.0/16", HOST4, "net4_16_to"),
        ("2001:db8:c::3/128", HOST6, "hosts6_to"),
    ],
)
def test_no_packet_passes_during_renewal(
    network: Network,
    settings: NftablesSettings,
    prefix: str,
    address: str,
    counter: str,
) -> None:
    backend = NftablesBackend(settings)
    backend.announce(wanted(prefix))
    network.received("inside", 6 if ":" in address else 4)
    with flood(network, address) as sent:
        for _ in range(20):
            count = sent()
            backend.announce(wanted(prefix, "10.77.0.0/24", "2001:db8:c::77/128"))
            wait_until(lambda count=count: sent() > count, 20, "packets")
    assert network.received("inside", 6 if ":" in address else 4) == []
    wait_until(lambda: packet_count(settings, counter) == sent(), 20, "the counter")


def test_restart_keeps_active_measures(
    network: Network, settings: NftablesSettings
) -> None:
    first = NftablesBackend(settings)
    first.announce(wanted("10.1.2.3/32", "10.5.0.0/16"))
    first.close()
    again = NftablesBackend(settings)
    again.announce(wanted("10.1.2.4/32"))
    assert active_prefixes(again) == {"10.1.2.3/32", "10.1.2.4/32", "10.5.0.0/16"}
    assert not network.crosses("outside", "inside", HOST4)
    assert not network.crosses("outside", "inside", "10.5.0.1")


@pytest.mark.parametrize("command", ["delete table", "flush chain", "flush table"])
def test_measure_removed_by_operator_is_announced_again(
    network: Network, settings: NftablesSettings, command: str
) -> None:
    backend = NftablesBackend(settings)
    backend.announce(wanted("10.1.2.3/32"))
    chain = ["hosts4"] if command == "flush chain" else []
    result = nft(settings, *command.split(), "inet", settings.table, *chain)
    assert result.returncode == 0, result.stderr
    assert network.crosses("outside", "inside", HOST4)
    assert active_prefixes(backend) == set()
    backend.announce(wanted("10.1.2.3/32"))
    assert active_prefixes(backend) == {"10.1.2.3/32"}
    assert not network.crosses("outside", "inside", HOST4)


def test_element_without_timeout_is_listed_without_end(
    settings: NftablesSettings,
) -> None:
    backend = NftablesBackend(settings)
    backend.announce(wanted("10.1.2.3/32"))
    element = ["inet", settings.table, "hosts4", "{ 10.9.9.9 }"]
    assert nft(settings, "add", "element", *element).returncode == 0
    (measure,) = firewall("10.9.9.9/32")
    assert backend.active()[measure].seconds_left is None
    backend.announce([DesiredMeasure(measure, LONG)])
    assert backend.active()[measure].seconds_left is not None


def test_refused_measures_prevent_no_others(settings: NftablesSettings) -> None:
    table = ["inet", settings.table]
    small = "{ type ipv4_addr; flags timeout; size 3; }"
    assert nft(settings, "add", "table", *table).returncode == 0
    assert nft(settings, "add", "set", *table, "hosts4", small).returncode == 0
    backend = NftablesBackend(settings)
    hosts = [f"10.0.0.{number}/32" for number in range(9)]
    with pytest.raises(BackendError, match="nftables refused") as caught:
        backend.announce(wanted(*hosts[:5], "10.9.0.0/16", *hosts[5:]))
    assert caught.value.retryable
    assert "10.0.0.3/32: Too many open files" in str(caught.value)
    assert "and 1 more" in str(caught.value)
    assert active_prefixes(backend) == {*hosts[:3], "10.9.0.0/16"}
    backend.withdraw(firewall(hosts[0]))
    backend.announce(wanted(hosts[8]))
    assert active_prefixes(backend) == {*hosts[1:3], hosts[8], "10.9.0.0/16"}


def test_refused_measure_is_isolated_when_error_names_no_line(
    network: Network, settings: NftablesSettings, tmp_path: Path
) -> None:
    flaky_nft = tmp_path / "nft"
    flaky_nft.write_text(
        "#!/bin/sh\n"
        'case "$1" in -j) exec nft "$@";; esac\n'
        "text=$(cat)\n"
        'case "$text" in *10.0.0.5*) echo no buffer space >&2; exit 1;; esac\n'
        'printf "%s\\n" "$text" | nft -f -\n'
    )
    flaky_nft.chmod(0o755)
    command = shlex.join([*shlex.split(network.nft)[:-1], str(flaky_nft)])
    backend = NftablesBackend(settings.model_copy(update={"command": command}))
    hosts = [f"10.0.0.{number}/32" for number in range(20)]
    with pytest.raises(BackendError, match=r"10\.0\.0\.5/32: no buffer space$"):
        backend.announce(wanted(*hosts))
    assert active_prefixes(backend) == {*hosts} - {"10.0.0.5/32"}


def test_measure_with_ended_lease_is_withdrawn(backend: NftablesBackend) -> None:
    backend.announce(wanted("10.0.0.1/32", "10.0.0.2/32"))
    expired = [*wanted("10.0.0.1/32", seconds=0), *wanted("10.0.0.3/32", seconds=-5)]
    backend.announce([*expired, *wanted("10.0.0.4/32")])
    assert active_prefixes(backend) == {"10.0.0.2/32", "10.0.0.4/32"}


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 1e9])
def test_lease_without_end_is_refused(backend: NftablesBackend, seconds: float) -> None:
    with pytest.raises(BackendError, match=r"10\.0\.0\.1/32: lease: "):
        backend.announce(
            [*wanted("10.0.0.1/32", seconds=seconds), *wanted("10.0.0.2/32")]
        )
    assert active_prefixes(backend) == {"10.0.0.2/32"}


def test_ten_thousand_are_renewed_in_one_transaction(backend: NftablesBackend) -> None:
    hosts = [f"10.0.{number >> 8}.{number & 255}/32" for number in range(10_000)]
    for _ in range(2):
        backend.announce(wanted(*hosts))
    assert active_prefixes(backend) == set(hosts)
    backend.withdraw(firewall(*hosts))
    assert active_prefixes(backend) == set()


def test_foreign_table_of_same_name_is_reported_with_remedy(
    settings: NftablesSettings,
) -> None:
    table = ["inet", settings.table]
    other = "{ type ipv6_addr; }"
    assert nft(settings, "add", "table", *table).returncode == 0
    assert nft(settings, "add", "set", *table, "hosts4", other).returncode == 0
    backend = NftablesBackend(settings)
    with pytest.raises(BackendError, match=f"nft delete table inet {settings.table}"):
        backend.announce(wanted("10.0.0.1/32", "10.0.0.2/32"))


def test_changed_priority_is_reported_and_prevents_no_withdrawal(
    settings: NftablesSettings,
) -> None:
    NftablesBackend(settings).announce(wanted("10.0.0.1/32"))
    changed = NftablesBackend(settings.model_copy(update={"priority": -200}))
    with pytest.raises(BackendError, match="other settings"):
        changed.announce(wanted("10.0.0.2/32"))
    changed.withdraw(firewall("10.0.0.1/32"))
    assert active_prefixes(changed) == set()


def test_missing_capability_is_named(
    network: Network, settings: NftablesSettings
) -> None:
    unprivileged = "setpriv --reuid 65534 --clear-groups --bounding-set -all nft"
    command = " ".join([*network.nft.split()[:-1], unprivileged])
    backend = NftablesBackend(settings.model_copy(update={"command": command}))
    for call in (
        backend.active,
        lambda: backend.announce(wanted("10.0.0.1/32", "10.0.0.2/32")),
        lambda: backend.withdraw(firewall("10.0.0.1/32")),
    ):
        with pytest.raises(BackendError, match="CAP_NET_ADMIN"):
            call()


def test_missing_namespace_is_reported(settings: NftablesSettings) -> None:
    command = "ip netns exec fnmbus-nowhere nft"
    backend = NftablesBackend(settings.model_copy(update={"command": command}))
    with pytest.raises(BackendError, match="network namespace"):
        backend.active()
    with pytest.raises(BackendError, match="network namespace"):
        backend.announce(wanted("10.0.0.1/32", "10.0.0.2/32"))
