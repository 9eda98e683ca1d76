"""Affected addresses: an exact union in any order of networks."""

from collections import Counter
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.mitigation.measure import Network
from consumers.policy.affected import AffectedAddresses

SMALL = [
    *ip_network("203.0.113.0/28").subnets(new_prefix=32),
    *ip_network("203.0.113.0/28").subnets(new_prefix=30),
    *ip_network("203.0.113.0/28").subnets(new_prefix=29),
    ip_network("203.0.113.0/28"),
    ip_network("2001:db8::/126"),
    ip_network("2001:db8::2/128"),
    ip_network("2001:db8::2/127"),
]


def addresses(networks: Counter[Network], version: int) -> set[int]:
    return {
        int(address)
        for network in networks.elements()
        if network.version == version
        for address in network
    }


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(SMALL)), max_size=40),
    st.sampled_from(SMALL),
)
def test_the_union_is_the_set_of_its_addresses(
    changes: list[tuple[bool, Network]], candidate: Network
) -> None:
    affected = AffectedAddresses()
    present: Counter[Network] = Counter()
    for add, network in changes:
        if add:
            affected.add(network)
            present[network] += 1
        elif present[network]:
            affected.remove(network)
            present[network] -= 1
        for version in (4, 6):
            assert affected.count(version) == len(addresses(present, version))
        union = addresses(present, candidate.version)
        added = {int(address) for address in candidate} - union
        assert affected.count_new(candidate) == len(added)


def test_a_network_that_was_added_twice_is_removed_twice() -> None:
    affected = AffectedAddresses()
    network = ip_network("203.0.113.0/24")
    affected.add(network)
    affected.add(network)
    affected.remove(network)
    assert affected.count(4) == 256
    affected.remove(network)
    assert affected.count(4) == 0
    with pytest.raises(KeyError):
        affected.remove(network)
    assert affected.count(4) == 0
    with pytest.raises(KeyError):
        affected.remove(ip_network("203.0.113.0/25"))


def test_all_addresses_can_be_affected() -> None:
    affected = AffectedAddresses()
    affected.add(ip_network("203.0.113.7/32"))
    assert affected.count_new(ip_network("0.0.0.0/0")) == 2**32 - 1
    affected.add(ip_network("0.0.0.0/0"))
    affected.add(ip_network("::/0"))
    assert (affected.count(4), affected.count(6)) == (2**32, 2**128)
    assert affected.count_new(ip_network("2001:db8::/32")) == 0


def test_work_does_not_grow_with_the_number_of_networks() -> None:
    affected = AffectedAddresses()
    hosts = [ip_network((3405803776 + number, 32)) for number in range(20_000)]
    for host in hosts:
        affected.add(host)
    assert affected.count(4) == 20_000
    family = affected._families[4]
    # One prefix length is in use, so a change touches no table but its own.
    assert len(family._inside) == 1
    group = ip_network((3405803776 & ~0xFFFF, 16))
    assert affected.count_new(group) == 2**16 - sum(h.subnet_of(group) for h in hosts)
