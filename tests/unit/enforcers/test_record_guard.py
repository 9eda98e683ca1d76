"""An enforcer's own checks of each record."""

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.enforcers.record_guard import Refusal, check_measure, check_record
from consumers.mitigation.measure import FLOWSPEC, Measure, measure_of
from fnm_bus.event import FlowMatch, FlowThen, Mitigation

OWN_NETWORKS = (
    ip_network("198.18.0.0/24"),
    ip_network("203.0.113.0/24"),
    ip_network("2001:db8:1::/48"),
)
HOST, HOST6, OTHER = "203.0.113.7/32", "2001:db8:1::7/128", "198.51.100.7/32"
DISCARD = FlowThen(action="discard")


def code(refusal: Refusal | None) -> str:
    return "" if refusal is None else refusal.code


def flow(then: FlowThen | None = DISCARD, **parts: Any) -> Measure:
    return Measure(kind=FLOWSPEC, flow=FlowMatch(**parts), then=then)


def block(prefix: str | None, kind: str = "blackhole", **fields: Any) -> Measure:
    return Measure(kind=kind, prefix=prefix, **fields)


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        (block(HOST), ""),
        (block(HOST6, "firewall"), ""),
        (block("203.0.113.0/24"), ""),
        (block("203.0.112.0/23"), "own_networks"),
        (block(OTHER), "own_networks"),
        (block("198.18.0.0/23"), "own_networks"),
        (block("::ffff:cb00:7107/128"), "own_networks"),
        (block("0.0.0.0/0"), "width"),
        (block("203.0.113.7"), "prefix"),
        (block("203.0.113.7/24"), "prefix"),
        (block("2001:DB8:1::7/128"), "prefix"),
        (block("2001:db8:1::7%eth0/128"), "prefix"),
        (block(""), "form"),
        (block(None), "form"),
        (block(HOST, flow=FlowMatch(destination_prefix=HOST)), "form"),
        (block(HOST, then=DISCARD), "form"),
        (block(HOST, "notify"), "form"),
        (block(HOST, "pause"), "form"),
        (flow(destination_prefix=HOST), ""),
        (flow(source_prefix=HOST6, protocols=("udp",)), ""),
        (flow(destination_prefix=HOST, source_prefix=OTHER), ""),
        (flow(destination_prefix=OTHER, source_prefix=HOST), ""),
        (flow(destination_prefix=OTHER), "own_networks"),
        (flow(destination_prefix=HOST, source_prefix="0.0.0.0/0"), "width"),
        (flow(destination_prefix="0.0.0.0/0", source_prefix=HOST), "width"),
        (flow(), "form"),
        (flow(protocols=("udp",)), "form"),
        (flow(destination_prefix=HOST, source_ports=(2, 1)), ""),
        (flow(destination_prefix="203.0.113.7/24"), "prefix"),
        (flow(destination_prefix=""), "prefix"),
        (Measure(kind=FLOWSPEC, prefix=HOST, then=DISCARD), "form"),
    ],
)
def test_measure_is_checked(measure: Measure, expected: str) -> None:
    assert code(check_measure(measure, OWN_NETWORKS)) == expected


def test_width_is_checked_without_own_networks() -> None:
    assert check_measure(block(OTHER), None) is None
    assert code(check_measure(block("::/0"), None)) == "width"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ""),
        ({"lease_ms": 86_400_000}, ""),
        ({"lease_ms": 86_400_001}, "lease"),
        ({"lease_ms": 0}, "lease"),
        ({"lease_ms": -1}, "lease"),
        ({"key": "blackhole|203.0.113.8/32"}, "key"),
        ({"key": "firewall|203.0.113.7/32"}, "key"),
        ({"prefix": "203.0.113.8/32"}, "key"),
    ],
)
def test_record_is_checked(fields: Any, expected: str) -> None:
    key = f"blackhole|{HOST}"
    record = {"key": key, "kind": "blackhole", "prefix": HOST, "lease_ms": 60_000}
    assert (
        code(check_record(key, Mitigation(**{**record, **fields}), OWN_NETWORKS))
        == expected
    )


TEXT = st.one_of(st.none(), st.text(max_size=30), st.sampled_from([HOST, HOST6, OTHER]))
WORDS = st.lists(st.text(max_size=8), max_size=3).map(tuple)
NUMBERS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3).map(tuple)
MATCHES = st.builds(
    FlowMatch,
    destination_prefix=TEXT,
    source_prefix=TEXT,
    protocols=WORDS,
    source_ports=NUMBERS,
    fragmentation_flags=WORDS,
)


@given(
    st.sampled_from(["blackhole", "firewall", "flowspec", "notify", "", "x"]),
    TEXT,
    st.one_of(st.none(), MATCHES),
    st.integers(-(2**63), 2**63 - 1),
)
def test_any_record_is_checked_without_exception(
    kind: str, prefix: str | None, match: FlowMatch | None, lease_ms: int
) -> None:
    event = Mitigation(kind=kind, prefix=prefix, flow=match, lease_ms=lease_ms)
    if code(check_record("", event, OWN_NETWORKS)) == "key":
        networks: Any = measure_of(event).networks
        assert any(
            network.subnet_of(own)
            for network in networks
            for own in OWN_NETWORKS
            if _same_version(network, own)
        )
        assert 0 < lease_ms <= 86_400_000


def _same_version(network: Any, other: Any) -> bool:
    return bool(network.version == other.version)
