"""The values of a storm: its mitigations, and the update about a change."""

from collections.abc import Mapping
from datetime import datetime
from math import inf
from typing import Final, NamedTuple

from consumers.mitigation.states import (
    GUARDRAIL,
    LEASE,
    OPERATOR,
    POLICY,
    SUPERSEDED,
    SUPPRESSED,
    UNBAN,
)
from consumers.storms.group import GroupRef
from fnm_bus.event import EPOCH, Mitigation

STARTED: Final = "started"
CONTINUES: Final = "continues"
RENEWED: Final = "renewed"
ENDED: Final = "ended"
PAUSED: Final = "paused"
RESUMED: Final = "resumed"

SILENT: Final = "silent"
OTHER: Final = "other"
_RECORD_CODES: Final = (UNBAN, LEASE, OPERATOR, POLICY, GUARDRAIL, SUPERSEDED)
END_CODES: Final = (*_RECORD_CODES, SILENT, OTHER)
"""Reasons of an end: `ended_because` of the record; SILENT when the lease expired and
the mitigator wrote no record; OTHER for a code of a later version."""


class ChangeId(NamedTuple):
    """A change of a mitigation; the same when its record is read again."""

    created_at: datetime = EPOCH
    key: str = ""
    state: str = ""


class Position(NamedTuple):
    """Partition and offset of a record."""

    partition: int
    offset: int


class StormMember(NamedTuple):
    """A mitigation of a storm.

    Attributes:
        mitigation: its latest record in state wanted or proposed.
        ends_at: end of its lease in seconds of the caller's clock; `inf` without one.
        ended_because: one of END_CODES, or "" while it is active.
        ended_at: time of its end.
        cause: the mitigator's sentence about its state.
    """

    mitigation: Mitigation
    ends_at: float = inf
    ended_because: str = ""
    ended_at: datetime = EPOCH
    cause: str = ""

    @property
    def change(self) -> ChangeId:
        """The mitigation's creation; members are sorted by it."""
        return ChangeId(self.mitigation.created_at, self.mitigation.key)


class StormUpdate(NamedTuple):
    """A change of a storm, or a pause or resume.

    Attributes:
        status: STARTED, CONTINUES, RENEWED, ENDED, PAUSED or RESUMED.
        first: the storm's first mitigation.
        repetition: number of earlier storms with the same first mitigation.
        first_change: the earliest reported change.
        members: the storm's mitigations in order of creation; for PAUSED and RESUMED
            the active mitigations of all storms.
        started: keys of mitigations that started since the last update.
        changed: keys of mitigations that changed since the last update.
        dropped: (kind, end code) → number of ended mitigations that are not in
            *members*, because only their number is kept.
        ends_at: end of the last lease in seconds of the caller's clock.
        pause: the record that paused or resumed; None for a storm.
    """

    status: str
    group: GroupRef
    first: ChangeId
    ends_at: float
    members: tuple[StormMember, ...]
    repetition: int = 0
    first_change: ChangeId = ChangeId()
    started: frozenset[str] = frozenset()
    changed: frozenset[str] = frozenset()
    dropped: Mapping[tuple[str, str], int] = {}
    positions: tuple[Position, ...] = ()
    paused: bool = False
    pause: Mitigation | None = None


def end_code(mitigation: Mitigation) -> str:
    """Return the reason of an end (one of END_CODES) from an inactive record."""
    if mitigation.state == SUPPRESSED:
        return OPERATOR
    code = mitigation.ended_because
    return code if code in _RECORD_CODES else OTHER
