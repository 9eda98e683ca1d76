"""Bounds of the policy's values, and look-ups in it."""

import math

import pytest

from consumers.policy.model import (
    MAX_LEASE,
    MIN_LEASE,
    Action,
    Limits,
    Match,
    Policy,
    Rule,
    lease_fault,
)


@pytest.mark.parametrize("seconds", [MIN_LEASE, 900.0, MAX_LEASE])
def test_a_lease_within_its_bounds_is_allowed(seconds: float) -> None:
    assert lease_fault(seconds) == ""


@pytest.mark.parametrize(
    ("seconds", "shown_seconds"),
    [
        (4.9, "4.9 s"),
        (86_401.0, "86401 s"),
        (0.0, "0 s"),
        (-900.0, "-900 s"),
        (4_294_967_294.0, "4.29497e+09 s"),
        (1e300, "1e+300 s"),
        (math.inf, "inf s"),
        (math.nan, "nan s"),
    ],
)
def test_any_other_lease_is_refused_with_one_message(
    seconds: float, shown_seconds: str
) -> None:
    assert lease_fault(seconds) == (
        f"expected 5 s to 24 h, got {shown_seconds};"
        " a lease is renewed while its attack continues"
    )


def test_a_rule_is_found_by_its_name() -> None:
    rules = tuple(
        Rule(name=name, match=Match(), action=Action(action="notify"))
        for name in ("a", "b")
    )
    policy = Policy(rules=rules, limits=Limits())
    assert policy.rule("b") is rules[1]
    assert policy.rule("c") is None


def test_policies_of_equal_content_are_equal() -> None:
    assert Policy(rules=(), limits=Limits()) == Policy(rules=(), limits=Limits())
    assert Limits(max_active=1) != Limits(max_active=2)
