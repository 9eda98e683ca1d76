"""Which mitigation records can be used: a record that is nonsense reports nothing.

The mitigator writes none of these. Another writer, or a fault, may; the program that
informs people must outlive such a record, at every start.
"""

from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Final, NamedTuple

from consumers.mitigation.measure import FLOWSPEC, canonical
from consumers.mitigation.states import ENDED, PAUSE, PROPOSED, SUPPRESSED, WANTED
from fnm_bus.event import EPOCH, FlowMatch, Mitigation

MAX_BYTES: Final = 16 * 1024
"""Twice what the schema permits: what is remembered has a bound."""

_STATES: Final = frozenset({PROPOSED, WANTED, SUPPRESSED, ENDED})
_PAUSE_STATES: Final = frozenset({WANTED, ENDED})
_TIMES: Final = ("expires_at", "created_at", "started_at", "changed_at")
LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)
"""Later times leave no room to compute with."""
_MAX_LEASE_MS: Final = 366 * 86_400_000


class Problem(NamedTuple):
    """Why a record is left out.

    Attributes:
        code: a stable word: size, state, kind, prefix or time.
        text: field and value, for the log.
    """

    code: str
    text: str


def problem_of(mitigation: Mitigation, size: int) -> Problem | None:
    """Return why a record of *size* bytes cannot be used, or None."""
    if size > MAX_BYTES:
        return Problem("size", f"{size} bytes, more than {MAX_BYTES}")
    if not mitigation.kind:
        return Problem("kind", "kind is empty")
    states = _PAUSE_STATES if mitigation.kind == PAUSE else _STATES
    if mitigation.state not in states:
        return Problem("state", f"state {mitigation.state!r:.60} is not a state")
    return _problem_of_match(mitigation) or _problem_of_times(mitigation)


def _problem_of_match(mitigation: Mitigation) -> Problem | None:
    prefix, flow = mitigation.prefix, mitigation.flow
    if mitigation.kind == PAUSE:
        return None
    if flow is None and (prefix is None or mitigation.kind == FLOWSPEC):
        wanted = "flow" if mitigation.kind == FLOWSPEC else "prefix"
        return Problem("prefix", f"kind {mitigation.kind:.60} without a {wanted}")
    try:
        if prefix is not None:
            _check_network(prefix)
        if flow is not None:
            _check_flow(flow)
    except ValueError as exc:
        return Problem("prefix", f"{exc!s:.200}")
    return None


def _check_network(prefix: str) -> None:
    _check_text(prefix)
    ip_network(prefix)


def _check_text(prefix: object) -> None:
    # ip_network(7) is 0.0.0.7/32.
    if not isinstance(prefix, str):
        raise ValueError(f"{prefix!r:.60} is not text")  # noqa: TRY004 - one error


def _check_flow(flow: FlowMatch) -> None:
    for prefix in (flow.destination_prefix, flow.source_prefix):
        _check_text(prefix or "")
    canonical(flow)


def _problem_of_times(mitigation: Mitigation) -> Problem | None:
    for name in _TIMES:
        time = getattr(mitigation, name)
        if not EPOCH <= time < LATEST:
            return Problem("time", f"{name} {time} is before 1970 or after 8999")
    if not 0 <= mitigation.lease_ms <= _MAX_LEASE_MS:
        return Problem("time", f"lease_ms {mitigation.lease_ms} is not 0 to a year")
    return None
