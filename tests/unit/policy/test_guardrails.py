"""Refused and held measures, each with its code."""

from datetime import timedelta
from ipaddress import IPv6Network, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.attack_facts import facts

from consumers.mitigation.measure import Measure, Network
from consumers.policy.affected import AffectedAddresses
from consumers.policy.embedded import embedded_networks
from consumers.policy.guardrails import (
    HOLD,
    PASS,
    REFUSE,
    ActiveCounts,
    attacked_network,
    check_age,
    check_limits,
    check_measure,
    worst_verdict,
)
from consumers.policy.model import Customer, Limits
from consumers.policy.networks import is_within
from fnm_bus.event import Check, FlowMatch, FlowThen

OWN = ("203.0.113.0/24", "2001:db8:1::/48")
BAN = facts("ban")


def networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


def limits(**keys: Any) -> Limits:
    chosen = {
        key: networks(*value) if isinstance(value, tuple) else value
        for key, value in {"own_networks": OWN, **keys}.items()
    }
    return Limits(**chosen)


def plain(prefix: str, kind: str = "blackhole") -> Measure:
    return Measure(kind=kind, prefix=prefix)


def flow(destination: str | None = None, source: str | None = None) -> Measure:
    match = FlowMatch(destination_prefix=destination, source_prefix=source)
    return Measure(kind="flowspec", flow=match, then=FlowThen(action="discard"))


def refused(measure: Measure, rails: Limits, *named: str) -> list[str]:
    checks = check_measure(measure, rails, named=networks(*named))
    assert all(check.stage == "guardrail" for check in checks)
    return [check.code for check in checks if check.verdict == REFUSE]


# Age.


@pytest.mark.parametrize(
    ("age", "code", "verdict"),
    [
        (0, "max_event_age", PASS),
        (300, "max_event_age", PASS),
        (300.1, "event_too_old", REFUSE),
        (-60, "max_event_age", PASS),
        (-60.1, "clock_ahead", REFUSE),
    ],
)
def test_event_age_and_clock_skew_have_bounds(
    age: float, code: str, verdict: str
) -> None:
    now = BAN.received_at + timedelta(seconds=age)
    (check,) = check_age(BAN, now, Limits())
    assert (check.stage, check.code, check.verdict) == ("guardrail", code, verdict)


def test_age_checks_name_keys_of_the_policy() -> None:
    old, ahead = (
        check_age(BAN, BAN.received_at + timedelta(days=days), Limits())[0]
        for days in (1, -1)
    )
    assert (old.name, ahead.name) == ("max_event_age", "max_clock_skew")
    assert old.text == "86400 s old, allowed 300 s"
    assert ahead.text == (
        "received 86400 s ahead of our clock, allowed 60 s: set the clock of fra1 or"
        " ours"
    )


# Measures.


def test_an_own_host_passes_every_guardrail() -> None:
    checks = check_measure(plain("203.0.113.7/32"), limits())
    assert [(check.name, check.verdict) for check in checks] == [
        ("own_networks", PASS),
        ("special_address", PASS),
        ("infrastructure", PASS),
        ("protected_prefixes", PASS),
        ("min_prefix_length_ipv4", PASS),
    ]


@pytest.mark.parametrize(
    "prefix",
    [
        *("198.51.100.1/32", "0.0.0.0/32", "224.0.0.1/32", "127.0.0.1/32"),
        *("169.254.1.1/32", "255.255.255.255/32", "::/128", "::1/128", "fe80::1/128"),
        *("ff02::1/128", "2001:db8:2::1/128", "::ffff:203.0.113.7/128"),
        *("203.0.112.0/23", "0.0.0.0/0", "::/0"),
    ],
)
@pytest.mark.parametrize("kind", ["blackhole", "firewall"])
def test_a_network_outside_the_own_is_refused(prefix: str, kind: str) -> None:
    assert set(refused(plain(prefix, kind), limits())) & {"own_networks", "no_network"}


@pytest.mark.parametrize(
    "prefix",
    [
        *("127.0.0.1/32", "224.0.0.1/32", "169.254.0.1/32", "240.0.0.1/32"),
        *("0.0.0.0/32", "0.0.0.0/8", "fe80::1/128", "ff02::1/128", "::1/128"),
    ],
)
def test_special_addresses_are_refused_inside_own_networks(prefix: str) -> None:
    rails = limits(
        own_networks=("0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"),
        min_prefix_length_ipv4=1,
    )
    assert refused(plain(prefix), rails) == ["special_address"]
    assert refused(plain("203.0.113.7/32"), rails) == []
    assert refused(plain("2001:db8::1/128"), rails) == []


