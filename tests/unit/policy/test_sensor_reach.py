"""Warnings about blocking rules that a sensor's events can never match."""

from typing import Any

import pytest

from consumers.policy.file.sensor_reach import text_mode_warnings
from consumers.policy.model import Action, Limits, Match, Policy, Rule


def policy(action: str = "blackhole", **match: Any) -> Policy:
    words = {
        key: frozenset({value}) if isinstance(value, str) else value
        for key, value in match.items()
    }
    rule = Rule(name="large", match=Match(**words), action=Action(action=action))
    return Policy(rules=(rule,), limits=Limits())


@pytest.mark.parametrize(
    ("match", "fault"),
    [
        ({"scopes": "hostgroup"}, "text mode has only scope host"),
        ({"actions": "partial_block"}, "text mode has only action ban"),
        ({"actions": "attack_status"}, "text mode has only action ban"),
        ({"hostgroups": "web"}, "text mode has no hostgroups"),
        ({"thresholds": "x"}, "text mode has no thresholds"),
        ({"severities": "high"}, "text mode has no severities"),
        ({"flow_spec": True}, "text mode has no Flow Spec rules"),
    ],
)
def test_a_rule_that_text_mode_cannot_match_is_named(
    match: dict[str, Any], fault: str
) -> None:
    (warning,) = text_mode_warnings(policy(**match), ["fra1"])
    assert warning.text == (
        f'rule "large" never matches events of sensor fra1: {fault}'
    )
    assert warning.remedy
    assert text_mode_warnings(policy("notify", **match), ["fra1"]) == []
    other = policy(sensors="ams1", **match)
    assert text_mode_warnings(other, ["fra1"]) == []


@pytest.mark.parametrize(
    "match",
    [
        {},
        {"scopes": frozenset({"host", "hostgroup"})},
        {"actions": "ban"},
        {"hostgroups": "none"},
        {"flow_spec": False},
        {"min_pps": 5},
        {"min_bits": 5},
        {"protocols": "udp"},
    ],
)
def test_a_rule_that_text_mode_can_match_has_no_warning(match: dict[str, Any]) -> None:
    assert text_mode_warnings(policy(**match), ["fra1"]) == []
