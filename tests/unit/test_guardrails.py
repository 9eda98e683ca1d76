"""What is refused, and what is held for a person."""

from ipaddress import ip_network

import pytest
from services.court import HOST, KEY, Court, policy, rule

from consumers.policy.model import Customer


@pytest.mark.parametrize(
    "target",
    [
        "198.51.100.1",
        "0.0.0.0",  # noqa: S104 - what FastNetMon sends for "no host"
        "224.0.0.1",
        "127.0.0.1",
        "169.254.1.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "ff02::1",
        "2001:db8:2::1",
        "::ffff:203.0.113.7",
    ],
)
def test_nothing_outside_the_own_networks_is_touched(target: str) -> None:
    court = Court()
    court.tell("ban", target)
    assert court.records == []
    assert court.told("refused")


@pytest.mark.parametrize("target", ["127.0.0.1", "224.0.0.1", "169.254.0.1", "fe80::1"])
def test_a_host_of_another_scope_is_refused_although_it_is_called_ours(
    target: str,
) -> None:
    own = (ip_network("0.0.0.0/0"), ip_network("::/0"))
    court = Court(policy(own=own))
    court.tell("ban", target)
    assert "special" in court.told("refused")[0]


def test_what_covers_a_protected_prefix_is_refused_and_says_which() -> None:
    court = Court(policy(widest4=24, never=(ip_network("203.0.113.53/32"),)))
    court.tell("ban", "web", networks=("203.0.113.0/24",))
    assert court.records == []
    assert "203.0.113.0/24 covers 203.0.113.53/32" in court.told("refused")[0]


def test_a_host_within_a_protected_prefix_is_refused() -> None:
    court = Court(policy(never=(ip_network("203.0.113.0/28"),)))
    court.tell("ban")
    assert "never" in court.told("refused")[0]


def test_an_address_of_a_router_is_refused() -> None:
    court = Court(policy(addresses=(ip_network(f"{HOST}/32"),)))
    court.tell("ban")
    assert "addresses" in court.told("refused")[0]


@pytest.mark.parametrize("network", ["203.0.113.0/24", "2001:db8:1::/64"])
def test_nothing_wider_than_allowed(network: str) -> None:
    court = Court()
    court.tell("ban", "web", networks=(network,))
    assert "width" in court.told("refused")[0]


def test_a_cap_of_a_customer_holds_that_customer_only() -> None:
    acme = Customer(name="acme", networks=(ip_network("203.0.113.0/28"),), cap=1)
    court = Court(policy(customers=(acme,)))
    court.tell("ban", "203.0.113.1")
    court.tell("ban", "203.0.113.2")
    court.tell("ban", "203.0.113.99")
    assert court.of("blackhole|203.0.113.1/32").customer == "acme"
    assert court.of("blackhole|203.0.113.2/32").state == "proposed"
    assert court.of("blackhole|203.0.113.99/32").state == "wanted"


def test_no_more_start_in_a_minute_than_allowed() -> None:
    court = Court(policy(per_minute=2))
    for number in range(3):
        court.tell("ban", f"203.0.113.{number}")
    assert len(court.wanted()) == 2
    court.wait(61)
    court.tell("attack_status", "203.0.113.2")
    assert len(court.wanted()) == 3


def test_the_cap_of_a_minute_holds_after_a_restart() -> None:
    court = Court(policy(per_minute=2))
    court.tell("ban", "203.0.113.1")
    court.tell("ban", "203.0.113.2")
    court.restart()
    court.tell("ban", "203.0.113.3")
    assert len(court.wanted()) == 2


def test_the_breaker_holds_when_too_much_of_the_own_space_is_affected() -> None:
    court = Court(policy(share=0.01))
    for number in range(4):
        court.tell("ban", f"203.0.113.{number}")
    assert len(court.wanted()) == 2
    assert "of our IPv4 addresses" in court.of("blackhole|203.0.113.3/32").cause


def test_ended_mitigations_do_not_count() -> None:
    court = Court(policy(total=1))
    for number in range(5):
        court.tell("ban", f"203.0.113.{number}")
        assert court.wanted() == [f"blackhole|203.0.113.{number}/32"]
        court.tell("unban", f"203.0.113.{number}")


def test_notices_do_not_count_and_are_not_capped() -> None:
    court = Court(policy(rule(outcome="notify"), total=1))
    court.tell("ban", "203.0.113.1")
    court.tell("ban", "203.0.113.2")
    assert len(court.wanted()) == 2


def test_a_flowspec_rule_needs_a_network_of_ours() -> None:
    from fnm_bus.event import FlowSpecRule  # noqa: PLC0415 - used here only

    court = Court(policy(rule(outcome="flowspec")))
    court.tell("ban", rules=(FlowSpecRule(protocols=("udp",)),))
    court.tell("ban", rules=(FlowSpecRule(destination_prefix="198.51.100.1/32"),))
    assert court.wanted() == []
    court.tell("ban", rules=(FlowSpecRule(destination_prefix=f"{HOST}/32"),))
    assert len(court.wanted()) == 1


def test_what_is_refused_is_told_once_and_not_with_every_status() -> None:
    court = Court(policy(never=(ip_network(f"{HOST}/32"),)))
    court.tell("ban")
    for _ in range(10):
        court.tell("attack_status")
    assert len(court.told("refused")) == 1
    assert KEY not in dict(court.records)
