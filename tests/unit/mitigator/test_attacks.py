"""Sequences of events, commands and takeovers that once did harm, one test each."""

from ipaddress import ip_network

from consumers.policy.model import Action
from tests.services.mitigator_harness import KEY, MitigatorHarness, policy, rule

GROUP = {
    "web": Action(action="blackhole", prefixes=(ip_network("203.0.113.0/28"),)),
}
ELSEWHERE = {
    "web": Action(action="blackhole", prefixes=(ip_network("203.0.113.32/28"),)),
}
GROUP_KEY = "blackhole|203.0.113.0/28"


# -- the hostgroup's measure beside the host's own -------------------------------------


def test_refused_ban_keeps_measures_beside_a_fallback() -> None:
    filtering = rule(action="flowspec", when_limited="hostgroup")
    harness = MitigatorHarness(policy(filtering, hostgroups=GROUP))
    harness.send("ban", host_group="web")
    before = harness.wanted()
    harness.send("ban", host_group="web", attack_protocol="unsupported")
    assert before
    assert harness.wanted() == before


def test_lone_fallback_is_decided_anew_by_another_policy() -> None:
    falls_back = rule(when_limited="hostgroup")
    protected = (ip_network("203.0.113.7/32"),)
    harness = MitigatorHarness(policy(falls_back, hostgroups=ELSEWHERE))
    harness.send("ban", host_group="web")
    harness.restart(
        policy(
            falls_back, hostgroups=ELSEWHERE, digest="p2", protected_prefixes=protected
        )
    )
    assert harness.wanted() == []
    harness.restart(policy(falls_back, hostgroups=ELSEWHERE, digest="p3"))
    harness.wait(20)
    harness.send("attack_status", host_group="web")
    assert harness.wanted() == [KEY]