@pytest.mark.parametrize("key", ["protected_prefixes", "infrastructure"])
@pytest.mark.parametrize(
    ("prefix", "protected", "text"),
    [
        (
            "203.0.113.5/32",
            "203.0.113.0/28",
            "203.0.113.5/32 is within 203.0.113.0/28, which is protected",
        ),
        (
            "203.0.113.0/28",
            "203.0.113.5/32",
            "203.0.113.0/28 covers 203.0.113.5/32, which is protected",
        ),
        ("203.0.113.5/32", "203.0.113.5/32", "203.0.113.5/32 is protected itself"),
        (
            "2001:db8:1::5/128",
            "2001:db8:1::/64",
            "2001:db8:1::5/128 is within 2001:db8:1::/64, which is protected",
        ),
    ],
)
def test_a_refusal_names_the_relation_to_the_protected_prefix(
    key: str, prefix: str, protected: str, text: str
) -> None:
    rails = limits(min_prefix_length_ipv4=24, **{key: (protected,)})
    (check,) = [
        check
        for check in check_measure(plain(prefix), rails)
        if check.verdict == REFUSE
    ]
    assert (check.name, check.code, check.text) == (key, key, text)
    assert refused(plain("203.0.113.99/32"), rails) == []


@pytest.mark.parametrize(
    "measure",
    [
        plain("203.0.113.5/32"),
        flow("203.0.113.5/32"),
        flow("203.0.113.5/32", "198.51.100.1/32"),
        flow("203.0.113.7/32", "203.0.113.5/32"),
        flow("203.0.113.7/32", "192.0.2.53/32"),
        flow("203.0.113.7/32", "192.0.2.0/24"),
        flow(source="203.0.113.5/32"),
    ],
)
def test_both_sides_of_a_measure_are_checked_for_protection(measure: Measure) -> None:
    rails = limits(protected_prefixes=("203.0.113.5/32", "192.0.2.53/32"))
    assert refused(measure, rails) == ["protected_prefixes"]


@pytest.mark.parametrize(
    "prefix",
    [
        "64:ff9b::192.0.2.53/128",
        "64:ff9b::192.0.2.0/120",
        "64:ff9b::/64",
        "64:ff9b::/96",
        "2002:c000:235::/48",
        "2002:c000:235::1/128",
        "2002:c000::/24",
        "64:ff9b:1:c000:2:3500::/128",  # /48
        "64:ff9b:1:c0:0:235::/128",  # /56
        "64:ff9b:1:0:c0:2:3500:0/128",  # /64
        "64:ff9b:1::192.0.2.53/128",  # /96
        "64:ff9b:1::/48",
        "::ffff:192.0.2.53/128",
    ],
)
def test_ipv6_forms_of_protected_ipv4_addresses_are_protected(prefix: str) -> None:
    rails = limits(
        own_networks=("::/1",),
        min_prefix_length_ipv6=1,
        protected_prefixes=("192.0.2.53/32",),
    )
    measure = plain(str(ip_network(prefix)))
    assert refused(measure, rails) == ["protected_prefixes"]
    other = limits(
        own_networks=("::/1",),
        min_prefix_length_ipv6=1,
        protected_prefixes=("2001:db8::/32",),
    )
    assert refused(measure, other) == []


def test_a_form_of_another_address_is_not_protected() -> None:
    rails = limits(own_networks=("::/1",), protected_prefixes=("192.0.2.53/32",))
    for prefix in (
        "64:ff9b::192.0.2.54/128",
        "2002:c000:236::1/128",
        "::ffff:192.0.2.54/128",
        "2001:db8::192.0.2.53/128",
    ):
        assert refused(plain(str(ip_network(prefix))), rails) == []


def test_a_protected_mapped_address_protects_the_ipv4_address() -> None:
    rails = limits(protected_prefixes=("::ffff:203.0.113.7/128",))
    assert refused(plain("203.0.113.7/32"), rails) == ["protected_prefixes"]
    assert refused(plain("203.0.113.8/32"), rails) == []


