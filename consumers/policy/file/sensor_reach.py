"""Sensor reach: blocking rules that no event of a sensor can match.

A valid policy may still never block: text mode, for example, has no hostgroups.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from consumers.policy.model import BLOCKING, Match, Policy

_MISSING: Final = "none"
"""A condition's word that matches an event without the value."""


class SensorFormat(NamedTuple):
    """The possible values of a sensor's events.

    Attributes:
        name: for people.
        scopes: host, hostgroup.
        actions: actions that report an attack in progress, as in Match.actions.
        absent: conditions about values that its events never have: hostgroups,
            thresholds, severities, flow_spec.
    """

    name: str
    scopes: frozenset[str]
    actions: frozenset[str]
    absent: frozenset[str] = frozenset()


TEXT: Final = SensorFormat(
    "text mode",
    frozenset({"host"}),
    frozenset({"ban"}),
    frozenset({"hostgroups", "thresholds", "severities", "flow_spec"}),
)
"""FastNetMon Community, and the obsolete text format of Advanced."""


class PolicyWarning(NamedTuple):
    """A rule that does less than its author may expect."""

    rule: str
    text: str
    remedy: str


def format_warnings(
    policy: Policy, formats: Mapping[str, SensorFormat]
) -> tuple[PolicyWarning, ...]:
    """Return a warning for each blocking rule that events of a format cannot match."""
    return tuple(
        PolicyWarning(
            rule.name,
            f'rule "{rule.name}" never matches events of sensor {sensor}: {fault}',
            "remove the condition, or add a rule for this sensor",
        )
        for sensor, sensor_format in sorted(formats.items())
        for rule in policy.rules
        if rule.action.action in BLOCKING
        if not rule.match.sensors or sensor in rule.match.sensors
        if (fault := _format_fault(rule.match, sensor_format))
    )


def _format_fault(match: Match, sensor: SensorFormat) -> str:
    if match.scopes and not match.scopes & sensor.scopes:
        return f"{sensor.name} has only scope {' and '.join(sorted(sensor.scopes))}"
    if match.actions and not match.actions & sensor.actions:
        return f"{sensor.name} has only action {' and '.join(sorted(sensor.actions))}"
    for name in ("hostgroups", "thresholds", "severities"):
        words = getattr(match, name)
        if name in sensor.absent and words and _MISSING not in words:
            return f"{sensor.name} has no {name}"
    if "flow_spec" in sensor.absent and match.flow_spec:
        return f"{sensor.name} has no Flow Spec rules"
    return ""
