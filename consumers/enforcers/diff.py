"""The difference between what is wanted and what is in force."""

import logging
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from consumers.enforcers.backend import ActiveMeasure, BackendError, DesiredMeasure
from consumers.enforcers.snapshot import Lease
from consumers.mitigation.measure import Measure

log = logging.getLogger(__name__)

_COARSE: Final = 2.0
"""Seconds by which a system's own count may differ: some list whole seconds."""


class Diff(NamedTuple):
    """What has to be done so that the system matches.

    Attributes:
        announce: what is missing, has another form, or would end at another time.
        withdraw: what is in force and not wanted.
        unsupported: key → why the system cannot do it.
    """

    announce: list[DesiredMeasure]
    withdraw: list[Measure]
    unsupported: Mapping[str, str]


def compare(
    wanted: Mapping[str, Lease],
    active: Mapping[Measure, ActiveMeasure],
    form: Callable[[Measure], str],
    now: float,
    *,
    synced: bool,
) -> Diff:
    """Return what differs.

    Args:
        wanted: key → what is to be in force.
        active: what is in force.
        form: what the system does with a measure's match.
        now: the clock of the leases.
        synced: whether everything that is wanted is known. If not, nothing is withdrawn
            that could be wanted; the caller withdraws what is known to have ended.
    """
    listed = {measure.key: it for measure, it in active.items()}
    announce, unsupported = [], {}
    for key, lease in wanted.items():
        left = lease.ends - now
        try:
            wanted_form = form(lease.measure)
        except BackendError as exc:
            unsupported[key] = str(exc)
            continue
        except Exception as exc:  # one measure must never stop the others
            log.exception("%.200s: the backend failed", key)
            unsupported[key] = f"the backend failed: {type(exc).__name__}: {exc!s:.200}"
            continue
        other = listed.get(key)
        if other is None or other.form != wanted_form or _ends_apart(other, left):
            announce.append(DesiredMeasure(lease.measure, left))
    withdraw = [it for it in active if it.key not in wanted] if synced else []
    return Diff(announce, withdraw, unsupported)


def _ends_apart(active: ActiveMeasure, left: float) -> bool:
    """Return whether the system would end a measure at another time than its lease."""
    return active.left is not None and abs(active.left - left) > _COARSE