def test_the_refusal_of_a_form_names_the_ipv4_address() -> None:
    rails = limits(own_networks=("::/1",), protected_prefixes=("192.0.2.0/24",))
    checks = check_measure(plain("64:ff9b::c000:235/128"), rails)
    (text,) = [check.text for check in checks if check.verdict == REFUSE]
    assert text == (
        "64:ff9b::c000:235/128 is a form of 192.0.2.53/32, which is within"
        " 192.0.2.0/24, which is protected"
    )


def forms_of(number: int) -> list[int]:
    """Return the IPv6 forms of an IPv4 address, one for each format."""
    high, low = number >> 16, number & 0xFFFF
    local = 0x64FF9B0001 << 80
    return [
        (0x64FF9B << 96) | number,
        (0x2002 << 112) | (number << 80),
        (0xFFFF << 32) | number,
        local | (high << 64) | (low << 40),
        local | ((number >> 24) << 64) | ((number & 0xFFFFFF) << 32),
        local | (number << 24),
        local | number,
    ]


@given(st.integers(0, 2**32 - 1), st.integers(0, 128))
def test_a_network_of_forms_covers_the_addresses_of_all(
    number: int, length: int
) -> None:
    address = ip_network((number, 32))
    for form in forms_of(number):
        network = IPv6Network((form, length), strict=False)
        assert any(is_within(address, n) for n in embedded_networks(network))
    for form in forms_of(number):
        assert address in list(embedded_networks(IPv6Network((form, 128))))


def test_a_network_of_forms_covers_no_other_address() -> None:
    embedded = list(embedded_networks(IPv6Network("64:ff9b::192.0.2.0/120")))
    assert embedded == [ip_network("192.0.2.0/24")]
    embedded = list(embedded_networks(IPv6Network("2002:c000:200::/40")))
    assert embedded == [ip_network("192.0.2.0/24")]
    assert list(embedded_networks(IPv6Network("2001:db8::/32"))) == []


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("203.0.113.0/31", "min_prefix_length_ipv4"),
        ("2001:db8:1::/127", "min_prefix_length_ipv6"),
    ],
)
def test_a_measure_wider_than_allowed_is_refused(prefix: str, name: str) -> None:
    (check,) = [
        check
        for check in check_measure(plain(prefix), limits())
        if check.verdict == REFUSE
    ]
    assert (check.name, check.code) == (name, "prefix_length")
    wide = limits(min_prefix_length_ipv4=31, min_prefix_length_ipv6=127)
    assert refused(plain(prefix), wide) == []


def test_only_an_actions_own_prefix_may_be_wider() -> None:
    measure = plain("203.0.113.0/25")
    assert refused(measure, limits()) == ["prefix_length"]
    assert refused(measure, limits(), "203.0.113.0/25") == []
    assert refused(measure, limits(), "203.0.113.0/24") == ["prefix_length"]
    assert refused(measure, limits(), "203.0.113.128/25") == ["prefix_length"]


def test_only_the_attacked_side_has_a_shortest_prefix_length() -> None:
    assert refused(flow("203.0.113.7/32", "198.51.0.0/16"), limits()) == []
    assert refused(flow("203.0.113.7/32", "240.0.0.0/4"), limits()) == []
    assert refused(flow("203.0.113.0/24", "198.51.100.1/32"), limits()) == [
        "prefix_length"
    ]


@pytest.mark.parametrize(
    ("measure", "codes"),
    [
        (flow("203.0.113.7/32"), []),
        (flow("203.0.113.7/32", "0.0.0.0/0"), []),
        (flow(source="203.0.113.7/32"), []),
        (flow("0.0.0.0/0", "203.0.113.7/32"), []),
        (flow("198.51.100.1/32", "203.0.113.7/32"), []),
        (flow("198.51.100.1/32"), ["own_networks"]),
        (flow(source="198.51.100.1/32"), ["own_networks"]),
        (flow("198.51.100.1/32", "198.51.100.2/32"), ["own_networks"]),
        (flow(), ["no_network"]),
        (flow("0.0.0.0/0"), ["no_network"]),
        (flow("0.0.0.0/0", "0.0.0.0/0"), ["no_network"]),
    ],
)
def test_a_flowspec_measure_needs_an_own_network(
    measure: Measure, codes: list[str]
) -> None:
    assert refused(measure, limits()) == codes


