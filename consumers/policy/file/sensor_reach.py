"""Sensor reach: blocking rules that no event of a sensor can match.

A policy may be valid and still never block: text mode has no hostgroups, and a sensor
whose events have no bit/s never matches `min_bits`.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from consumers.policy.facts import OPENS, AttackFacts
from consumers.policy.model import BLOCKING, Match, Policy, Rule
from consumers.policy.rules import mismatch_code

_MISSING: Final = "none"
"""The word of a condition that matches an event without the value."""


class SensorFormat(NamedTuple):
    """What the events of a sensor can hold.

    Attributes:
        name: for people.
        scopes: host, hostgroup.
        actions: actions that open, as Match.actions.
        absent: conditions about values that its events never have: hostgroups,
            thresholds, severities, flow_spec, pps, bits.
    """

    name: str
    scopes: frozenset[str]
    actions: frozenset[str]
    absent: frozenset[str] = frozenset()


JSON: Final = SensorFormat("JSON", frozenset({"host", "hostgroup"}), OPENS)
"""FastNetMon Advanced."""
TEXT: Final = SensorFormat(
    "text mode",
    frozenset({"host"}),
    frozenset({"ban"}),
    frozenset({"hostgroups", "thresholds", "severities", "flow_spec"}),
)
"""FastNetMon Community, and the obsolete text format of Advanced."""


class PolicyWarning(NamedTuple):
    """A rule that does less than its author may expect.

    Attributes:
        rule: the rule's name; "" when it is about all rules that block.
        what: what is the case, one sentence.
        remedy: what to do.
        ok: always false, as in the results of other checks.
    """

    rule: str
    what: str
    remedy: str
    ok: bool = False


def format_warnings(
    policy: Policy, formats: Mapping[str, SensorFormat]
) -> tuple[PolicyWarning, ...]:
    """Return a warning for each blocking rule that events of a format cannot match.

    Args:
        policy: a valid one.
        formats: sensor → format of its notifications.
    """
    return tuple(
        PolicyWarning(
            rule.name,
            f'rule "{rule.name}" never matches events of sensor {sensor}: {fault}',
            "remove the condition, or add a rule for this sensor",
        )
        for sensor, sent in sorted(formats.items())
        for rule in _blocking(policy)
        if not rule.match.sensors or sensor in rule.match.sensors
        if (fault := _format_fault(rule.match, sent))
    )


def seen_warnings(
    policy: Policy, seen: Iterable[AttackFacts]
) -> tuple[PolicyWarning, ...]:
    """Return a warning for each sensor whose events lack what blocking rules need.

    Args:
        policy: a valid one.
        seen: facts of recent events; those that open nothing are left out.
    """
    by_sensor: dict[str, list[AttackFacts]] = {}
    for facts in seen:
        if facts.action in OPENS:
            by_sensor.setdefault(facts.sensor, []).append(facts)
    return tuple(
        PolicyWarning(
            rule.name,
            f'rule "{rule.name}" cannot match any of the last {len(events)} events of'
            f" sensor {sensor}: none has its size in {unit}",
            "use min_pps, or let FastNetMon report the size"
            if unit == "bit/s"
            else "use min_bits, or let FastNetMon report the size",
        )
        for sensor, events in sorted(by_sensor.items())
        for rule in _blocking(policy)
        for unit in _missing_units(rule, events)
    )


def _blocking(policy: Policy) -> Iterator[Rule]:
    return (rule for rule in policy.rules if rule.action.action in BLOCKING)


def _format_fault(match: Match, sent: SensorFormat) -> str:
    if match.scopes and not match.scopes & sent.scopes:
        return f"{sent.name} has only scope {' and '.join(sorted(sent.scopes))}"
    if match.actions and not match.actions & sent.actions:
        return f"{sent.name} has only action {' and '.join(sorted(sent.actions))}"
    for name in ("hostgroups", "thresholds", "severities"):
        words = getattr(match, name)
        if name in sent.absent and words and _MISSING not in words:
            return f"{sent.name} has no {name}"
    if "flow_spec" in sent.absent and match.flow_spec:
        return f"{sent.name} has no Flow Spec rules"
    for unit in ("pps", "bits"):
        bounds = (getattr(match, f"min_{unit}"), getattr(match, f"max_{unit}"))
        if unit in sent.absent and bounds != (None, None):
            return f"{sent.name} has no size in {unit}"
    return ""


def _missing_units(rule: Rule, events: list[AttackFacts]) -> Iterator[str]:
    """Yield the unit of a size that none of a sensor's events has."""
    for code, unit in (("pps", "packets/s"), ("bits", "bit/s")):
        if all(mismatch_code(facts, rule.match) == code for facts in events):
            yield unit
