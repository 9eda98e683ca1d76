"""Status updates renew the measures of their ban."""

from ipaddress import ip_network

import pytest
from support.mitigator_harness import HOST, KEY, MitigatorHarness, banned, policy, rule

from fnm_bus.event import FlowSpecRule

UDP = FlowSpecRule(destination_prefix=f"{HOST}/32", protocols=("udp",))
FILTER = f'flowspec|{{"destination_prefix":"{HOST}/32","protocols":["udp"]}}'


def filtering(lease: float = 900) -> MitigatorHarness:
    """Return a mitigator with a ban that came with a Flow Spec rule."""
    with_rules = rule("rules", action="flowspec", lease=lease)
    harness = MitigatorHarness(policy(with_rules), fastnetmon_ban_time=lease)
    harness.send("ban", rules=(UDP,), attack_protocol="tcp")
    assert harness.wanted() == [FILTER]
    return harness


# -- the ban's wants -------------------------------------------------------------------


def test_status_renews_the_bans_measures() -> None:
    harness = filtering()
    for _ in range(200):
        harness.wait(20)
        harness.send("attack_status", attack_protocol="tcp")
    assert harness.wanted() == [FILTER]


def test_ban_wants_come_back_after_pause_and_resume() -> None:
    harness = filtering()
    harness.command("pause")
    assert harness.wanted() == []
    harness.wait(600)
    harness.send("attack_status", attack_protocol="tcp")
    harness.command("resume")
    assert harness.wanted() == [FILTER]


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("behind", [False, True])
def test_ban_wants_come_back_after_their_lease(*, restart: bool, behind: bool) -> None:
    harness = filtering(lease=60)
    harness.wait(3_600)
    assert harness.wanted() == []
    if restart:
        harness.restart()
    status = harness.event("attack_status", attack_protocol="tcp")
    harness.apply(status, behind=behind)
    assert harness.wanted() == [FILTER]


@pytest.mark.parametrize("restart", [False, True])
def test_status_renews_a_ban_that_was_too_old(*, restart: bool) -> None:
    harness = MitigatorHarness(policy(rule(action="flowspec")))
    harness.send("ban", rules=(UDP,), age=400, attack_protocol="tcp")
    assert harness.wanted() == []
    assert harness.audit_codes("ignored") == ["event_too_old"]
    if restart:
        harness.restart()
    harness.send("attack_status", attack_protocol="tcp")
    assert harness.wanted() == [FILTER]


def test_ban_that_was_too_old_is_forgotten_after_a_day() -> None:
    harness = banned(policy(rule(action="flowspec")), rules=(UDP,), age=400)
    assert len(harness.reasons) == 1
    harness.wait(86_401)
    assert harness.reasons == {}


def test_too_old_ban_does_not_replace_an_active_reason() -> None:
    harness = filtering()
    harness.send("ban", rules=(), age=400)
    assert harness.wanted() == [FILTER]
    assert harness.reason().wants[0].flow is not None


def test_backlog_of_bans_and_statuses_keeps_every_filter() -> None:
    """All bans are old, all status updates are fresh, and either is read first."""
    harness = MitigatorHarness(policy(rule(action="flowspec")))
    for number in range(100):
        host = f"203.0.113.{number}"
        udp = FlowSpecRule(destination_prefix=f"{host}/32", protocols=("udp",))
        ban = harness.event("ban", host, rules=(udp,), age=310, attack_protocol="tcp")
        status = harness.event("attack_status", host, attack_protocol="tcp")
        if number % 2:
            harness.apply(status, behind=True)
        harness.apply(ban)
        harness.send("attack_status", host, attack_protocol="tcp")
    harness.run(60)
    assert len(harness.wanted()) == 100
    assert all('"protocols":["udp"]' in key for key in harness.wanted())


# -- leases ----------------------------------------------------------------------------


def test_lease_ends_without_status_updates() -> None:
    harness = banned(policy(rule(lease=900)))
    harness.send("attack_status")
    for _ in range(50):
        harness.wait(20)
        harness.send("attack_status")
    harness.wait(590)  # a third of the lease may have passed without a renewal
    assert harness.wanted() == [KEY]
    harness.wait(311)
    assert harness.wanted() == []
    assert harness.mitigation().ended_because == "lease"


def test_renewals_are_written_at_a_third_of_the_lease() -> None:
    harness = banned(policy(rule(lease=900)))
    harness.send("attack_status")
    before = harness.written
    for _ in range(45):  # 900 s
        harness.wait(20)
        harness.send("attack_status")
    assert harness.written - before == 2 * 3  # reason and mitigation


def test_records_never_expire_before_their_renewal() -> None:
    harness = MitigatorHarness(policy(rule(lease=60)), fastnetmon_ban_time=60)
    harness.send("ban")
    for _ in range(100):
        harness.run(20)
        assert harness.lease_left(KEY) > 5
        harness.send("attack_status")
        assert harness.wanted() == [KEY]


def test_lease_is_the_ban_time_until_the_first_status() -> None:
    harness = MitigatorHarness(policy(rule(lease=60)), fastnetmon_ban_time=1900)
    harness.send("ban")
    assert harness.mitigation().lease_ms == 1_900_000
    harness.send("attack_status")
    assert harness.mitigation().lease_ms == 60_000


def test_sensor_that_stopped_its_updates_gets_the_ban_time() -> None:
    harness = MitigatorHarness(policy(rule(lease=60)), fastnetmon_ban_time=1900)
    harness.send("ban")
    harness.send("attack_status")
    harness.send("unban")
    harness.send("ban", attack_uuid="a2")
    assert harness.mitigation().lease_ms == 1_900_000


def test_status_of_any_age_renews_an_active_reason() -> None:
    harness = banned(policy(rule(lease=900)))
    harness.wait(800)
    harness.send("attack_status", age=700)
    harness.wait(800)
    assert harness.wanted() == [KEY]


def test_hostgroup_without_status_holds_for_the_ban_time() -> None:
    harness = MitigatorHarness(
        policy(rule(lease=60), min_prefix_length_ipv4=24), fastnetmon_ban_time=1900
    )
    harness.send("attack_status")
    harness.send("ban", "web", networks=("203.0.113.0/26",))
    assert harness.mitigation("blackhole|203.0.113.0/26").lease_ms == 1_900_000


def test_renewal_removes_newly_refused_measures() -> None:
    harness = banned()
    narrower = policy(protected_prefixes=(ip_network(f"{HOST}/32"),))
    harness.policy = narrower
    harness.context = type(harness.context)(narrower, dry_run=False)
    harness.send("attack_status")
    assert harness.wanted() == []
    assert harness.mitigation().ended_because == "guardrail"


def test_policy_decides_again_about_a_reason_without_measures() -> None:
    harness = banned()
    harness.restart(policy(rule("other"), digest="p2"))
    assert harness.wanted() == []
    harness.send("attack_status")
    assert harness.wanted() == [KEY]
    assert harness.reason().rule == "other"