def test_measures_that_only_inform_pass() -> None:
    measure = plain("198.51.100.1/32", "notify")
    assert check_measure(measure, limits()) == ()
    full = ActiveCounts(active=10**6)
    assert check_limits(measure, full, limits(), None) == ()


def test_the_attacked_network_is_the_own_side() -> None:
    own = networks(*OWN)
    ours = ip_network("203.0.113.7/32")
    assert attacked_network(flow("203.0.113.7/32", "198.51.100.1/32"), own) == ours
    assert attacked_network(flow("198.51.100.1/32", "203.0.113.7/32"), own) == ours
    assert attacked_network(plain("203.0.113.7/32"), own) == ours
    other = flow("198.51.100.1/32", "198.51.100.2/32")
    assert attacked_network(other, own) == ip_network("198.51.100.1/32")
    assert attacked_network(flow(), own) is None


# Limits.


def counts(*affected: str, **fields: Any) -> ActiveCounts:
    addresses = AffectedAddresses()
    for text in affected:
        addresses.add(ip_network(text))
    return ActiveCounts(affected=addresses, **fields)


def held(measure: Measure, active: ActiveCounts, **keys: Any) -> list[str]:
    customer = keys.pop("customer", None)
    checks = check_limits(measure, active, limits(**keys), customer)
    assert all(check.stage == "limit" and check.name == check.code for check in checks)
    assert {check.verdict for check in checks} <= {PASS, HOLD}
    return [check.code for check in checks if check.verdict == HOLD]


HOST = plain("203.0.113.7/32")


def test_the_number_of_active_mitigations_has_a_limit() -> None:
    assert held(HOST, counts(active=1), max_active=2) == []
    assert held(HOST, counts(active=2), max_active=2) == ["max_active"]


def test_the_number_of_starts_in_a_minute_has_a_limit() -> None:
    assert held(HOST, counts(new_last_minute=1), max_new_per_minute=2) == []
    assert held(HOST, counts(new_last_minute=2), max_new_per_minute=2) == [
        "max_new_per_minute"
    ]


def test_each_customer_has_a_limit() -> None:
    acme = Customer(name="acme", networks=networks("203.0.113.0/28"), max_active=1)
    current = counts(by_customer={"acme": 1, "other": 9})
    assert held(HOST, current, customer=acme) == ["max_per_customer"]
    assert held(HOST, current) == []
    assert held(HOST, counts(by_customer={"other": 9}), customer=acme) == []
    checks = check_limits(HOST, current, limits(), acme)
    assert "customer acme: 1 of 1 in use" in [check.text for check in checks]


def test_the_affected_share_of_the_own_addresses_has_a_limit() -> None:
    # 64 of 256 are a quarter.
    assert held(HOST, counts("203.0.113.64/26"), max_affected_share=65 / 256) == []
    assert held(HOST, counts("203.0.113.64/26")) == ["max_affected_share"]


def test_each_address_counts_once_in_the_share() -> None:
    nested = counts("203.0.113.0/26", "203.0.113.7/32", "203.0.113.8/32")
    assert held(HOST, nested, max_affected_share=0.01) == []


def test_own_networks_that_overlap_count_once_in_the_share() -> None:
    own = ("203.0.113.0/24", "203.0.113.0/25")
    full = counts("203.0.113.192/26")
    assert held(HOST, full, own_networks=own) == ["max_affected_share"]


def test_one_host_is_always_allowed_in_the_share() -> None:
    assert held(HOST, counts(), own_networks=("203.0.113.7/32",)) == []
    both = ("203.0.113.6/31",)
    assert held(HOST, counts("203.0.113.6/32"), own_networks=both) == [
        "max_affected_share"
    ]


def test_each_family_has_its_own_share() -> None:
    measure = plain("2001:db8:1::1/128")
    assert held(measure, counts("203.0.113.0/24"), max_affected_share=0.01) == []


def test_a_flowspec_measure_counts_with_its_own_side() -> None:
    measure = flow("198.51.100.0/24", "203.0.113.7/32")
    assert held(measure, counts("203.0.113.7/32"), max_affected_share=0.01) == []


def test_the_share_includes_the_new_measure() -> None:
    checks = check_limits(HOST, counts("203.0.113.64/26"), limits(), None)
    assert checks[-1].text == "25.4% of your IPv4 addresses, allowed 25.0%"


