"""Check of mitigation records: an invalid one is skipped and counted.

The mitigator writes none of these. Another writer, or a fault, may.
"""

from datetime import UTC, datetime
from typing import Final, NamedTuple

from consumers.mitigation.measure import KINDS, measure_of, validate_measure
from consumers.mitigation.states import ENDED, PAUSE, PROPOSED, SUPPRESSED, WANTED
from fnm_bus.errors import InvalidRecord
from fnm_bus.event import EPOCH, Mitigation

MAX_BYTES: Final = 16 * 1024
"""Twice the schema's limit: the memory of records has a bound."""
LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)
"""Later times leave no room for calculations."""
_STATES: Final = frozenset({PROPOSED, WANTED, SUPPRESSED, ENDED})
_PAUSE_STATES: Final = frozenset({WANTED, ENDED})
_TIMES: Final = ("expires_at", "created_at", "started_at", "changed_at")
_MAX_LEASE_MS: Final = 366 * 86_400_000


class Problem(NamedTuple):
    """The reason why a record is skipped."""

    code: str
    text: str


def problem_of(mitigation: Mitigation, size: int) -> Problem | None:
    """Return the problem of a record of *size* bytes, or None."""
    if size > MAX_BYTES:
        return Problem("size", f"{size} bytes, more than {MAX_BYTES}")
    if not mitigation.kind:
        return Problem("kind", "kind is empty")
    is_pause = mitigation.kind == PAUSE
    if mitigation.state not in (_PAUSE_STATES if is_pause else _STATES):
        return Problem("state", f"unknown state {mitigation.state!r:.60}")
    if fault := _time_fault(mitigation):
        return Problem("time", fault)
    if mitigation.kind in KINDS:  # people get notices of a later version's kinds, too
        try:
            validate_measure(measure_of(mitigation))
        except InvalidRecord as exc:
            return Problem("measure", str(exc))
    return None


def _time_fault(mitigation: Mitigation) -> str:
    for name in _TIMES:
        if not EPOCH <= getattr(mitigation, name) < LATEST:
            return f"{name} is before 1970 or after 8999"
    if not 0 <= mitigation.lease_ms <= _MAX_LEASE_MS:
        return f"lease_ms {mitigation.lease_ms} is not 0 to a year"
    return ""
