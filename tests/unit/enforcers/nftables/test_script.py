"""The input of nft, and the meaning of its output."""

import json
from ipaddress import ip_network
from math import inf, nan
from typing import Any

import pytest

from consumers.enforcers.backend import ActiveMeasure, BackendError, UnsupportedMeasure
from consumers.enforcers.nftables.backend import NftablesBackend
from consumers.enforcers.nftables.script import (
    active_measures,
    network_of,
    nft_time,
    parse_faults,
    removal_line,
    renewal_line,
    setup_lines,
)
from consumers.mitigation.measure import Measure
from consumers.settings import NftablesSettings
from fnm_bus.errors import ConfigError


def firewall(prefix: str | None) -> Measure:
    return Measure(kind="firewall", prefix=prefix)


def listing(*elements: Any, name: str = "hosts4", rules: int = 2) -> bytes:
    chain = {"family": "inet", "table": "t", "name": name, "hook": "prerouting"}
    rule = {"rule": {"family": "inet", "table": "t", "chain": name, "expr": []}}
    nft_set = {"name": name, "table": "t", "flags": ["timeout"], "elem": list(elements)}
    items = [{"metainfo": {}}, {"set": nft_set}, {"chain": chain}, *[rule] * rules]
    return json.dumps({"nftables": items}).encode()


@pytest.mark.parametrize(
    "prefix", ["192.0.2.1/32", "10.0.0.0/8", "2001:db8::/32", "2001:db8::1/128"]
)
def test_prefix_is_the_network_to_drop(prefix: str) -> None:
    assert network_of(firewall(prefix)) == ip_network(prefix)


@pytest.mark.parametrize(
    "prefix", [None, "192.0.2.1", "fe80::%x } ; flush ruleset/128", "192.0.2.1/32\n"]
)
def test_prefix_that_is_not_canonical_is_refused(prefix: str | None) -> None:
    with pytest.raises(UnsupportedMeasure) as caught:
        network_of(firewall(prefix))
    assert str(caught.value).startswith("firewall|")


@pytest.mark.parametrize("kind", ["blackhole", "flowspec", "notify", ""])
def test_other_kinds_are_refused(kind: str) -> None:
    with pytest.raises(UnsupportedMeasure):
        network_of(Measure(kind=kind, prefix="192.0.2.1/32"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.5, "1s500ms"),
        (900, "900s0ms"),
        (0.0001, "0s1ms"),
        (1.00001, "1s1ms"),
        (0.9999, "1s0ms"),
        (99_999_999.0, "99999999s0ms"),
    ],
)
def test_seconds_are_rounded_up_to_milliseconds(seconds: float, text: str) -> None:
    assert nft_time(seconds) == text


@pytest.mark.parametrize("seconds", [0, -1.0, nan, inf, -inf, 100_000_000, 1e300])
def test_timeout_without_end_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="is not between"):
        nft_time(seconds)


def test_each_prefix_length_has_its_own_set() -> None:
    networks = [
        ip_network(prefix) for prefix in ("10.0.0.0/8", "10.1.0.0/16", "::1/128")
    ]
    lines = "\n".join(setup_lines("t", networks, -300))
    assert "add set inet t net4_8 { type ipv4_addr; flags timeout; }" in lines
    assert "ip daddr and 255.255.0.0 @net4_16 counter name net4_16_to drop" in lines
    assert "ip6 saddr @hosts6 counter name hosts6_from drop" in lines
    assert "type filter hook prerouting priority -300; policy accept;" in lines
    assert "interval" not in lines


def test_withdrawal_creates_no_chain() -> None:
    lines = setup_lines("t", [ip_network("10.0.0.0/8")], None)
    assert [line.split()[1] for line in lines] == ["table", "set"]


def test_renewal_adds_or_renews_in_one_line() -> None:
    assert renewal_line("t", ip_network("192.0.2.1"), 2) == (
        "add element inet t hosts4 { 192.0.2.1 };"
        " delete element inet t hosts4 { 192.0.2.1 };"
        " add element inet t hosts4 { 192.0.2.1 timeout 2s0ms }"
    )
    assert removal_line("t", ip_network("2001:db8::/32")) == (
        "add element inet t net6_32 { 2001:db8:: };"
        " delete element inet t net6_32 { 2001:db8:: }"
    )


def test_each_refused_line_has_its_first_reason() -> None:
    text = """\
/dev/stdin:12:24-31: Error: Could not process rule: Too many open files in system
add element inet t h { 10.0.0.3 }
                       ^^^^^^^^
/dev/stdin:12:40-41: Error: Could not process rule: No such file or directory
/dev/stdin:14:1-2: Error: value too large
"""
    assert parse_faults(text) == {
        12: "Too many open files in system",
        14: "value too large",
    }


@pytest.mark.parametrize(
    "text", ["", "netlink: Error: cache initialization failed", "Error: syntax error"]
)
def test_error_without_line_has_no_faults(text: str) -> None:
    assert parse_faults(text) == {}


def test_listing_has_networks_and_seconds_left() -> None:
    element = {"elem": {"val": "192.0.2.1", "timeout": 10, "expires": 9}}
    by_hand = "192.0.2.2"
    assert active_measures(listing(element, by_hand)) == {
        firewall("192.0.2.1/32"): ActiveMeasure("drop", 9.0),
        firewall("192.0.2.2/32"): ActiveMeasure("drop", None),
    }


def test_prefix_length_comes_from_name_of_set() -> None:
    element = {"elem": {"val": "2001:db8::", "timeout": 0, "expires": 0}}
    assert active_measures(listing(element, name="net6_32")) == {
        firewall("2001:db8::/32"): ActiveMeasure("drop", 0.0)
    }


@pytest.mark.parametrize("rules", [0, 1])
def test_set_without_its_rules_drops_nothing(rules: int) -> None:
    assert active_measures(listing("192.0.2.1", rules=rules)) == {}


def test_foreign_sets_are_ignored() -> None:
    assert active_measures(listing("192.0.2.1", name="mine")) == {}
    assert active_measures(b'{"nftables": [{"table": {"name": "t"}}]}') == {}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"table inet t {",
        b"[]",
        b"{}",
        b"null",
        b'{"nftables": 7}',
        b'{"nftables": [7]}',
        b'{"nftables": [{"set": 7}]}',
        b'{"nftables": [{"chain": 7}]}',
        listing("no address"),
        listing({"elem": {}}),
        listing({"elem": 7}),
        listing(7.5),
        listing({"elem": {"val": {"range": ["192.0.2.1", "192.0.2.9"]}}}),
        listing({"elem": {"val": "192.0.2.1", "expires": "soon"}}),
    ],
)
def test_text_that_is_not_a_listing_is_refused(answer: bytes) -> None:
    with pytest.raises(BackendError, match="not understood"):
        active_measures(answer)


@pytest.mark.parametrize(
    "table", ["a b", "t; flush ruleset", "1st", "t\n", "t{", "é", "-t", "x" * 101]
)
def test_invalid_table_name_is_a_configuration_error(table: str) -> None:
    with pytest.raises(ConfigError, match=r"consumers\.nftables\.table"):
        NftablesBackend(NftablesSettings(table=table))


@pytest.mark.parametrize("command", [" ", "nft 'unclosed"])
def test_invalid_command_is_a_configuration_error(command: str) -> None:
    with pytest.raises(ConfigError, match=r"consumers\.nftables\.command"):
        NftablesBackend(NftablesSettings(command=command))