def test_the_worst_verdict_counts() -> None:
    def verdict(*words: str) -> str:
        return worst_verdict(Check(verdict=word) for word in words)

    assert verdict() == PASS
    assert verdict(PASS, PASS) == PASS
    assert verdict(PASS, HOLD) == HOLD
    assert verdict(HOLD, REFUSE, PASS) == REFUSE


def test_a_family_without_own_addresses_is_affected_wholly() -> None:
    checks = check_limits(
        plain("2001:db8::/127"), counts(), limits(own_networks=()), None
    )
    assert checks[-1].verdict == HOLD
    assert checks[-1].text == "100.0% of your IPv6 addresses, allowed 25.0%"


def test_a_match_without_a_network_is_held() -> None:
    check = check_limits(flow(), counts(), limits(), None)[-1]
    assert check == Check(
        stage="limit",
        name="max_affected_share",
        code="max_affected_share",
        verdict=HOLD,
        text="the match names no network",
    )


def test_passed_limits_report_the_current_use() -> None:
    checks = check_limits(HOST, counts(active=3, new_last_minute=2), limits(), None)
    assert [(check.name, check.text) for check in checks] == [
        ("max_active", "3 of 500 in use"),
        ("max_new_per_minute", "2 of 120 in use"),
        ("max_affected_share", "0.4% of your IPv4 addresses, allowed 25.0%"),
    ]


def test_passed_guardrails_report_the_compared_values() -> None:
    rails = limits(protected_prefixes=("203.0.113.5/32",), min_prefix_length_ipv4=31)
    assert [check.text for check in check_measure(HOST, rails)] == [
        "203.0.113.7/32 is within 203.0.113.0/24",
        "203.0.113.7/32 is not special",
        "none of 0 networks is affected",
        "none of 1 networks is affected",
        "203.0.113.7/32 is not wider than /31",
    ]


def test_refusals_of_the_attacked_side_have_texts() -> None:
    def texts(measure: Measure, rails: Limits) -> list[str]:
        checks = check_measure(measure, rails)
        return [check.text for check in checks if check.verdict == REFUSE]

    assert texts(flow(), limits()) == [
        "the match names no network, so it would match any traffic"
    ]
    assert texts(plain("198.51.100.0/24"), limits()) == [
        "198.51.100.0/24 is not within your own networks",
        "198.51.100.0/24 is wider than /32, the widest that is allowed",
    ]
    special = limits(own_networks=("127.0.0.0/8",))
    assert texts(plain("127.0.0.1/32"), special) == [
        "127.0.0.1/32 is unspecified, multicast, loopback, link-local or reserved"
    ]


def test_a_sensor_clock_slightly_ahead_means_age_0() -> None:
    now = BAN.received_at - timedelta(seconds=5)
    (check,) = check_age(BAN, now, Limits())
    assert (check.verdict, check.text) == (PASS, "0 s old, allowed 300 s")


@pytest.mark.parametrize(
    ("measure", "named", "text"),
    [
        (plain("203.0.113.0/25"), ("203.0.113.0/25",), "{} is named in the policy"),
        (plain("203.0.113.7/32"), (), "{} is not wider than /32"),
    ],
)
def test_an_allowed_prefix_length_is_reported(
    measure: Measure, named: tuple[str, ...], text: str
) -> None:
    assert check_measure(measure, limits(), named=networks(*named))[-1] == Check(
        stage="guardrail",
        name="min_prefix_length_ipv4",
        code="prefix_length",
        verdict=PASS,
        text=text.format(measure.prefix),
    )


def test_a_match_without_a_network_is_refused_as_one_check() -> None:
    assert check_measure(flow(), limits()) == (
        Check(
            stage="guardrail",
            name="own_networks",
            code="no_network",
            verdict=REFUSE,
            text="the match names no network, so it would match any traffic",
        ),
    )


def test_the_form_of_a_protected_address_is_named() -> None:
    rails = limits(own_networks=("::/1",), protected_prefixes=("192.0.2.53/32",))
    checks = check_measure(plain("2002:c000:235::/128"), rails)
    assert "2002:c000:235::/128 is a form of 192.0.2.53/32, which is protected" in [
        check.text for check in checks
    ]


def test_an_ipv6_measure_without_embedded_ipv4_passes_with_text() -> None:
    rails = limits(protected_prefixes=("192.0.2.53/32",))
    check = check_measure(plain("2001:db8:1::7/128"), rails)[3]
    assert (check.verdict, check.text) == (PASS, "none of 1 networks is affected")
