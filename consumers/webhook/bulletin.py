"""Bulletin: what is told of a storm's mitigations: values, and why things ended."""

from collections.abc import Mapping
from datetime import datetime
from math import inf
from typing import Final, Generic, NamedTuple, TypeVar

from consumers.mitigation.states import (
    GUARDRAIL,
    LEASE,
    OPERATOR,
    POLICY,
    SUPERSEDED,
    SUPPRESSED,
    UNBAN,
)
from fnm_bus.event import EPOCH, Mitigation

T = TypeVar("T")

STARTED: Final = "started"
CONTINUES: Final = "continues"
OVER: Final = "ended"
PAUSED: Final = "paused"
RESUMED: Final = "resumed"

SILENT: Final = "silent"
OTHER: Final = "other"
_CODES: Final = (UNBAN, LEASE, OPERATOR, POLICY, GUARDRAIL, SUPERSEDED)
WHY: Final = (*_CODES, SILENT, OTHER)
"""Why mitigations end: `ended_because` of their records; SILENT when the lease expired
and the mitigator wrote no record; OTHER for a code that this version does not know."""

_DEFAULT_HOSTGROUP: Final = "global"
"""FastNetMon's hostgroup of every host that has no other."""


class Group(NamedTuple):
    """Whose storm it is.

    Attributes:
        kind: hostgroup, customer, or all for what has neither.
        name: of the hostgroup or customer, or "".
    """

    kind: str
    name: str


class Change(NamedTuple):
    """One change, named so that it has the same name when it is read again."""

    created_at: datetime
    key: str
    state: str


class Member(NamedTuple):
    """One mitigation of a storm.

    Attributes:
        mitigation: its latest record in which it stood or was proposed.
        ends: when its lease runs out; `inf` when it has none.
        over: why it ended (one of WHY), or "" while it stands.
        over_at: when it ended.
        cause: the mitigator's sentence on its state.
    """

    mitigation: Mitigation
    ends: float = inf
    over: str = ""
    over_at: datetime = EPOCH
    cause: str = ""


class Bulletin(NamedTuple, Generic[T]):
    """What is to be told now.

    Attributes:
        status: STARTED, CONTINUES, OVER, PAUSED or RESUMED.
        group: whose storm it is.
        first: the storm's first mitigation.
        again: how many storms with the same first mitigation were over before.
        mark: the first of the changes that are told.
        members: the storm's mitigations, those that started first in front; of PAUSED
            and RESUMED the active ones of all storms.
        fresh: keys of those that started since the last bulletin.
        changed: keys of those that changed since then.
        gone: (kind, why) → mitigations that ended so long ago that only their number
            is known; they are not among *members*.
        tokens: what came with the changes.
        paused: whether everything is paused.
        pause: the record that paused or resumed; None for a storm.
    """

    status: str
    group: Group
    first: Change
    again: int
    mark: Change
    members: tuple[Member, ...]
    fresh: frozenset[str]
    changed: frozenset[str]
    gone: Mapping[tuple[str, str], int]
    tokens: tuple[T, ...]
    paused: bool = False
    pause: Mitigation | None = None


def group_of(mitigation: Mitigation) -> Group:
    """Return the hostgroup, else the customer, else the group of all others."""
    if mitigation.hostgroup and mitigation.hostgroup != _DEFAULT_HOSTGROUP:
        return Group("hostgroup", mitigation.hostgroup)
    if mitigation.customer:
        return Group("customer", mitigation.customer)
    return Group("all", "")


def why_over(mitigation: Mitigation) -> str:
    """Return why a record reports that its mitigation is not active: one of WHY."""
    if mitigation.state == SUPPRESSED:
        return OPERATOR
    code = mitigation.ended_because
    return code if code in _CODES else OTHER
