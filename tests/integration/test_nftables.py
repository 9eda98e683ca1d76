"""Real packets, a real nftables: what is dropped, for how long, and what gets in."""

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
    """A table that no other test has."""
    it = NftablesSettings(table=f"t{uuid4().hex}", command=network.nft)
    yield it
    nft(it, "delete", "table", "inet", it.table)


@pytest.fixture
def backend(settings: NftablesSettings) -> NftablesBackend:
    """A backend whose table is not there yet."""
    return NftablesBackend(settings)


def nft(
    settings: NftablesSettings, *arguments: str
) -> "subprocess.CompletedProcess[bytes]":
    command = [*shlex.split(settings.command), *arguments]
    return subprocess.run(command, check=False, capture_output=True)


def firewall(*prefixes: str) -> Sequence[Measure]:
    return [Measure(kind="firewall", prefix=it) for it in prefixes]


def wanted(*prefixes: str, left: float = LONG) -> Sequence[DesiredMeasure]:
    return [DesiredMeasure(it, left) for it in firewall(*prefixes)]


def stands(backend: NftablesBackend) -> set[str | None]:
    return {it.prefix for it in backend.active()}


def counted(settings: NftablesSettings, name: str) -> int:
    """Return how many packets a counter has seen."""
    said = nft(settings, "-j", "list", "counter", "inet", settings.table, name)
    items = json.loads(said.stdout)["nftables"]
    return sum(it["counter"]["packets"] for it in items if "counter" in it)


