"""Bulletin: what is told of a storm's mitigations: values, and why things ended."""

from collections.abc import Mapping
from datetime import datetime
from math import inf
from typing import Final, Generic, NamedTuple, TypeVar

from consumers.mitigation.states import SUPPRESSED
from fnm_bus.event import EPOCH, Mitigation

T = TypeVar("T")

STARTED: Final = "started"
CONTINUES: Final = "continues"
OVER: Final = "ended"
PAUSED: Final = "paused"
RESUMED: Final = "resumed"

UNBAN: Final = "unban"
LEASE: Final = "lease"
SILENT: Final = "silent"
PERSON: Final = "person"
OTHER: Final = "other"
WHY: Final = (UNBAN, LEASE, SILENT, PERSON, OTHER)
"""Why mitigations end; SILENT: the lease ran out and the mitigator did not say so."""

_BY_PEOPLE: Final = ("ended by ", "denied by ", "paused by ")


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

    started_at: datetime
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
        members: the storm's mitigations, those that started first in front.
        fresh: keys of those that started since the last bulletin.
        changed: keys of those that changed since then.
        gone: (kind, why) → mitigations that ended so long ago that only their number
            is known; they are not among *members*.
        tokens: what came with the changes.
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


def group_of(mitigation: Mitigation) -> Group:
    """Return the hostgroup, else the customer, else the group of all others."""
    if mitigation.hostgroup:
        return Group("hostgroup", mitigation.hostgroup)
    if mitigation.customer:
        return Group("customer", mitigation.customer)
    return Group("all", "")


def why_over(before: Mitigation, after: Mitigation) -> str:
    """Return why *after* says that *before* does not stand any more."""
    word, _, rest = after.cause.partition(" ")
    if after.state == SUPPRESSED or after.cause.startswith(_BY_PEOPLE):
        return PERSON
    if word in {"unban", "partial_unblock"} and rest.startswith("by "):
        return UNBAN
    ran_out = EPOCH < before.expires_at <= after.changed_at
    return LEASE if ran_out or "lease ran out" in after.cause else OTHER
