"""Entries: one reason or mitigation in memory, with the times of its lease."""

from typing import Final, NamedTuple

from fnm_bus.event import Mitigation, Reason

APPROVAL: Final = "approval"
"""Value of `held_by` when a person has to approve."""


class ReasonEntry(NamedTuple):
    """One reason in memory. Times are seconds since boot.

    Attributes:
        keys: the mitigation of each of its wants, in their order.
        due: when it expires, or may be forgotten.
        active: whether it is neither closed nor expired.
        fallback: whether its fallback wants are active: a limit holds the others.
    """

    reason: Reason
    keys: tuple[str, ...]
    ends: float
    due: float
    active: bool
    fallback: bool = False


class MitigationEntry(NamedTuple):
    """One mitigation in memory. Times are seconds since boot.

    Attributes:
        ends: when that record's lease expires.
        due: when it expires, or may be forgotten.
    """

    record: Mitigation
    ends: float
    due: float
