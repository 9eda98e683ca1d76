"""What people ask of the mitigator."""

from ipaddress import ip_network

import pytest
from services.court import HOST, KEY, Court, policy, rule

from fnm_bus.event import FlowMatch, FlowThen


def test_what_a_person_ended_is_not_brought_back_by_a_status() -> None:
    court = Court()
    court.tell("ban")
    court.order("end", KEY)
    assert court.of().state == "suppressed"
    court.tell("attack_status")
    court.restart()
    court.tell("attack_status")
    assert court.wanted() == []


def test_after_the_attack_the_next_one_is_mitigated_again() -> None:
    court = Court()
    court.tell("ban")
    court.order("end", KEY)
    court.tell("unban")
    assert court.of().state == "ended"
    court.tell("ban", attack_uuid="a2")
    assert court.wanted() == [KEY]


def test_another_attack_whose_unban_got_lost_is_mitigated_again() -> None:
    court = Court()
    court.tell("ban")
    court.order("end", KEY)
    court.tell("ban", attack_uuid="a2")
    assert court.wanted() == [KEY]


def test_a_rule_that_asks_for_approval_proposes() -> None:
    court = Court(policy(rule(approval=True)))
    court.tell("ban")
    assert court.wanted() == []
    assert court.of().state == "proposed"
    court.order("approve", KEY)
    assert court.wanted() == [KEY]


def test_what_is_denied_stays_denied_while_the_attack_goes_on() -> None:
    court = Court(policy(rule(approval=True)))
    court.tell("ban")
    court.order("deny", KEY)
    court.tell("attack_status")
    assert court.of().state == "suppressed"
    court.order("approve", KEY)
    assert court.wanted() == []


def test_nobody_can_approve_what_a_guardrail_refuses() -> None:
    court = Court(policy(rule(approval=True)))
    court.tell("ban")
    court.terms = Court(policy(never=(ip_network(f"{HOST}/32"),))).terms
    court.order("approve", KEY)
    assert court.wanted() == []
    assert "never" in court.told("refused")[-1]


def test_a_measure_by_hand_stands_for_its_lease() -> None:
    court = Court()
    court.order("add", kind="blackhole", prefix=f"{HOST}/32", lease_ms=60_000)
    assert court.wanted() == [KEY]
    assert court.of().cause == "added by alice: a test"
    court.wait(61)
    assert court.wanted() == []


def test_an_unban_does_not_end_a_measure_by_hand() -> None:
    court = Court()
    court.order("add", kind="blackhole", prefix=f"{HOST}/32")
    court.tell("ban")
    court.tell("unban")
    assert court.wanted() == [KEY]
    court.order("end", KEY)
    assert court.of().state == "ended"


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({}, "kind: wanted one of"),
        ({"kind": "blackhole"}, "prefix: wanted a network"),
        ({"kind": "blackhole", "prefix": "203.0.113.7"}, "wanted 203.0.113.7/32"),
        ({"kind": "blackhole", "prefix": "7"}, "7"),
        ({"kind": "blackhole", "prefix": "203.0.113.7/24"}, "host bits"),
        ({"kind": "blackhole", "prefix": "198.51.100.1/32"}, "not within our own"),
        ({"kind": "blackhole", "prefix": "0.0.0.0/0"}, "own"),
        ({"kind": "flowspec", "prefix": "203.0.113.7/32"}, "flow, then: wanted"),
        (
            {
                "kind": "flowspec",
                "flow": FlowMatch(),
                "then": FlowThen(action="discard"),
            },
            "names no network",
        ),
        (
            {"kind": "blackhole", "prefix": f"{HOST}/32", "lease_ms": 10**9},
            "at most 86400 s",
        ),
    ],
)
def test_an_order_that_is_not_whole_is_refused_and_told(
    about: dict[str, object], said: str
) -> None:
    court = Court()
    court.order("add", **about)
    assert court.wanted() == []
    assert said in court.told("refused")[0]


@pytest.mark.parametrize("verb", ["approve", "deny", "end"])
def test_an_order_about_nothing_is_told(verb: str) -> None:
    court = Court()
    court.order(verb, "blackhole|203.0.113.9/32")
    assert "there is no mitigation" in court.told("refused")[0]


def test_a_verb_that_nobody_knows_is_told() -> None:
    court = Court()
    court.order("explode")
    assert "verb: wanted one of approve" in court.told("refused")[0]


def test_the_red_button_ends_everything_and_starts_nothing_until_resume() -> None:
    court = Court()
    for number in range(5):
        court.tell("ban", f"203.0.113.{number}")
    court.order("add", kind="firewall", prefix=f"{HOST}/32")
    court.order("pause")
    assert court.wanted() == []
    assert court.of("pause").state == "wanted"
    court.tell("ban", "203.0.113.99")
    court.tell("attack_status", "203.0.113.1")
    court.order("add", kind="firewall", prefix=f"{HOST}/32")
    court.restart()
    court.tell("attack_status", "203.0.113.1")
    assert court.wanted() == []
    court.order("resume")
    court.tell("attack_status", "203.0.113.1")
    assert court.wanted() == ["blackhole|203.0.113.1/32"]


def test_a_pause_does_not_end_by_itself() -> None:
    court = Court()
    court.order("pause")
    court.wait(10 * 86_400)
    court.tell("ban")
    assert court.of("pause").state == "wanted"
    assert KEY not in dict(court.records)


def test_an_old_order_starts_nothing_and_an_old_end_ends() -> None:
    court = Court()
    court.tell("ban")
    asked = court.now
    court.wait(600)
    court.order("add", kind="firewall", prefix=f"{HOST}/32", asked_at=asked)
    assert court.wanted() == [KEY]
    court.order("end", KEY, asked_at=asked)
    assert court.wanted() == []


def test_each_order_leaves_who_when_and_why() -> None:
    court = Court()
    court.tell("ban")
    court.order("end", KEY)
    audit = court.audits[-1]
    assert (audit.by, audit.what, audit.key) == ("alice", "suppressed", KEY)
    assert "a test" in audit.text
    assert audit.event_id


def test_what_a_person_ended_stays_so_through_a_pause() -> None:
    court = Court()
    court.tell("ban")
    court.order("end", KEY)
    court.order("pause")
    court.order("resume")
    court.tell("attack_status")
    assert court.wanted() == []
