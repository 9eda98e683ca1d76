"""Warnings about blocking rules that a sensor's events can never match."""

from typing import Any

import pytest
from support.attack_facts import facts

from consumers.policy.file.sensor_reach import (
    JSON,
    TEXT,
    format_warnings,
    seen_warnings,
)
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
    (warning,) = format_warnings(policy(**match), {"fra1": TEXT})
    assert warning.what == (
        f'rule "large" never matches events of sensor fra1: {fault}'
    )
    assert warning.remedy
    assert not warning.ok
    assert format_warnings(policy(**match), {"fra1": JSON}) == ()
    assert format_warnings(policy("notify", **match), {"fra1": TEXT}) == ()
    other = policy(sensors="ams1", **match)
    assert format_warnings(other, {"fra1": TEXT}) == ()


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
    assert format_warnings(policy(**match), {"fra1": TEXT}) == ()


@pytest.mark.parametrize("unit", ["pps", "bits"])
def test_a_format_without_sizes_matches_no_size(unit: str) -> None:
    sizeless = TEXT._replace(absent=frozenset({unit}))
    for bound in ("min", "max"):
        limited = policy(**{f"{bound}_{unit}": 5})
        (warning,) = format_warnings(limited, {"fra1": sizeless})
        assert f"has no size in {unit}" in warning.what
    other = "bits" if unit == "pps" else "pps"
    assert format_warnings(policy(**{f"min_{other}": 5}), {"fra1": sizeless}) == ()


BAN = facts("ban")
SIZELESS = BAN._replace(bits=None, sensor="ams1")


def test_a_sensor_whose_events_have_no_bits_is_named() -> None:
    (warning,) = seen_warnings(policy(min_bits=5), [SIZELESS, SIZELESS])
    assert warning.rule == "large"
    assert warning.what == (
        'rule "large" cannot match any of the last 2 events of sensor ams1: none has'
        " its size in bit/s"
    )
    assert "min_pps" in warning.remedy


def test_a_sensor_whose_events_have_no_pps_is_named() -> None:
    (warning,) = seen_warnings(policy(max_pps=5), [BAN._replace(pps=None)])
    assert "none has its size in packets/s" in warning.what
    assert "min_bits" in warning.remedy


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [
        (policy(min_bits=5), []),
        (policy(min_bits=5), [SIZELESS, SIZELESS._replace(bits=1)]),
        (policy(min_pps=5), [SIZELESS]),
        (policy(min_bits=10**15), [BAN]),
        (policy("notify", min_bits=5), [SIZELESS]),
        (policy(min_bits=5, sensors="fra1"), [SIZELESS]),
        (policy(min_bits=5), [SIZELESS._replace(action="unban")]),
    ],
)
def test_a_sensor_that_can_match_has_no_warning(
    chosen: Policy, seen: list[Any]
) -> None:
    assert seen_warnings(chosen, seen) == ()
