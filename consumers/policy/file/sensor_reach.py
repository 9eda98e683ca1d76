"""Sensor reach: blocking rules that no event of a sensor in text mode can match.

A valid policy may still never block. Text mode is the format of FastNetMon Community,
and the obsolete text format of Advanced.
"""

from collections.abc import Iterable

from consumers.policy.model import BLOCKING, Match, Policy
from fnm_bus.setup.check_result import CheckResult

_MISSING = "none"
"""A condition's word that matches an event without the value."""


def text_mode_warnings(policy: Policy, sensors: Iterable[str]) -> list[CheckResult]:
    """Return a warning for each blocking rule that never matches these sensors."""
    return [
        CheckResult(
            ok=False,
            text=f'rule "{rule.name}" never matches events of sensor {sensor}: text'
            f" mode has {fault}",
            remedy="remove the condition, or add a rule for this sensor",
        )
        for sensor in sorted(sensors)
        for rule in policy.rules
        if rule.action.action in BLOCKING
        if not rule.match.sensors or sensor in rule.match.sensors
        if (fault := _fault(rule.match))
    ]


def _fault(match: Match) -> str:
    if match.scopes and "host" not in match.scopes:
        return "only scope host"
    if match.actions and "ban" not in match.actions:
        return "only action ban"
    for name in ("hostgroups", "thresholds", "severities"):
        words = getattr(match, name)
        if words and _MISSING not in words:
            return f"no {name}"
    return "no Flow Spec rules" if match.flow_spec else ""
