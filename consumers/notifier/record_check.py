"""Check of mitigation records: an invalid one is skipped and counted.

The mitigator writes none of these. Another writer, or a fault, may.
"""

from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Final, NamedTuple

from consumers.mitigation.measure import FLOWSPEC, canonical
from consumers.mitigation.states import ENDED, PAUSE, PROPOSED, SUPPRESSED, WANTED
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
    """The reason why a record is skipped.

    Attributes:
        code: size, state, kind, prefix or time.
        text: field and value, for the log.
    """

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
    for code, check in (("time", _check_times), ("prefix", _check_match)):
        try:
            check(mitigation)
        except ValueError as exc:
            return Problem(code, f"{exc!s:.200}")
    return None


def _check_times(mitigation: Mitigation) -> None:
    for name in _TIMES:
        if not EPOCH <= getattr(mitigation, name) < LATEST:
            raise ValueError(f"{name} is before 1970 or after 8999")
    if not 0 <= mitigation.lease_ms <= _MAX_LEASE_MS:
        raise ValueError(f"lease_ms {mitigation.lease_ms} is not 0 to a year")


def _check_match(mitigation: Mitigation) -> None:
    prefix, flow = mitigation.prefix, mitigation.flow
    if mitigation.kind == PAUSE:
        return
    if flow is None and (prefix is None or mitigation.kind == FLOWSPEC):
        raise ValueError(f"kind {mitigation.kind:.60} without a prefix or flow")
    prefixes = flow and (flow.destination_prefix, flow.source_prefix)
    for text in (prefix, *(prefixes or ())):
        # ip_network(7) is 0.0.0.7/32.
        if not isinstance(text, str | None):
            raise ValueError(f"{text!r:.60} is not text")  # noqa: TRY004 - one error
    if prefix is not None:
        ip_network(prefix)
    if flow is not None:
        canonical(flow)
