"""Sets of networks give the answers of plain comparisons."""

from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from consumers.mitigation.measure import Network
from consumers.policy.networks import NetworkSet, is_within

TREE = [
    *(
        network
        for length in range(28, 33)
        for network in ip_network("203.0.113.0/28").subnets(new_prefix=length)
    ),
    *(
        network
        for length in range(124, 129)
        for network in ip_network("::cb00:7100/124").subnets(new_prefix=length)
    ),
    ip_network("0.0.0.0/0"),
    ip_network("::/0"),
]
NETWORKS = st.lists(st.sampled_from(TREE), max_size=8)


def inside(inner: Network, outer: Network) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


@given(st.sampled_from(TREE), st.sampled_from(TREE))
def test_a_network_is_within_its_own_family_only(
    inner: Network, outer: Network
) -> None:
    assert is_within(inner, outer) == inside(inner, outer)


@given(NETWORKS, st.sampled_from(TREE))
def test_a_containing_network_is_found(
    networks: list[Network], candidate: Network
) -> None:
    outer = NetworkSet(networks).containing(candidate)
    assert (outer is not None) == any(inside(candidate, n) for n in networks)
    assert outer is None or (inside(candidate, outer) and outer in networks)


@given(NETWORKS, st.sampled_from(TREE))
def test_an_overlapping_network_is_found(
    networks: list[Network], candidate: Network
) -> None:
    second = NetworkSet(networks).overlapping(candidate)
    expected = any(inside(candidate, n) or inside(n, candidate) for n in networks)
    assert (second is not None) == expected
    assert second is None or inside(candidate, second) or inside(second, candidate)


@given(NETWORKS, NETWORKS)
def test_all_networks_are_contained_if_each_is(
    outer: list[Network], inner: list[Network]
) -> None:
    expected = bool(inner) and all(any(inside(i, o) for o in outer) for i in inner)
    assert NetworkSet(outer).contains_all(NetworkSet(inner)) == expected


@given(st.lists(st.sampled_from([n for n in TREE if n.prefixlen]), max_size=8))
def test_addresses_are_counted_once(networks: list[Network]) -> None:
    for version in (4, 6):
        addresses = {int(a) for n in networks if n.version == version for a in n}
        assert NetworkSet(networks).addresses(version) == len(addresses)


def test_sets_of_equal_networks_are_equal() -> None:
    first, second = NetworkSet(TREE), NetworkSet(TREE)
    assert first == second
    assert hash(first) == hash(second)
    assert first != NetworkSet([])
    assert first != TREE


def test_a_wider_set_contains_many_networks_of_both_families() -> None:
    hosts = [
        *ip_network("203.0.113.0/28").subnets(new_prefix=32),
        *ip_network("::cb00:7100/124").subnets(new_prefix=128),
    ]
    halves = [
        *ip_network("203.0.113.0/28").subnets(new_prefix=29),
        *ip_network("::cb00:7100/124").subnets(new_prefix=125),
    ]
    many = NetworkSet([*hosts, *hosts])
    assert NetworkSet(halves).contains_all(many)
    for missing in range(len(halves)):
        rest = halves[:missing] + halves[missing + 1 :]
        assert not NetworkSet(rest).contains_all(many)


def test_a_network_with_a_narrower_ones_start_is_not_contained() -> None:
    outer = NetworkSet([ip_network("203.0.113.0/29")])
    whole = ip_network("203.0.113.0/28")
    assert not outer.contains_all(NetworkSet([whole, whole]))
    equal = NetworkSet([ip_network("203.0.113.0/29"), ip_network("203.0.113.7/32")])
    assert outer.contains_all(equal)
    wider = NetworkSet([whole, ip_network("203.0.113.8/32"), ip_network("::1/128")])
    assert not outer.contains_all(wider)
