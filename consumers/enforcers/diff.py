"""The difference between the wanted measures and the measures in force."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from consumers.enforcers.backend import ActiveMeasure, BackendError, DesiredMeasure
from consumers.enforcers.snapshot import Lease
from consumers.mitigation.measure import Measure
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_END_TOLERANCE: Final = 2.0
"""Seconds by which a system's own end may differ: some systems list whole seconds."""


class Diff(NamedTuple):
    """The changes after which the system matches.

    Attributes:
        announce: measures that are missing, have another form, or would end at another
            time.
        withdraw: measures that are in force and not wanted.
        unsupported: key → the reason that the system cannot apply the measure.
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
    """Return the difference.

    Args:
        wanted: key → lease of each wanted measure.
        active: the measures in force.
        form: returns the system's form of a measure's match.
        now: the clock of the leases.
        synced: whether *wanted* is complete. If not, no unwanted measure is withdrawn;
            the caller withdraws the measures that have certainly ended.
    """
    active_by_key = {measure.key: listed for measure, listed in active.items()}
    announce, unsupported = [], {}
    for key, lease in wanted.items():
        seconds_left = lease.ends - now
        try:
            wanted_form = form(lease.measure)
        except BackendError as exc:
            unsupported[key] = str(exc)
            continue
        except Exception as exc:  # one measure must never stop the others
            log.exception("backend_failed", mitigation=key[:200])
            unsupported[key] = f"the backend failed: {type(exc).__name__}: {exc!s:.200}"
            continue
        listed = active_by_key.get(key)
        if (
            listed is None
            or listed.form != wanted_form
            or _ends_apart(listed, seconds_left)
        ):
            announce.append(DesiredMeasure(lease.measure, seconds_left))
    unwanted = [measure for measure in active if measure.key not in wanted]
    return Diff(announce, unwanted if synced else [], unsupported)


def _ends_apart(active: ActiveMeasure, seconds_left: float) -> bool:
    """Return whether the system would end a measure at another time than its lease."""
    if active.seconds_left is None:
        return False
    return abs(active.seconds_left - seconds_left) > _END_TOLERANCE
