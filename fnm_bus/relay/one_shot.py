"""Drain the spool within a deadline, for machines without a relay.

The call's own document is on disk before the drain begins. Records that Kafka does not
acknowledge within the deadline stay in the spool for the next call, or for a relay.
"""

from enum import Enum
from time import monotonic
from typing import Final

from fnm_bus.relay.drain import Drain
from fnm_bus.relay.hang_guard import HangGuard
from fnm_bus.spool.drain_backoff import Backoff
from fnm_bus.spool.spool import Spool

_POLL: Final = 0.05
"""Seconds to wait for Kafka's answers between two looks at the clock."""
_OVERTIME: Final = 15.0
"""Seconds beyond the deadline for reading a suspect entry. Without them a call could
never find the entry that kills its reader."""


class DrainOutcome(Enum):
    """The result of a short drain."""

    EMPTY = "the spool is empty"
    LOCKED = "another process is draining the spool"
    PAUSED = "no attempt: an earlier drain failed a moment ago"
    INCOMPLETE = "Kafka did not acknowledge all records within the deadline"
    DISK_ERRORS = "disk errors keep entries in the spool: see the messages above"


def drain_within(
    deadline: float, spool: Spool, backoff: Backoff, drain: Drain
) -> DrainOutcome:
    """Drain *spool* for up to *deadline* seconds, unless another process drains.

    A call that stores a document between the last scan and the release of the lock
    leaves its document to this process. The spool is therefore scanned again after the
    release.
    """
    guard = HangGuard()
    try:
        return _drain_repeatedly(monotonic() + deadline, spool, backoff, drain, guard)
    finally:
        guard.close()


def _drain_repeatedly(
    end: float, spool: Spool, backoff: Backoff, drain: Drain, guard: HangGuard
) -> DrainOutcome:
    while True:
        if backoff.seconds_left():
            return DrainOutcome.PAUSED
        lock = spool.lock()
        if lock is None:
            return DrainOutcome.LOCKED
        with lock:
            is_done = _drain(drain, end, guard)
            with drain.disk_errors.catch("writing the backoff"):
                # Entries with disk errors delay no others: the next call drains.
                if is_done and not drain.is_spool_unreadable:
                    backoff.clear()
                else:
                    backoff.record_failure()
        has_disk_errors = drain.io_blocked or drain.is_scan_incomplete
        if not is_done:
            return (
                DrainOutcome.DISK_ERRORS
                if has_disk_errors and not drain.has_unpublished
                else DrainOutcome.INCOMPLETE
            )
        if drain.is_spool_unreadable or not drain.scan():
            return (
                DrainOutcome.DISK_ERRORS
                if has_disk_errors or drain.is_scan_incomplete
                else DrainOutcome.EMPTY
            )


def _drain(drain: Drain, end: float, guard: HangGuard) -> bool:
    """Return whether every publishable entry was published before *end*."""
    drain.scan()
    while (left := end - monotonic()) > 0 or (
        drain.is_reading_suspect and left > -_OVERTIME
    ):
        guard.reset()
        if drain.is_backing_off and drain.is_reading_suspect:
            drain.retry_blocked()
        elif drain.is_backing_off and drain.has_unpublished:
            return False
        elif drain.is_backing_off and not drain.scan():
            return True
        drain.run_once(min(_POLL, max(left, 0.0)))
    return False