@pytest.mark.parametrize("address", [HOST4, HOST6])
def test_a_host_is_dropped_in_both_directions_and_its_neighbour_is_not(
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
def test_what_is_for_the_firewall_itself_is_dropped_what_it_sends_is_not(
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
def test_networks_that_overlap_stand_until_the_end_of_each(  # noqa: PLR0913, PLR0917 - the case
    network: Network,
    backend: NftablesBackend,
    wide: str,
    narrow: str,
    within_both: str,
    within_wide: str,
    beyond: str,
) -> None:
    backend.announce(wanted(wide, narrow))
    assert stands(backend) == {wide, narrow}
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
def test_the_kernel_ends_it_though_nobody_is_there(
    network: Network, settings: NftablesSettings, prefix: str, address: str
) -> None:
    backend = NftablesBackend(settings)
    before = time.monotonic()
    backend.announce(wanted(prefix, left=3))
    del backend
    assert not network.crosses("outside", "inside", address)
    wait_until(lambda: network.crosses("outside", "inside", address), 20, "an end")
    assert time.monotonic() - before >= 3
    assert stands(NftablesBackend(settings)) == set()


def test_each_ends_at_its_own_time(network: Network, backend: NftablesBackend) -> None:
    backend.announce([*wanted("10.0.0.0/8", left=1), *wanted("10.1.0.0/16")])
    wait_until(lambda: network.crosses("outside", "inside", "10.2.0.1"), 20, "an end")
    assert not network.crosses("outside", "inside", HOST4)


def test_a_renewal_counts_from_now_and_may_shorten(backend: NftablesBackend) -> None:
    (measure,) = firewall("10.1.2.3/32")
    for left in (100.0, 1000.0, 50.0):
        backend.announce([DesiredMeasure(measure, left)])
        seconds = backend.active()[measure].seconds_left
        assert seconds is not None
        assert left - 30 < seconds <= left


@contextmanager
def flood(network: Network, address: str) -> Iterator[Callable[[], int]]:
    """Send to *address* all the time; gives how many were sent."""
    done = threading.Event()
    sent = 0
    source = OUTSIDE[":" in address]

    def send() -> None:
        nonlocal sent
        with network.sender("outside", source) as it:
            while not done.is_set():
                it.sendto(b"flood", (address, 7777))
                sent += 1
                time.sleep(0.0002)  # leaves a processor to nft

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
def test_no_packet_passes_while_leases_are_renewed(
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
            at = sent()
            backend.announce(wanted(prefix, "10.77.0.0/24", "2001:db8:c::77/128"))
            wait_until(lambda at=at: sent() > at, 20, "packets")
    assert network.received("inside", 6 if ":" in address else 4) == []
    wait_until(lambda: counted(settings, counter) == sent(), 20, "all counted")


def test_a_restart_keeps_what_stands_and_renews_it(
    network: Network, settings: NftablesSettings
) -> None:
    first = NftablesBackend(settings)
    first.announce(wanted("10.1.2.3/32", "10.5.0.0/16"))
    first.close()
    again = NftablesBackend(settings)
    again.announce(wanted("10.1.2.4/32"))
    assert stands(again) == {"10.1.2.3/32", "10.1.2.4/32", "10.5.0.0/16"}
    assert not network.crosses("outside", "inside", HOST4)
    assert not network.crosses("outside", "inside", "10.5.0.1")


@pytest.mark.parametrize("what", ["delete table", "flush chain", "flush table"])
def test_what_somebody_removed_is_not_listed_and_comes_back(
    network: Network, settings: NftablesSettings, what: str
) -> None:
    backend = NftablesBackend(settings)
    backend.announce(wanted("10.1.2.3/32"))
    chain = ["hosts4"] if what == "flush chain" else []
    ended = nft(settings, *what.split(), "inet", settings.table, *chain)
    assert ended.returncode == 0, ended.stderr
    assert network.crosses("outside", "inside", HOST4)
    assert stands(backend) == set()
    backend.announce(wanted("10.1.2.3/32"))
    assert stands(backend) == {"10.1.2.3/32"}
    assert not network.crosses("outside", "inside", HOST4)


def test_what_somebody_put_in_for_ever_is_listed_without_an_end(
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


def test_when_some_are_refused_the_rest_get_in(settings: NftablesSettings) -> None:
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
    assert stands(backend) == {*hosts[:3], "10.9.0.0/16"}
    backend.withdraw(firewall(hosts[0]))
    backend.announce(wanted(hosts[8]))
    assert stands(backend) == {*hosts[1:3], hosts[8], "10.9.0.0/16"}


def test_a_refusal_that_names_no_line_is_searched_for(
    network: Network, settings: NftablesSettings, tmp_path: Path
) -> None:
    moody = tmp_path / "nft"
    moody.write_text(
        "#!/bin/sh\n"
        'case "$1" in -j) exec nft "$@";; esac\n'
        "text=$(cat)\n"
        'case "$text" in *10.0.0.5*) echo no buffer space >&2; exit 1;; esac\n'
        'printf "%s\\n" "$text" | nft -f -\n'
    )
    moody.chmod(0o755)
    command = shlex.join([*shlex.split(network.nft)[:-1], str(moody)])
    backend = NftablesBackend(settings.model_copy(update={"command": command}))
    hosts = [f"10.0.0.{number}/32" for number in range(20)]
    with pytest.raises(BackendError, match=r"10\.0\.0\.5/32: no buffer space$"):
        backend.announce(wanted(*hosts))
    assert stands(backend) == {*hosts} - {"10.0.0.5/32"}


def test_what_has_no_time_left_does_not_stand(backend: NftablesBackend) -> None:
    backend.announce(wanted("10.0.0.1/32", "10.0.0.2/32"))
    over = [*wanted("10.0.0.1/32", left=0), *wanted("10.0.0.3/32", left=-5)]
    backend.announce([*over, *wanted("10.0.0.4/32")])
    assert stands(backend) == {"10.0.0.2/32", "10.0.0.4/32"}


@pytest.mark.parametrize("left", [float("inf"), float("nan"), 1e9])
def test_what_would_never_end_does_not_get_in(
    backend: NftablesBackend, left: float
) -> None:
    with pytest.raises(BackendError, match=r"10\.0\.0\.1/32: lease: "):
        backend.announce(
            [*wanted("10.0.0.1/32", left=left), *wanted("10.0.0.2/32")],
        )
    assert stands(backend) == {"10.0.0.2/32"}


def test_ten_thousand_are_renewed_in_one_transaction(backend: NftablesBackend) -> None:
    hosts = [f"10.0.{number >> 8}.{number & 255}/32" for number in range(10_000)]
    for _ in range(2):
        backend.announce(wanted(*hosts))
    assert stands(backend) == set(hosts)
    backend.withdraw(firewall(*hosts))
    assert stands(backend) == set()


def test_somebody_elses_table_of_this_name_is_told_with_the_remedy(
    settings: NftablesSettings,
) -> None:
    table = ["inet", settings.table]
    other = "{ type ipv6_addr; }"
    assert nft(settings, "add", "table", *table).returncode == 0
    assert nft(settings, "add", "set", *table, "hosts4", other).returncode == 0
    backend = NftablesBackend(settings)
    with pytest.raises(BackendError, match=f"nft delete table inet {settings.table}"):
        backend.announce(wanted("10.0.0.1/32", "10.0.0.2/32"))


def test_another_priority_than_before_is_told_and_takes_back_all_the_same(
    settings: NftablesSettings,
) -> None:
    NftablesBackend(settings).announce(wanted("10.0.0.1/32"))
    changed = NftablesBackend(settings.model_copy(update={"priority": -200}))
    with pytest.raises(BackendError, match="other settings"):
        changed.announce(wanted("10.0.0.2/32"))
    changed.withdraw(firewall("10.0.0.1/32"))
    assert stands(changed) == set()


def test_without_the_right_to_it_the_capability_is_named(
    network: Network, settings: NftablesSettings
) -> None:
    lowly = "setpriv --reuid 65534 --clear-groups --bounding-set -all nft"
    command = " ".join([*network.nft.split()[:-1], lowly])
    backend = NftablesBackend(settings.model_copy(update={"command": command}))
    for call in (
        backend.active,
        lambda: backend.announce(wanted("10.0.0.1/32", "10.0.0.2/32")),
        lambda: backend.withdraw(firewall("10.0.0.1/32")),
    ):
        with pytest.raises(BackendError, match="CAP_NET_ADMIN"):
            call()


def test_a_namespace_that_is_missing_is_told(settings: NftablesSettings) -> None:
    command = "ip netns exec fnmbus-nowhere nft"
    backend = NftablesBackend(settings.model_copy(update={"command": command}))
    with pytest.raises(BackendError, match="network namespace"):
        backend.active()
    with pytest.raises(BackendError, match="network namespace"):
        backend.announce(wanted("10.0.0.1/32", "10.0.0.2/32"))
