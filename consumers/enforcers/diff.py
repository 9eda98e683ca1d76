"""Reconcile: compare what is wanted with what stands."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from consumers.enforcers.backend import ActiveMeasure, BackendError, DesiredMeasure
from consumers.enforcers.snapshot import Lease
from consumers.mitigation.measure import Measure

_COARSE: Final = 2.0
"""Seconds by which a system's own count may differ: some list whole seconds."""


class Diff(NamedTuple):
    """What has to be done so that the system matches.

    Attributes:
        announce: what is missing, is done in another way, or would end early.
        withdraw: what stands and is not wanted.
        impossible: key → why the system cannot do it.
    """

    announce: list[DesiredMeasure]
    withdraw: list[Measure]
    impossible: Mapping[str, str]


def compare(
    wanted: Mapping[str, Lease],
    active: Mapping[Measure, ActiveMeasure],
    form: Callable[[Measure], str],
    now: float,
    *,
    complete: bool,
) -> Diff:
    """Return what differs.

    Args:
        wanted: key → what is to stand.
        active: what stands.
        form: what the system does with a measure's match.
        now: the clock of the leases.
        complete: whether all that is wanted is known; if not, nothing is withdrawn
            that could be wanted. What is known to have ended is no longer in
            *wanted*, so the caller withdraws that by name.
    """
    standing = {measure.key: it for measure, it in active.items()}
    announce, impossible = [], {}
    for key, lease in wanted.items():
        left = lease.ends - now
        try:
            as_wanted = form(lease.measure)
        except BackendError as exc:
            impossible[key] = str(exc)
            continue
        there = standing.get(key)
        if there is None or there.form != as_wanted or _early(there, left):
            announce.append(DesiredMeasure(lease.measure, left))
    withdraw = [it for it in active if it.key not in wanted] if complete else []
    return Diff(announce, withdraw, impossible)


def _early(there: ActiveMeasure, left: float) -> bool:
    """Return whether the system would end a measure at another time than its lease."""
    return there.left is not None and abs(there.left - left) > _COARSE
